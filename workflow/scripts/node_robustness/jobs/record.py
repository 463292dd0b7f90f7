"""What a job measures of itself: its time, the model computation in it, and its memory."""

import os
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from node_robustness.scheduling.job_costs import Spent
from node_robustness.warm.client import STARTED

_MEMORY = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
_SELF_AND_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class JobRecord:
    """The costs of the job that this process is, from the start of the process.

    Attributes:
        computing_seconds: wall time in the blocks of `computing` that have ended.
    """

    def __init__(self) -> None:
        """Begin where the code of the job begins, after its imports."""
        self._start_seconds = _age()
        self._begun = time.perf_counter()
        self._started = datetime.now(UTC) - timedelta(seconds=self._start_seconds)
        self.computing_seconds = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time of the block as model computation."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.computing_seconds += time.perf_counter() - started

    def spent(self) -> Spent:
        """What the job has cost so far."""
        usage = [resource.getrusage(who) for who in _SELF_AND_CHILDREN]
        return Spent(
            started_utc=self._started.isoformat(timespec="seconds"),
            host=platform.node(),
            seconds=self._start_seconds + time.perf_counter() - self._begun,
            start_seconds=self._start_seconds,
            computing_seconds=self.computing_seconds,
            cpu_seconds=sum(used.ru_utime + used.ru_stime for used in usage),
            max_rss_mb=_largest_memory(usage[1]),
        )


def _age() -> float:
    """Seconds since this process started, or since the one that it works for says it started."""
    started = os.environ.get(STARTED)
    if started:
        return max(0.0, time.time() - float(started))
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        # Not Linux. Until here the process has used one thread, and has seldom waited.
        return time.process_time()
    # The 22nd field, in ticks since the machine started; the first two end with the bracket.
    ticks = int(fields[19])
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def _largest_memory(children: resource.struct_rusage) -> float:
    """The largest memory of this process, or of one that it started, in MB.

    Linux counts as `ru_maxrss` of a new process also what the one that started it took, such as
    Snakemake's for a job; `VmHWM` is that of the process alone.
    """
    kilobytes = 1024 if sys.platform == "darwin" else 1
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / kilobytes
    status = Path("/proc/self/status")
    if status.exists():
        own = _MEMORY.search(status.read_text(encoding="utf-8", errors="replace"))
        largest = float(own[1]) if own else largest
    return max(largest, children.ru_maxrss / kilobytes) / 1024
