"""Rates are within a factor of 1.5 of what recorded runs took."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

from node_robustness.config.loading import load
from node_robustness.grid import cells
from node_robustness.scheduling import rates
from node_robustness.scheduling.speed import Speed
from node_robustness.scheduling.steps import job, jobs

ROOT = Path(__file__).parents[3]

# Seconds in which all jobs of a stage computed together, two at a time on two cores of an AMD EPYC:
# of the default run, and of 64 filters on MNIST. Stages of less than 3 seconds are left out.
DIGITS = {
    "train": 25.5,
    "attack": 202.3,
    "audit": 15.9,
    "trajectory": 14.7,
    "detect": 5.5,
    "randomise": 3.4,
}
MNIST = {"train": 106.7, "attack": 507.6}


def kept(name="estimated"):
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text())


def config_of(name):
    return yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())


REFERENCE = Speed()


def expected(config, experiment, speed=REFERENCE):
    """Seconds by stage."""
    seconds = Counter()
    for found in jobs(config, experiment):
        seconds[found.rule] += rates.computing(config, found, speed)
    return seconds


def assert_within(factor, found, recorded):
    for stage, seconds in recorded.items():
        assert seconds / factor <= found[stage] <= factor * seconds, (stage, found[stage], seconds)


@pytest.mark.parametrize(
    ("name", "experiment", "seconds"),
    [("recorded_digits", "digits", DIGITS), ("recorded_mnist", "mnist", MNIST)],
)
def test_of_a_run(name, experiment, seconds):
    found = expected(load(kept(name)), experiment)
    assert_within(1.5, found, seconds)
    every = sum(found[stage] for stage in seconds)
    assert_within(1.25, {"all": every}, {"all": sum(seconds.values())})


def test_of_jobs_that_collect():
    """After their start, of 124 and of 1,008 cells."""
    for stage, few, many in [("tables", 2.6, 19.5), ("report", 4, 13.9)]:
        for count, seconds in ((124, few), (1008, many)):
            found = rates.collecting(stage, count, REFERENCE)
            assert_within(1.5, {stage: found}, {stage: seconds})
    assert rates.collecting("claim", 124, REFERENCE) == 0


def test_another_machine_takes_another_time():
    config = load(kept())
    once = sum(expected(config, "digits").values())
    assert sum(expected(config, "digits", Speed(2, 2)).values()) == pytest.approx(once / 2)
    assert once / 2 < sum(expected(config, "digits", Speed(1, 2)).values()) < once
    assert rates.start(Speed(1, 2), warm=True) < rates.start(REFERENCE, warm=True)
    assert rates.start(REFERENCE, warm=True) < rates.start(REFERENCE, warm=False)


def seconds_of(config, stage="attack", threads=1, **at):
    every = {"experiment": "digits", "dataset": "digits", "model": "OON", "seed": 0}
    every |= {"tolerance": 0.1, "attack": "bim_direct", "norm": "linf", "epsilon": 0.1} | at
    return rates.computing(config, job(config, stage, every), REFERENCE, threads)


def changed(**models):
    raw = kept()
    for name, change in models.items():
        raw["models"].setdefault(name, {}).update(change)
    raw["experiments"]["digits"]["models"] = [*raw["models"]]
    return load(raw)


def test_what_makes_a_job_long():
    config = changed()
    attack = seconds_of(config)
    assert seconds_of(config, tolerance=1e-4) > attack
    assert seconds_of(config, tolerance=10) < attack
    assert seconds_of(config, attack="bim_adjoint") > 2 * attack
    assert seconds_of(config, attack="bim_surrogate") > attack
    assert seconds_of(config, attack="apgd_ce") > 5 * attack
    assert seconds_of(config, attack="square_short") > 20 * attack
    assert seconds_of(config, stage="attack_shard", shard="0-10") < attack
    assert seconds_of(changed(OON={"filters": 64})) > 1.2 * attack
    assert seconds_of(config, threads=2) < attack
    fixed = {"solver": {"method": "rk4", "steps": 100}}
    assert seconds_of(changed(OON=fixed), tolerance=None) > 5 * attack
    one_by_one = {"solver": {"backend": "torchdiffeq"}}
    assert seconds_of(changed(OON=one_by_one)) > 20 * attack


def test_training_by_torchdiffeq_takes_longer(tmp_path):
    raw = kept()
    times, without = [], set()
    for solver, gradient in [
        ("batched", "direct"),
        ("torchdiffeq", "direct"),
        ("torchdiffeq", "adjoint"),
    ]:
        raw["training"] |= {"solver": solver, "gradient": gradient}
        config = load(raw)
        times.append(seconds_of(config, stage="train"))
        without.add(seconds_of(config, stage="train", model="RES"))
    # Without an ODE there is nothing to solve.
    assert len(without) == 1
    assert times[0] < times[1] < times[2]


def test_an_own_model_counts_like_a_built_in_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("import torchdiffeq\n\ndef build():\n    pass\n")
    raw = kept()
    raw["models"]["theirs"] = {"module": "net.py"}
    raw["models"]["plain"] = {"module": "net.py", "ode": "none"}
    raw["experiments"]["digits"]["models"] += ["theirs", "plain"]
    config = load(raw)
    for stage in ("train", "evaluate", "check_model", "audit"):
        assert seconds_of(config, stage, model="theirs", tolerance=None) > 0
        assert seconds_of(config, stage, model="plain", tolerance=None) > 0


@pytest.mark.parametrize(
    "name",
    [
        "config",
        "mnist",
        "mnist-cpu",
        "mnist-long",
        "cifar10",
        "cifar10-cpu",
        "standard",
        "defences",
    ],
)
def test_every_job_of_every_configuration_has_a_time(name):
    config = load(config_of(name))
    for experiment in config.experiments:
        for found in jobs(config, experiment):
            assert rates.computing(config, found, REFERENCE) > 0, found
        assert len(list(jobs(config, experiment))) > len(list(cells.cells(config, experiment)))
