"""Talking to the pretend cluster, and waiting for it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def slurm(*command: str) -> str:
    """What a command of SLURM says."""
    return subprocess.run(command, check=True, text=True, timeout=60, capture_output=True).stdout


def wait_for(what: Callable[[], object], seconds: int = 90) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)


@contextmanager
def meanwhile(process: "subprocess.Popen[str]") -> Iterator[None]:
    """End a run with all its processes here if what is done to it does not work out."""
    try:
        yield
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise


def jobs(output: str) -> dict[str, list[dict[str, str]]]:
    """The SLURM jobs of a run of Snakemake, by rule, in the order of their numbers."""
    keys = ["JobIDRaw", "State", "TimelimitRaw", "ReqMem", "ReqTRES", "Partition", "Comment"]
    name = output.split("SLURM run ID: ")[1].split()[0]
    command = ["sacct", "--allocations", "--parsable2", "--noheader", f"--name={name}"]
    rows = slurm(*command, "--starttime=now-1hour", f"--format={','.join(keys)}").splitlines()
    found: dict[str, list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row.split("|")[0])):
        job = dict(zip(keys, row.split("|"), strict=True))
        rule = job["Comment"].split("_wildcards_")[0].removeprefix("rule_")
        found.setdefault(rule, []).append(job)
    return found


def start_now(number: str) -> None:
    """Spare a requeued job the minutes that SLURM has it wait.

    But SLURM kills the processes of its first run within KillWait; the second must not meet them.
    """
    time.sleep(5)
    slurm("scontrol", "update", f"jobid={number}", "StartTime=now")
