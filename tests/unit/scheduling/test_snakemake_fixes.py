"""Snakemake's scheduler has one round due at a time, is never left without one, and stops."""

import inspect
import os
import signal
import threading
import time

import pytest
from snakemake.scheduling.job_scheduler import JobScheduler

from node_robustness.scheduling import snakemake_fixes

DELAY = 0.05


def mended():
    """A class of its own: Snakemake's stays as it is."""
    changed = type("Mended", (JobScheduler,), {"__init__": _begin})
    snakemake_fixes.mend(changed)
    return changed


def _begin(self):
    self._open_jobs = threading.Semaphore(0)
    self._lock = threading.Lock()
    self._user_kill = None


@pytest.fixture
def scheduling():
    return mended()()


@pytest.mark.parametrize("method", ["_schedule_reevalutation", "exit_gracefully"])
def test_what_is_replaced_is_there(method):
    theirs, ours = (inspect.signature(getattr(of, method)) for of in (JobScheduler, mended()))
    assert len(theirs.parameters) == len(ours.parameters)


def test_however_often_it_is_asked_one_round_is_due(scheduling):
    for _ in range(100):
        scheduling._schedule_reevalutation(DELAY)
    assert scheduling._open_jobs.acquire(timeout=5)
    time.sleep(3 * DELAY)
    assert not scheduling._open_jobs.acquire(blocking=False)


def test_each_round_can_ask_for_the_next(scheduling):
    """Of a thousand in a row none may be lost: that one would be waited for in vain."""
    start = time.monotonic()
    for _ in range(1000):
        scheduling._schedule_reevalutation(0.001)
        assert scheduling._open_jobs.acquire(timeout=5)
    assert time.monotonic() - start >= 1


def test_at_the_end_nobody_waits(scheduling):
    scheduling._schedule_reevalutation(3600)
    assert all(t.daemon for t in threading.enumerate() if isinstance(t, threading.Timer))


def test_stops_whatever_it_was_doing(scheduling):
    before = signal.signal(signal.SIGTERM, scheduling.exit_gracefully)
    try:
        with scheduling._lock:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(DELAY)  # in here the handler is called
            assert scheduling._user_kill is None
        assert scheduling._open_jobs.acquire(timeout=5)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert scheduling._user_kill == "graceful"
