"""Runs that start at once: Snakemake and its jobs in forks of one process that has imported all.

A run is Snakemake's own, with its parsing, planning, checks of outputs and messages; only that
neither Snakemake nor a script is started in a new Python, which would take seconds to import what
it needs. Nor is what a run starts by `python -m`, or by multiprocessing. As a program, this module
does what `python -m` does, once for each line of its input.
"""

import gc
import importlib
import json
import multiprocessing
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from snakemake import cli
from snakemake.executors import touch
from snakemake.script import PythonScript

ROOT = Path(__file__).parents[2]
# On macOS a fork of a process that has imported PyTorch may crash.
POSSIBLE = sys.platform != "darwin"

# Many times what a run takes, or a job of it.
_SECONDS = 900


class QuickRuns:
    """The process that runs are forked from. It ends with the one that started it."""

    def __init__(self) -> None:
        """Start it."""
        variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
        )

    def run(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        folder: Path,
        project: Path,
        output: Path,
    ) -> int:
        """Do what `python -m` does.

        Args:
            command: the name of a module, and its arguments.
            variables: the environment.
            folder: the working directory.
            project: the folder whose scripts are used.
            output: a file that what it says is added to.

        Returns:
            The exit status.
        """
        asked = [command, dict(variables), str(folder), str(project), str(output)]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _fork(work: Callable[[], object]) -> int:
    """Do some work in a fork of this process; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    fork = os.fork()
    if fork:
        return fork
    signal.alarm(_SECONDS)
    # Other threads may have held the locks of the old ones.
    sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(fork: int) -> int:
    """The exit status of a fork, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


def _execute_script(self: Any, fname: str, **_: object) -> None:
    """Run the script of a job in a fork of Snakemake's process: see `PythonScript`.

    The workflow leaves a method with other parameters than Snakemake's as it is.
    """
    status = _status(_fork(lambda: runpy.run_path(fname, run_name="__main__")))
    if status != 0:
        raise subprocess.CalledProcessError(status, fname)


def _run(
    command: Sequence[str], run: Callable[..., Any] = subprocess.run, **settings: Any
) -> "subprocess.CompletedProcess[str]":
    """Do what `subprocess.run` does, with a module of this Python in a fork of this process.

    Args:
        command: see `subprocess.run`.
        run: what runs other commands.
        **settings: of `subprocess.run`; where a module has `stdout`, it has the same `stderr`.
    """
    if [*command[:2]] != [sys.executable, "-m"] or settings.keys() - {"stdout", "stderr", "text"}:
        done: subprocess.CompletedProcess[str] = run(command, **settings)
        return done
    with TemporaryFile() as said:

        def work() -> None:
            if "stdout" in settings:
                for stream in (1, 2):
                    os.dup2(said.fileno(), stream)
            _as_main(*command[2:])

        status = _status(_fork(work))
        said.seek(0)
        return subprocess.CompletedProcess(command, status, said.read().decode())


def _as_main(module: str, *arguments: str) -> None:
    """What `python -m` does."""
    sys.argv[1:] = arguments
    if module != "snakemake":  # whose package it is, not the module that runs
        sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _do(
    command: list[str], variables: dict[str, str], folder: str, project: str, output: str
) -> None:
    """What `run` asks for, in a fork."""
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    if Path(project) != ROOT:
        for name in [name for name in sys.modules if name.split(".")[0] == "node_robustness"]:
            # It keeps the files that it has parsed by their text, which most copies have too.
            if name != "node_robustness.code.digest":
                del sys.modules[name]
    _as_main(*command)


def _import_all() -> None:
    """Import what Snakemake and the jobs import, and read the code that they compare."""
    import torch._dynamo

    scripts = ROOT / "workflow/scripts"
    before = [*sys.path]
    sys.path.append(str(scripts))
    import node_robustness
    from node_robustness.code import digest
    from node_robustness.report import drawing_code

    ours = pkgutil.walk_packages(node_robustness.__path__, "node_robustness.")
    # Snakemake imports the last three when it reads rules and sources.
    for name in [*(module.name for module in ours), "nbformat", "smart_open", "snakemake.storage"]:
        importlib.import_module(name)
    sys.path[:] = before
    for script in scripts.glob("*.py"):
        digest.of_script(script)
    # Versions of libraries are looked up again: a run may pretend others.
    digest._of_files.cache_clear()
    digest._versions.cache_clear()
    cli.parse_args(["--dry-run"])  # imports Snakemake's plugins
    torch.set_num_threads(1)
    # In a process that ends: a fork of one that has run JavaScript cannot run more of it.
    bundle = subprocess.run(
        [sys.executable, "-c", f"from {drawing_code.__name__} import bundle; print(bundle())"],
        env=os.environ | {"PYTHONPATH": str(scripts)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout.removesuffix("\n")
    drawing_code.bundle = lambda: bundle
    PythonScript.execute_script = _execute_script
    # `--touch` sleeps before each job so that its files are newer; as new as its inputs will do.
    touch.Executor.SLEEPING_TIME = 0
    subprocess.run = _run  # type: ignore[assignment]
    forking = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda _=None: forking  # type: ignore[assignment]


def _serve() -> None:
    _import_all()
    gc.freeze()
    for line in sys.stdin:
        asked = json.loads(line)
        print(_status(_fork(lambda asked=asked: _do(*asked))), flush=True)


if __name__ == "__main__":
    _serve()
