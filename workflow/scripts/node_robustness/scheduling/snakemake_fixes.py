"""Work around bugs of Snakemake 9.27.

Rounds: while jobs are ready, each round asks for another one after the timespan of
`--max-jobs-per-timespan` (a second, unless set), and so does each round that the end of a job
starts. After a hundred jobs there are a hundred rounds a second, each of which looks at every job
that is ready. They use a whole core, which the jobs need. One round that is due is enough.

SIGTERM: its handler waits for a lock that the interrupted thread may hold. Snakemake then hangs,
and so do the jobs that report their end.

Records: at the end of a job each output gets a record with the checksums of all inputs, which are
computed again for each output. For the tables of the default run that takes 0.8 s, in which no job
starts. Snakemake's own cache of what it knows of files computes them once.

The methods are private. In another version, or with another signature, they may have changed, so
they stay as they are there. Nothing is wrong with the results of such a run, and a user cannot
change it: a line at debug level (`--verbose`) says so, and not a warning in every run.
"""

import inspect
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

_VERSION = "9.27."
_SCHEDULER = {
    "_schedule_reevalutation": ["self", "delay"],
    "exit_gracefully": ["self", "*args"],
}
_PERSISTENCE = {"finished": ["self", "job"]}
"""The methods that are replaced, and their parameters in Snakemake 9.27."""


def work_around(
    scheduler: type[Any],
    persistence: type[Any],
    debug: Callable[[str], object],
    version: str | None = None,
) -> None:
    """Let one round be due at a time, a run stop when it is asked to, and a job end quickly.

    A process that parses several workflows changes the classes once.

    Args:
        scheduler: `snakemake.scheduling.job_scheduler.JobScheduler`, changed in place.
        persistence: `snakemake.persistence.PersistenceBase`, changed in place.
        debug: takes the line that says why a class is not changed.
        version: of Snakemake; the installed one if None.
    """
    for changed, methods, change in (
        (scheduler, _SCHEDULER, _change_scheduler),
        (persistence, _PERSISTENCE, _change_persistence),
    ):
        if "_worked_around" in vars(changed):
            continue
        why = unlike(changed, methods, version)
        if why is not None:
            debug(f"Bugs of Snakemake {_VERSION}x are not worked around: {why}")
            continue
        change(changed)
        changed._worked_around = True


def _change_scheduler(scheduler: type[Any]) -> None:

    def schedule(self: Any, delay: float) -> None:
        if getattr(self, "_round_is_due", False):
            return

        def begin() -> None:
            self._round_is_due = False  # before the round, which asks for the next one
            self._open_jobs.release()

        self._round_is_due = True
        timer = threading.Timer(delay, begin)
        timer.daemon = True  # at the end nobody waits for it
        timer.start()

    stop = scheduler.exit_gracefully

    def stop_elsewhere(self: Any, *args: Any) -> None:
        threading.Thread(target=stop, args=(self, *args)).start()

    scheduler._schedule_reevalutation = schedule
    scheduler.exit_gracefully = stop_elsewhere


def _change_persistence(persistence: type[Any]) -> None:
    write_records = persistence.finished

    async def finished(self: Any, job: Any) -> None:
        known = self.dag.workflow.iocache
        if known.active:
            await write_records(self, job)
            return
        known.active = True
        try:
            await write_records(self, job)
        finally:
            known.deactivate()  # and empty: the next job may change any file

    persistence.finished = finished


def unlike(
    changed: type[Any], methods: Mapping[str, list[str]], version: str | None = None
) -> str | None:
    """Why methods of a class of Snakemake may not be replaced; None if they may.

    Args:
        changed: the class.
        methods: what is replaced or called, and its parameters without their types, as they are
            in the version that the replacement is written for.
        version: of Snakemake; the installed one if None.
    """
    for name, parameters in methods.items():
        if _parameters(changed, name) != parameters:
            return f"{name} is not the method of {_VERSION}x"
    version = version or metadata.version("snakemake")
    return None if version.startswith(_VERSION) else f"this is {version}"


def _parameters(changed: type[Any], name: str) -> list[str]:
    """The parameters of a method without their types; none where it is not there."""
    if not hasattr(changed, name):
        return []
    found = inspect.signature(getattr(changed, name)).parameters.values()
    return [str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in found]
