"""Snakemake's scheduler, kept from waking up more and more often.

While jobs are ready, each round of Snakemake 9.27's scheduler asks for another one after the
timespan of `--max-jobs-per-timespan` (a second, unless set), and so does each round that the end of
a job brings about: after a hundred jobs it is a hundred rounds a second, each of which looks at
every job that is ready. That takes as much of a core as there is, from the jobs where these need
all cores. One round that is due is enough.
"""

import threading
from typing import Any


def limit(scheduler: type[Any]) -> None:
    """Let a scheduler wait for one round at a time.

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

    scheduler._schedule_reevalutation = schedule
