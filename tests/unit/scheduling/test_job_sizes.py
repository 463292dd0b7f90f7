"""What jobs ask for: more for more work, and never too little to start."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.config import config, experiment, loading
from node_robustness.scheduling import job_sizes

ROOT = Path(__file__).parents[3]


def configured(**changes: Any) -> config.Config:
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    return loading.load(raw | changes)


def asked(work: job_sizes.Work, model: str = "OON", attempt: int = 1) -> tuple[int, int]:
    mnist = configured()
    return (
        job_sizes.minutes(mnist, "mnist", model, work, threads=1, attempt=attempt),
        job_sizes.megabytes(mnist, "mnist", model, work, attempt=attempt),
    )


works = st.builds(
    job_sizes.Work,
    images=st.integers(0, 100_000),
    steps=st.integers(0, 1000),
    batch_size=st.none() | st.integers(1, 1000),
)


@given(works, st.integers(1, 5))
def test_enough_to_start_and_twice_as_much_at_each_attempt(work, attempt):
    first, later = asked(work), asked(work, attempt=attempt)
    assert first >= (10, 2000)
    assert later == tuple(value * 2 ** (attempt - 1) for value in first)


@given(works, st.integers(1, 10_000), st.integers(1, 100))
def test_more_work_asks_for_no_less(work, images, steps):
    more = job_sizes.Work(work.images + images, work.steps + steps, work.batch_size)
    for less, greater in zip(asked(work), asked(more), strict=True):
        assert less <= greater


def test_following_more_asks_for_more():
    def steps(**keys: Any) -> int:
        work = job_sizes.trajectory_work(configured(), "mnist", experiment.Trajectories(**keys))
        assert work.images == keys.get("images", 10_000)
        return work.steps

    assert steps(growth=0, causal=0) == 5
    assert steps(growth=0, causal=0) < steps() < steps(intervals=20) < steps(causal=1000)
    assert steps(images=100) > steps()


def test_what_is_measured_fits_in_what_is_asked_for():
    """62 ms were measured for an image in an adjoint step, tolerance 1e-4, on one core."""
    on_cpu = configured(compute={"device": "cpu"})
    work = job_sizes.evaluation_work(on_cpu, "mnist", 11)
    minutes = job_sizes.minutes(on_cpu, "mnist", "OON", work, threads=1, attempt=1)
    assert 10_000 * 11 * 0.062 / 60 < minutes < 5 * 10_000 * 11 * 0.062 / 60


@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cuda", 1), ("cpu", 0), ("mps", 0)])
def test_a_gpu_is_asked_for_where_one_is_wanted(device, gpus):
    assert job_sizes.gpus(configured(compute={"device": device})) == gpus


def test_work_of_the_stages():
    mnist = configured(compute={"batch_size": 64})
    assert job_sizes.training_work(mnist, "mnist", "RES") == job_sizes.Work(60_000, 25, 128)
    steps = job_sizes.attack_steps(mnist, "bim_direct")
    assert job_sizes.evaluation_work(mnist, "mnist", steps) == job_sizes.Work(10_000, 11, 64)
    few = {"mnist": {"source": "mnist", "subset": {"train": 70, "test": 30}}}
    mnist = configured(datasets=few)
    assert job_sizes.training_work(mnist, "mnist", "RES").images == 70
    assert job_sizes.evaluation_work(mnist, "mnist", 1).images == 30
    assert job_sizes.evaluation_work(mnist, "mnist", 1, images=7).images == 7
    assert job_sizes.evaluation_work(mnist, "mnist", 1, images=70).images == 30


def test_every_attack_has_its_steps():
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    mine = {"method": "pgd", "relative_step": 0.1, "iterations": 7, "restarts": 3}
    mnist = loading.load(raw | {"attacks": raw["attacks"] | {"mine": mine}})
    steps = {name: job_sizes.attack_steps(mnist, name) for name in mnist.attacks}
    assert steps["mine"] == 22
    assert steps["square"] == 5001
    assert steps["apgd_t"] == 901
    assert steps["transfer"] == steps[mnist.attacks["transfer"].by] + 1


def test_a_budget_of_memory_is_asked_for_as_a_whole():
    work = job_sizes.Work(1, 1, None)
    asked = [
        job_sizes.megabytes(
            configured(compute={"memory_mb": megabytes}), "mnist", "OON", work, attempt=1
        )
        for megabytes in (500, 4000)
    ]
    assert asked[1] - asked[0] == 3500


def test_reading_the_snakefile_does_not_import_torch():
    module = "node_robustness.scheduling.job_sizes"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    scripts = ROOT / "workflow/scripts"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=scripts)
