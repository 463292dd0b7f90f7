"""A script in a fork ends, sees and says what it does in a new Python."""

import pytest
from snakemake.shell import shell

SEES = """
import json, os, signal, sys
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "file": __file__, "name": __name__,
    "environment": {k: v for k, v in os.environ.items() if not k.startswith("NODE_ROBUSTNESS")},
    "streams": [str(sys.stdin), str(sys.stdout), str(sys.stderr)],
    "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
    "limits": open("/proc/self/limits").read(),
    "signals": {str(s): str(signal.getsignal(s)).split(" at ")[0] for s in signal.valid_signals()},
    "umask": os.umask(0), "nice": os.nice(0), "processors": sorted(os.sched_getaffinity(0)),
    "main": sys.modules["__main__"].__file__, "command": sys.orig_argv[1:], "flags": str(sys.flags),
}))
"""


def test_sees_what_a_new_python_sees(warm):
    settings = {"environment": {"SOME": "value", "PWD": "/elsewhere"}}
    # The server is another run's.
    others = {"SOME": "value", "XDG_OTHER": "another's", "PWD": "/another"}
    assert warm.run("pass", environment=others).returncode == 0
    cold = warm.run(SEES, environment=settings["environment"] | {"SOME": "none"}, may_start=False)
    cold.stdout = cold.stdout.replace('"SOME": "none"', '"SOME": "value"')
    forked = warm.run(SEES, **settings)
    assert (forked.returncode, forked.stderr) == (0, "")
    assert len(warm.servers()) == 1
    assert forked.stdout == cold.stdout


@pytest.mark.parametrize(
    "ends",
    [
        "pass",
        "raise SystemExit(3)",
        "raise SystemExit('why')",
        "raise SystemExit",
        "raise ValueError('why')",
        "raise KeyboardInterrupt",
        "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os.abort()",
        "import os; os._exit(7)",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading; threading.Timer(0.1, lambda: print('later')).start()",
        "print('no line', end='')",
        "syntax error",
    ],
)
def test_ends_as_in_a_new_python(warm, ends):
    cold = warm.run(ends, may_start=False)
    forked = warm.run(ends)
    assert len(warm.servers()) == 1
    assert (forked.returncode, forked.stdout) == (cold.returncode, cold.stdout)
    assert forked.stderr.splitlines()[-1:] == cold.stderr.splitlines()[-1:]


def test_threads_of_libraries_are_those_of_a_new_python(warm):
    """OpenBLAS has started its threads when the server forks, and OpenMP those of the first job."""
    warm.edit("server.py", "in ():", 'in ("numpy", "scipy.linalg", "threadpoolctl", "torch"):')
    body = """
import hashlib, os
import numpy, scipy.linalg, torch
from threadpoolctl import threadpool_info
matrix = numpy.random.default_rng(0).normal(size=(300, 300))
solved = scipy.linalg.solve(matrix, matrix @ matrix @ matrix)
print(len(os.listdir("/proc/self/task")))
print(hashlib.sha256(solved.tobytes()).hexdigest(), torch.get_num_threads())
print(sorted((library["filepath"], library["num_threads"]) for library in threadpool_info()))
"""
    names = _variables_of_threads()
    variables = {threads: dict.fromkeys(names, threads) for threads in "12"}
    cold = {
        # Before there is a server, which would fork for all of them.
        threads: warm.run(body, environment=environment, may_start=False).stdout.splitlines()
        for threads, environment in variables.items()
    }
    for threads in ("2", "1", "2"):
        forked = warm.run(body, environment=variables[threads])
        assert (forked.returncode, forked.stderr) == (0, "")
        started, *used = forked.stdout.splitlines()
        assert used == cold[threads][1:]
        # Of two that OpenBLAS has started, one is idle where a job is to use one.
        assert started == cold["2"][0]
    assert len(warm.servers()) == 1
    other = warm.run(
        "import os; print(os.environ['NODE_ROBUSTNESS_COLD'])",
        environment=variables["2"] | {"OMP_NUM_THREADS": "1"},
        may_start=False,
    )
    assert other.stdout == "no server runs\n"


def _variables_of_threads():
    """Those that Snakemake sets to the threads of a job."""
    said = shell("env", threads=37, read=True)
    return [line.removesuffix("=37") for line in said.splitlines() if line.endswith("=37")]
