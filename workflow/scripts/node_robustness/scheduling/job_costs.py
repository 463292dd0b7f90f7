"""What each job cost, from the last line of its log.

A job writes the line itself (`jobs/record.py`) once it has succeeded. Snakemake's process reads
this module too, so it must import quickly (no torch).
"""

import os
import re
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from node_robustness.grid import paths

_LINE = (
    "done: started {} on {}: {} s ({} s until its code ran, {} s of model computation), "
    "{} s of CPU time, {} MB of memory"
)
_PATTERN = re.compile(f"^{re.escape(_LINE)}$".replace(re.escape("{}"), "(.+)"), re.MULTILINE)
# Of the end of a log, in which the line is looked for. Libraries may say more after it.
_TAIL_BYTES = 8192


@dataclass(frozen=True)
class Spent:
    """What a job cost."""

    started_utc: str  # ISO 8601
    host: str
    seconds: float  # wall time since the process started
    start_seconds: float  # of these, until the job's own code ran: the interpreter and imports
    computing_seconds: float  # of these, model computation: training, solves and gradients
    cpu_seconds: float  # of all threads, and of processes that the job started and that ended
    max_rss_mb: float  # the largest memory of the process, or of one that it started

    def __str__(self) -> str:
        started, host, *numbers = astuple(self)
        return _LINE.format(started, host, *(f"{number:.3f}" for number in numbers))


@dataclass(frozen=True)
class JobCost:
    """What a job of the workflow cost."""

    rule: str
    place: str  # of the job in the grid, see `grid.paths`
    coordinates: dict[str, Any]  # that the place says; none of a job that is not of a model
    spent: Spent


def read(folder: Path) -> list[JobCost]:
    """Read what jobs cost when they last ran.

    Args:
        folder: That of an experiment, `results/{experiment}`, or `resources`; jobs have their logs
            in its folder `logs`.

    Returns:
        Those whose last run succeeded and whose log is there, in order of their logs' paths.
    """
    logs = folder / "logs"
    found = []
    for path in sorted(logs.rglob("*.log")):
        spent = parse(_tail(path))
        if spent:
            rule, *place = path.relative_to(logs).with_suffix("").parts
            at = "/".join(place)
            found.append(JobCost(rule, at, paths.read_place(at) or {}, spent))
    return found


def parse(log: str) -> Spent | None:
    """What the job with this log, or end of a log, cost; None of one that did not succeed."""
    lines = _PATTERN.findall(log)
    if not lines:
        return None
    started, host, *numbers = lines[-1]
    return Spent(started, host, *map(float, numbers))


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
        return stream.read().decode(errors="replace")
