"""What jobs ask for: more for more work, and never too little to start."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.config import config, loading
from node_robustness.grid.shards import Shard
from node_robustness.scheduling import job_sizes, work
from node_robustness.trajectories.layout import SHARED
from node_robustness.trajectories.shares import QUADRATURE

ROOT = Path(__file__).parents[3]
AT = {"experiment": "mnist_paper", "dataset": "mnist", "model": "RES", "attack": "bim_direct"}


def configured(**changes: Any) -> config.Config:
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    return loading.load(raw | changes)


def of_section(section: str, **keys: Any) -> config.Config:
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())["experiments"]["mnist_paper"]
    return configured(experiments={"mnist_paper": raw | {section: keys}})


def asked(size: work.Work, model: str = "OON", attempt: int = 1) -> tuple[int, int]:
    mnist = configured()
    return (
        job_sizes.minutes(mnist, "mnist", model, size, threads=1, attempt=attempt),
        job_sizes.megabytes(mnist, "mnist", model, size, attempt=attempt),
    )


works = st.builds(
    work.Work,
    images=st.integers(0, 100_000),
    steps=st.integers(0, 1000),
    batch_size=st.none() | st.integers(1, 1000),
)


@given(works, st.integers(1, 5))
def test_enough_to_start_and_twice_as_much_at_each_attempt(size, attempt):
    first, later = asked(size), asked(size, attempt=attempt)
    assert first >= (10, 2000)
    assert later == tuple(value * 2 ** (attempt - 1) for value in first)


@given(works, st.integers(1, 10_000), st.integers(1, 100))
def test_more_work_asks_for_no_less(size, images, steps):
    more = work.Work(size.images + images, size.steps + steps, size.batch_size)
    for less, greater in zip(asked(size), asked(more), strict=True):
        assert less <= greater


def test_following_more_asks_for_more():
    def steps(**keys: Any) -> int:
        size = work.trajectory(of_section("trajectories", **keys), AT)
        assert size.images == keys.get("images", 10_000)
        return size.steps

    assert steps(growth=0, causal=0, strengthen=7) == 5 + 7 + len(SHARED) * QUADRATURE
    assert steps(growth=0, causal=0) < steps() < steps(intervals=20) < steps(causal=1000)
    assert steps(images=100) > steps()


def test_what_is_measured_fits_in_what_is_asked_for():
    """62 ms were measured for an image in an adjoint step, tolerance 1e-4, on one core."""
    on_cpu = configured(compute={"device": "cpu"})
    size = work.passes(on_cpu, AT, 11)
    minutes = job_sizes.minutes(on_cpu, "mnist", "OON", size, threads=1, attempt=1)
    assert 10_000 * 11 * 0.062 / 60 < minutes < 5 * 10_000 * 11 * 0.062 / 60


MEASURED = {
    "attack_shard": work.shard,
    "audit": work.audit,
    "detect": work.detection,
    "evaluate": work.evaluation,
    "probe": work.evaluation,
    "randomise": work.randomisation,
    "train": work.training,
    "trajectory": work.trajectory,
}


@pytest.mark.parametrize("rule", MEASURED)
def test_memory_that_was_measured_fits_in_what_is_asked_for(rule):
    """On a CPU, by the jobs of the published MNIST run, with shards of 300 images."""
    manifest = json.loads((ROOT / "docs/results/mnist/manifest.json").read_text())
    peaks = {stage["rule"]: stage["max_rss_mb"] for stage in manifest["stages"]}
    on_cpu = configured(
        compute={"device": "cpu"},
        datasets={"mnist": {"source": "mnist", "subset": {"test": 300}}},
    )
    size = MEASURED[rule](on_cpu, AT | {"shard": Shard(0, 300).name})
    asked = job_sizes.megabytes(on_cpu, "mnist", "OON", size, attempt=1)
    assert peaks[rule] < asked < 8 * peaks[rule]


@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cuda", 1), ("cpu", 0), ("mps", 0)])
def test_a_gpu_is_asked_for_where_one_is_wanted(device, gpus):
    assert job_sizes.gpus(configured(compute={"device": device})) == gpus


def test_work_of_the_stages():
    mnist = configured(compute={"batch_size": 64})
    assert work.training(mnist, AT) == work.Work(60_000, 25, 128)
    assert work.attack(mnist, AT) == work.Work(10_000, 11, 64)
    few = {"mnist": {"source": "mnist", "subset": {"train": 70, "test": 30}}}
    mnist = configured(datasets=few)
    assert work.training(mnist, AT).images == 70
    assert work.evaluation(mnist, AT) == work.Work(30, 1, None)
    assert work.passes(mnist, AT, 1, images=7).images == 7
    assert work.passes(mnist, AT, 1, images=70).images == 30


def test_a_shard_has_the_steps_of_its_attack_and_its_own_images():
    mnist = configured()
    whole, part = work.attack(mnist, AT), work.shard(mnist, AT | {"shard": Shard(500, 700).name})
    assert part == replace(whole, images=200)


@pytest.mark.parametrize(
    ("section", "stage", "steps"),
    [
        ("cost", work.cost, lambda s, _: s.queries + 2 * s.iterations + 2),
        (
            "audit",
            work.audit,
            # In two norms.
            lambda s, _: (
                2 * (7 * s.iterations + s.apgd_iterations)
                + 8 * s.iterations
                + 10 * (s.directions + 4)
            ),
        ),
        (
            "randomisation",
            work.randomisation,
            lambda s, _: s.iterations * (s.draws + 2) + 4 * s.evaluation_draws,
        ),
        (
            "detection",
            work.detection,
            lambda s, taus: 2 * s.iterations + s.searches * s.search_iterations * taus,
        ),
    ],
)
def test_what_the_sections_measure(section, stage, steps):
    mnist = of_section(section, images=17)
    chosen = mnist.experiments["mnist_paper"]
    expected = steps(getattr(chosen, section), len(chosen.tolerances))
    batches = 3 if section == "audit" else 1
    assert stage(mnist, AT) == work.Work(17, expected, mnist.compute.batch_size, batches)


def test_a_sweep_attacks_once_with_each_gradient():
    sweep = {"images": 17, "backward_tolerances": [1e-5, 1, 10]}
    mnist = of_section("adjoint_sweep", **sweep)
    steps = work.attack(mnist, AT | {"attack": "bim_adjoint"}).steps + 1
    assert work.adjoint_sweep(mnist, AT) == work.Work(17, 4 * steps, mnist.compute.batch_size)


def test_every_tolerance_is_evaluated_again():
    mnist = configured()
    taus = len(mnist.experiments["mnist_paper"].tolerances)
    assert work.reevaluation(mnist, AT).steps == 2 * (taus + 1)


def test_every_attack_has_its_steps():
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    mine = {"method": "pgd", "relative_step": 0.1, "iterations": 7, "restarts": 3}
    mnist = loading.load(raw | {"attacks": raw["attacks"] | {"mine": mine}})
    steps = {name: work.attack(mnist, AT | {"attack": name}).steps for name in mnist.attacks}
    assert steps["mine"] == 22
    assert steps["square"] == 5001
    assert steps["apgd_t"] == 901
    assert steps["transfer"] == steps[mnist.attacks["transfer"].by] + 1


def test_a_budget_of_memory_is_asked_for_as_a_whole():
    size = work.Work(1, 1, None)
    asked = [
        job_sizes.megabytes(
            configured(compute={"memory_mb": megabytes}), "mnist", "OON", size, attempt=1
        )
        for megabytes in (500, 4000)
    ]
    assert asked[1] - asked[0] == 3500


def test_own_models_ask_for_as_much_as_models_of_64_filters(tmp_path):
    module = tmp_path / "net.py"
    module.write_text("import torchdiffeq\ndef build(): ...")
    models = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())["models"]
    own = {name: {"module": str(module), "ode": ode} for name, ode in (("A", None), ("N", "none"))}
    mnist = configured(models=models | own)
    checks = work.check(mnist, AT)
    assert checks.images == 500
    for name, like in (("A", "OON"), ("N", "RES")):
        for size in (checks, work.attack(mnist, AT), work.training(mnist, AT | {"model": name})):
            theirs, ours = (
                (
                    job_sizes.minutes(mnist, "mnist", model, size, threads=1, attempt=1),
                    job_sizes.megabytes(mnist, "mnist", model, size, attempt=1),
                )
                for model in (name, like)
            )
            assert theirs == ours


def test_reading_the_snakefile_does_not_import_torch():
    module = "node_robustness.scheduling.job_sizes"
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    scripts = ROOT / "workflow/scripts"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=scripts)
