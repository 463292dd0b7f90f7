"""Snakemake's scheduler has one round due at a time, and is never left without one."""

import threading
import time
from types import SimpleNamespace

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from node_robustness import scheduler_rounds

DELAY = 0.05


@pytest.fixture
def scheduler():
    """Of the form of Snakemake's, as far as it matters here."""

    class Scheduler:
        def __init__(self) -> None:
            self._open_jobs = threading.Semaphore(0)

    scheduler_rounds.limit(Scheduler)
    return Scheduler()


def test_what_is_replaced_is_there():
    """And has the arguments of what replaces it; otherwise it would be replaced for nothing."""
    limited = SimpleNamespace()
    scheduler_rounds.limit(limited)
    for method in (JobScheduler._schedule_reevalutation, limited._schedule_reevalutation):
        assert method.__code__.co_varnames[: method.__code__.co_argcount] == ("self", "delay")


def test_however_often_it_is_asked_one_round_is_due(scheduler):
    for _ in range(100):
        scheduler._schedule_reevalutation(DELAY)
    assert scheduler._open_jobs.acquire(timeout=5)
    time.sleep(3 * DELAY)
    assert not scheduler._open_jobs.acquire(blocking=False)


def test_each_round_can_ask_for_the_next(scheduler):
    """Of a thousand in a row none may be lost: that one would be waited for in vain."""
    start = time.monotonic()
    for _ in range(1000):
        scheduler._schedule_reevalutation(0.001)
        assert scheduler._open_jobs.acquire(timeout=5)
    assert time.monotonic() - start >= 1


def test_at_the_end_nobody_waits(scheduler):
    scheduler._schedule_reevalutation(3600)
    assert all(t.daemon for t in threading.enumerate() if isinstance(t, threading.Timer))
