"""Whole runs in seconds: Snakemake and its jobs in forks of one process that has imported all.

A run is Snakemake's own, with its parsing, planning, checks of outputs and messages; only that a
script is not started in a new Python, which would take two seconds to import PyTorch. As a
program, this module runs Snakemake once for each line of its input, a list of arguments behind the
path of a file for what Snakemake says, in JSON; it answers with the exit status.
"""

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from snakemake import cli
from snakemake.script import PythonScript

import node_robustness
from harness import ROOT, Run, variables_at

# Many times what a run takes, or a job of it.
_SECONDS = 900


class QuickSnakemake:
    """The process that runs are forked from; it ends with the context.

    Args:
        home: a folder for Snakemake's caches.
    """

    def __init__(self, home: Path) -> None:
        """Start nothing yet."""
        self._home = home

    def __enter__(self) -> Self:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables_at(self._home) | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.communicate()

    def run(self, folder: Path, configfile: Path, *options: str) -> Run:
        """Run Snakemake in a folder to whatever end."""
        said = folder.with_name(f"{folder.name}.log")
        arguments = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)]
        arguments += ["--configfile", str(configfile), "--cores", "1", *options]
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(said), *arguments]) + "\n")
        self._process.stdin.flush()
        return Run(int(self._process.stdout.readline()), said.read_text(errors="replace"))


def _fork(work: Callable[[], object]) -> int:
    """Do some work in a fork of this process; return its number."""
    sys.stdout.flush()
    sys.stderr.flush()
    fork = os.fork()
    if fork:
        return fork
    signal.alarm(_SECONDS)
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _status(fork: int) -> int:
    """The exit status of a fork, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])


def _execute_script(self: Any, fname: str, edit: bool = False) -> None:
    fork = _fork(lambda: runpy.run_path(fname, run_name="__main__"))
    status = _status(fork)
    if status != 0:
        raise subprocess.CalledProcessError(status, fname)


def _serve() -> None:
    import torch._dynamo

    for module in pkgutil.walk_packages(node_robustness.__path__, "node_robustness."):
        importlib.import_module(module.name)
    torch.set_num_threads(1)
    gc.freeze()
    PythonScript.execute_script = _execute_script
    for line in sys.stdin:
        said, *arguments = json.loads(line)

        def snakemake(said: str = said, arguments: list[str] = arguments) -> None:
            for stream in (1, 2):
                os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            sys.argv[1:] = arguments
            cli.main(arguments)

        print(_status(_fork(snakemake)), flush=True)


if __name__ == "__main__":
    _serve()
