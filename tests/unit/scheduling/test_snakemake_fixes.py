"""Snakemake has one round due at a time, is never left without one, stops, and ends jobs fast."""

import asyncio
import inspect
import os
import signal
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from snakemake.persistence import PersistenceBase
from snakemake.scheduling.job_scheduler import JobScheduler

from node_robustness.scheduling import snakemake_fixes

DELAY = 0.05


def changed(version=None, **methods):
    """A class with the workaround, and what was said: Snakemake's own class stays as it is."""
    scheduler, said = type("Changed", (JobScheduler,), {"__init__": _begin, **methods}), []
    snakemake_fixes.work_around(scheduler, persistence(), said.append, version)
    return scheduler, said


def persistence(**methods):
    return type("Persistence", (PersistenceBase,), methods)


def _begin(self):
    self._open_jobs = threading.Semaphore(0)
    self._lock = threading.Lock()
    self._user_kill = None


@pytest.fixture
def scheduling():
    scheduler, said = changed()
    assert not said
    return scheduler()


METHODS = ["_schedule_reevalutation", "exit_gracefully"]


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_replaced_by_methods_of_as_many_arguments(method):
    theirs, ours = (getattr(of, method) for of in (JobScheduler, changed()[0]))
    assert ours is not theirs
    assert len(inspect.signature(ours).parameters) == len(inspect.signature(theirs).parameters)


def test_a_second_workflow_in_a_process_changes_nothing_more():
    scheduler, said = changed()
    methods = [getattr(scheduler, name) for name in METHODS]
    snakemake_fixes.work_around(scheduler, persistence(), said.append)
    assert [getattr(scheduler, name) for name in METHODS] == methods
    assert not said


def test_a_class_derived_from_a_changed_one_can_be_changed():
    """As the tests of this file do, wherever the process parsed a workflow before."""
    base, _ = changed()
    derived, said = type("Derived", (base,), {}), []
    snakemake_fixes.work_around(derived, persistence(), said.append)
    assert not said
    assert derived.exit_gracefully is not base.exit_gracefully


@pytest.mark.parametrize("version", ["9.26.0", "9.28.0", "10.0.0", "9.270.1"])
def test_another_version_stays_as_it_is_and_says_so(version):
    scheduler, lines = changed(version)
    assert all(getattr(scheduler, name) is getattr(JobScheduler, name) for name in METHODS)
    assert len(lines) == 2
    assert all(line.endswith(f"not worked around: this is {version}") for line in lines)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("other", [lambda self: None, lambda self, delay, why: None])
def test_another_signature_stays_as_it_is_and_says_so(method, other):
    scheduler, (line,) = changed(**{method: other})
    assert all(getattr(scheduler, name) in (other, getattr(JobScheduler, name)) for name in METHODS)
    assert f"not worked around: {method} is not" in line


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


class _Known:
    """As much of Snakemake's cache of what it knows of files as the end of a job uses."""

    def __init__(self, active):
        self.active, self.checksums = active, {}

    def deactivate(self):
        self.active = False
        self.checksums.clear()


def _end_of_a_job(active=False, error=None):
    """End a job; return the cache, and whether it was used meanwhile."""
    seen = []

    async def finished(self, job):
        known = self.dag.workflow.iocache
        seen.append(known.active)
        known.checksums[job] = "of then"
        if error:
            raise error

    changed, said = persistence(finished=finished), []
    snakemake_fixes.work_around(type("Scheduler", (JobScheduler,), {}), changed, said.append)
    assert not said
    known = _Known(active)
    records = SimpleNamespace(dag=SimpleNamespace(workflow=SimpleNamespace(iocache=known)))
    with nullcontext() if error is None else pytest.raises(type(error)):
        asyncio.run(changed.finished(records, "job"))
    return known, seen


def test_the_end_of_a_job_computes_a_checksum_once_and_forgets_it():
    known, seen = _end_of_a_job()
    assert seen == [True]
    assert not known.active
    assert not known.checksums


def test_a_failure_at_the_end_of_a_job_forgets_checksums_too():
    known, _ = _end_of_a_job(error=OSError("full"))
    assert not known.active
    assert not known.checksums


def test_a_cache_in_use_stays_in_use():
    known, seen = _end_of_a_job(active=True)
    assert seen == [True]
    assert known.active
    assert known.checksums


def test_records_of_another_signature_stay_as_they_are_and_say_so():
    async def finished(self, job, why):
        pass

    changed, said = persistence(finished=finished), []
    snakemake_fixes.work_around(type("Scheduler", (JobScheduler,), {}), changed, said.append)
    assert changed.finished is finished
    assert "not worked around: finished is not" in said[0]
