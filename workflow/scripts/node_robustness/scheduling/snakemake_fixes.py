"""Two faults of Snakemake 9.27's scheduler, mended.

Rounds: while jobs are ready, each round asks for another one after the timespan of
`--max-jobs-per-timespan` (a second, unless set), and so does each round that the end of a job
brings about. After a hundred jobs it is a hundred rounds a second, each of which looks at every job
that is ready: as much of a core as there is, taken from the jobs where these need all cores. One
round that is due is enough.

SIGTERM: its handler waits for a lock which the thread that it interrupts may hold. Snakemake then
hangs, and so do the jobs that want to say that they have ended.
"""

import threading
from typing import Any


def mend(scheduler: type[Any]) -> None:
    """Let a scheduler have one round due at a time, and stop when it is asked to.

    Args:
        scheduler: `snakemake.scheduling.job_scheduler.JobScheduler`, changed in place.
    """

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

    def stop_elsewhere(self: Any, *signal: Any) -> None:
        threading.Thread(target=stop, args=(self, *signal)).start()

    scheduler._schedule_reevalutation = schedule
    scheduler.exit_gracefully = stop_elsewhere
