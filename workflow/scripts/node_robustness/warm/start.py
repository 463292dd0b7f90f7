"""Let Snakemake run the scripts of the workflow in forks of a server.

It replaces the method with which Snakemake 9.27 runs a Python script. In another version, or with
another signature, that may have changed, so it stays as it is there, and a line at debug level
says so: nothing is wrong with such a run, its jobs only start more slowly.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from node_robustness.scheduling.snakemake_fixes import unlike
from node_robustness.warm.client import COLD, STARTED

_CLIENT = Path(__file__).with_name("client.py")
_METHODS = {
    "execute_script": ["self", "fname", "edit=False"],
    "_execute_cmd": ["self", "cmd", "**kwargs"],
}
"""The methods that are replaced or called, and their parameters in Snakemake 9.27."""


def use_server(
    workflow: Any,
    script_class: type[Any],
    scripts: Path,
    debug: Callable[[str], object],
    version: str | None = None,
) -> None:
    """Let the scripts of this workflow run in forks of the server where they run on this machine.

    Args:
        workflow: Snakemake's, of its main process.
        script_class: `snakemake.script.PythonScript`, changed in place.
        scripts: the folder of the scripts; others run in a new Python.
        debug: takes the line that says why nothing is changed.
        version: of Snakemake; the installed one if None.
    """
    # Of the job that this Snakemake is a part of.
    for variable in (COLD, STARTED):
        os.environ.pop(variable, None)
    as_before = getattr(script_class.execute_script, "as_before", script_class.execute_script)
    script_class.execute_script = as_before
    why = unlike(script_class, _METHODS, version)
    if why is not None:
        debug(f"Scripts start in a new Python: {why}")
        return

    @cache
    def has_several_jobs() -> bool:
        return len([*islice(workflow.dag.needrun_jobs(exclude_finished=False), 2)]) == 2

    def execute_script(self: Any, fname: str, edit: bool = False) -> None:
        if not (_is_on_this_machine(workflow) and _is_of(scripts, self)):
            as_before(self, fname, edit)
            return
        folder = Path(tempfile.gettempdir()) / f"node-robustness-{os.getuid()}"
        with suppress(OSError):  # the client says what is wrong
            folder.mkdir(mode=0o700, exist_ok=True)
        self._execute_cmd(
            "{python} -I -S {client:q} {sockets:q} {state} {snakemake} {may_start} {fname:q}",
            python=sys.executable,
            client=str(_CLIENT),
            sockets=str(folder),
            state=_state(scripts),
            snakemake=os.getpid(),
            # One that serves a single job takes longer than the job alone.
            may_start=int(has_several_jobs()),
            fname=fname,
            is_python_script=True,
        )

    execute_script.as_before = as_before  # type: ignore[attr-defined]
    script_class.execute_script = execute_script


def _is_on_this_machine(workflow: Any) -> bool:
    """Whether jobs run here and in this environment; a cluster counts what its jobs use."""
    return (
        sys.platform == "linux"
        and hasattr(os, "pidfd_open")
        and workflow.local_exec
        and not workflow.deployment_settings.deployment_method
        and "SLURM_JOB_ID" not in os.environ
    )


def _is_of(scripts: Path, script: Any) -> bool:
    """Whether a script is one of this folder, and runs in the environment of Snakemake."""
    elsewhere = (script.conda_env, script.container_img, script.env_modules)
    path = Path(script.path.get_path_or_uri(secret_free=True))
    return elsewhere == (None, None, None) and path.parent.resolve() == scripts.resolve()


def _state(scripts: Path) -> str:
    """A digest of the interpreter, its libraries, the checkout and this room."""
    digest = hashlib.sha256()
    for word in (sys.executable, sys.version, scripts.resolve()):
        digest.update(f"{word}\n".encode(errors="surrogateescape"))
    lock = scripts.parents[1] / "requirements/lock.txt"
    for file in (lock, *sorted(_CLIENT.parent.glob("*.py"))):
        digest.update(file.read_bytes() if file.exists() else b"")
    for folder in map(Path, sys.path):
        # It changes when something is installed.
        if folder.name in ("site-packages", "dist-packages") and folder.is_dir():
            digest.update(f"{folder} {folder.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
