"""Leases of pretend devices, held by processes as jobs hold them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.jobs import gpus

_JOB = """
import os, sys
sys.path.insert(0, sys.argv[1])
from node_robustness.jobs import gpus
gpus.hold_one(int(sys.argv[2]))
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.read()
"""
Job = tuple[str, "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Start a job; what it sees, and its process."""
    processes = []

    def begin(visible: str | None = None, count: int = 0) -> Job:
        environment = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        environment["TMPDIR"] = str(tmp_path)
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        scripts = Path(gpus.__file__).parents[2]
        process = subprocess.Popen(
            [sys.executable, "-c", _JOB, str(scripts), str(count)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None
        return process.stdout.readline().strip(), process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def test_each_job_has_its_own(start):
    assert sorted(start("4,GPU-7,MIG-GPU-8/1/0")[0] for _ in range(3)) == [
        "4",
        "GPU-7",
        "MIG-GPU-8/1/0",
    ]


def test_more_jobs_than_devices_share_evenly(start):
    assert sorted(start(count=2)[0] for _ in range(4)) == ["0", "0", "1", "1"]


@pytest.mark.parametrize("end", ["kill", "terminate"])
def test_a_job_that_crashes_gives_its_device_back(start, end):
    held = dict(start(count=3) for _ in range(3))
    getattr(held["1"], end)()
    held["1"].wait()
    assert start(count=3)[0] == "1"


@pytest.mark.parametrize(
    ("visible", "count", "seen"), [(None, 0, "None"), (None, 1, "None"), ("", 0, ""), ("3", 1, "3")]
)
def test_one_or_none_is_left_alone(start, tmp_path, visible, count, seen):
    assert start(visible, count)[0] == seen
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(min_value=0), max_size=30), st.integers(min_value=1, max_value=4))
def test_nobody_shares_while_a_device_is_free(tmp_path_factory, ends, number):
    """Whatever jobs came and went before, in any order."""
    folder = tmp_path_factory.mktemp("locks")
    devices = [f"d{i}" for i in range(number)]
    held = []
    try:
        for end in ends:
            if end % 2 and held:
                held.pop(end % len(held))[1].close()
            shared = len({device for device, _ in held}) == number
            device, lock = gpus.claim_gpu(devices, folder)
            assert shared or device not in [other for other, _ in held]
            held.append((device, lock))
    finally:
        for _, lock in held:
            lock.close()
