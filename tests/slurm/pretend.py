"""Runs on the pretend cluster of cluster.sh, what it knows of them, and how to disturb it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import harness
from harness import ROOT, Run

HERE = ROOT / "tests/slurm"
Jobs = dict[str, list[dict[str, str]]]

# Many times what any of them takes on two cores.
_TIMEOUT = 600


def slurm(*command: str) -> str:
    """What a command of SLURM says."""
    return subprocess.run(command, check=True, text=True, timeout=60, capture_output=True).stdout


def cluster(*command: str) -> None:
    """Have cluster.sh do something."""
    subprocess.run([HERE / "cluster.sh", *command], check=True, timeout=120)


def wait_for(what: Callable[[], object]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + _TIMEOUT / 2
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


def begin(
    folder: Path, profile: Path, *targets: str, options: tuple[str, ...] = (), **settings: Any
) -> "subprocess.Popen[str]":
    """Start a run on the cluster: as harness.start, with the profiles but without patience."""
    folder.mkdir(exist_ok=True)
    path = {"PYTHONPATH": str(HERE)} | settings.pop("variables", {})
    # Snakemake would find profiles/default by itself, but not with the Snakefiles of the tests.
    given = ("--profile", str(profile), "--workflow-profile", str(ROOT / "profiles/default"))
    return harness.start(
        folder,
        *targets,
        options=given + options,
        cores=None,
        program="impatient",
        variables=path,
        **settings,
    )


def finish(process: "subprocess.Popen[str]") -> Run:
    """Wait for a run to end; end it if it takes too long."""
    return harness.finish(process, _TIMEOUT)


def attempt(folder: Path, profile: Path, *targets: str, **settings: Any) -> Run:
    """A run on the cluster to whatever end."""
    return finish(begin(folder, profile, *targets, **settings))


@contextmanager
def meanwhile(*processes: "subprocess.Popen[str]") -> Iterator[None]:
    """End runs with all their processes here if what is done to them does not work out."""
    try:
        yield
    except BaseException:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            print(process.communicate()[0])
        raise


def name_of(run: Run) -> str:
    """The name that all SLURM jobs of a run have."""
    return run.output.split("SLURM run ID: ")[1].split()[0]


def jobs(run: Run) -> Jobs:
    """The SLURM jobs of a run, by rule, in the order of their numbers."""
    keys = ["JobIDRaw", "State", "TimelimitRaw", "ReqMem", "ReqTRES", "AllocTRES"]
    keys += ["Partition", "NodeList", "Comment"]
    command = ["sacct", "--allocations", "--parsable2", "--noheader", f"--name={name_of(run)}"]
    rows = slurm(*command, "--starttime=now-1hour", f"--format={','.join(keys)}").splitlines()
    found: Jobs = {}
    for row in sorted(rows, key=lambda row: int(row.split("|")[0])):
        job = dict(zip(keys, row.split("|"), strict=True))
        rule = job["Comment"].split("_wildcards_")[0].removeprefix("rule_")
        found.setdefault(rule, []).append(job)
    return found


def numbers(rule: str, state: str) -> list[str]:
    """The numbers of the jobs of a rule, of any run, that are in a state."""
    rows = slurm("squeue", "-h", "--states=all", "-o", "%i|%k|%T").splitlines()
    return [row.split("|")[0] for row in rows if row.split("|")[1:] == [f"rule_{rule}", state]]


def start_now(*numbers: str) -> None:
    """Spare requeued jobs the two minutes that SLURM has them wait.

    Not the first seconds: it kills the processes of the first run within KillWait, which the second
    must not meet, and the node refuses the same job at once ("Job credential revoked").
    """
    time.sleep(5)
    for number in numbers:
        slurm("scontrol", "update", f"jobid={number}", "StartTime=now")
