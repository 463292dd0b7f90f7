"""Attacks in addition to the paper's: their cells, inputs, settings, and what a change reruns."""

import copy
import json
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from harness import IMAGES, OON, plan, snakemake, tiny
from node_robustness.files.atomic import sha256
from node_robustness.verdict.protocols import protocol_table, read_attacked

ATTACKS = {
    "moved": {"method": "transfer", "by": "steps"},
    "back": {"method": "transfer", "by": "steps", "source": "OON"},
    "steps": {"method": "pgd", "iterations": 3, "relative_step": 0.5, "loss": "margin"},
    "smallest": {"method": "bisection", "iterations": 3, "halvings": 4},
    "stand_in": {"method": "bim", "iterations": 3, "relative_step": 0.5, "gradient": "surrogate"}
    | {"surrogate": {"method": "rk4", "steps": 4}},
    "averaged": {"method": "eot_pgd", "iterations": 2, "relative_step": 0.5, "draws": 2},
}
RES = "results/tiny/digits/RES/seed-0"
NAMES = ["moved", "back", "smallest", "stand_in", "averaged"]
CELLS = {name: f"{OON}/tau-1/{name}/linf/eps-0.3/attack.h5" for name in NAMES if name != "back"}
CELLS["back"] = f"{RES}/tau-none/back/linf/eps-0.3/attack.h5"


def configured(**changes):
    keys = {"attacks": NAMES, "epsilons": [0.1, 0.3], "trajectories": {"attacks": ["smallest"]}}
    changes = {f"experiments__tiny__{key}": value for key, value in keys.items()} | changes
    return tiny(**({"attacks": copy.deepcopy(ATTACKS)} | changes))


@pytest.fixture(scope="module")
def suite(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("suite") / "run")
    run = snakemake(folder, *CELLS.values(), config=configured())
    assert run.jobs == {"attack": len(CELLS)}
    return folder


def test_cells_hold_what_they_say(suite):
    found = {}
    for name, path in CELLS.items():
        with h5py.File(suite / path) as file:
            settings = json.loads(file.attrs["settings"])
            success, attacked = file["success"][:], file["attacked"][:]
            wrong = file["adversarial_predictions"][:] != file["labels"][:]
            sizes = file["perturbation_linf"][:]
        assert len(success) == IMAGES
        np.testing.assert_array_equal(success, attacked & wrong)
        assert sizes.max() <= 0.3 * (1 + 1e-6)
        found[name] = settings, sizes[success]
    settings, _ = found["moved"]
    assert settings["source"] == {"model": "RES", "seed": 0, "tolerance": None}
    assert settings["by"]["early_stop"] is False
    weights = suite / "results/tiny/digits/RES/seed-0/model.safetensors"
    assert settings["source_weights_sha256"] == sha256(weights)
    settings, _ = found["back"]
    assert settings["source"] == {"model": "OON", "seed": 0, "tolerance": 1e-3}
    assert settings["source_weights_sha256"] == sha256(suite / OON / "model.safetensors")
    settings, sizes = found["smallest"]
    assert settings["halvings"] == 4
    assert (sizes < 0.3).all()
    assert found["stand_in"][0]["surrogate"] == {"method": "rk4", "steps": 4}
    drawn = {"distribution": "log_uniform", "low": 1e-3, "high": 1}
    assert found["averaged"][0]["drawn"] == drawn


def test_the_cells_of_a_run(suite):
    """OON at two tolerances and RES at none, two norms, two epsilons, less what is left out."""
    run = plan(suite, config=configured())
    transfers, smallest, others = (2 + 1) * 2 * 2, 3 * 2, 2 * 3 * 2 * 2
    assert run.jobs["attack"] == transfers + smallest + others - len(CELLS)


def test_every_seed_is_attacked_from_the_source_of_its_own_seed(suite):
    cell = CELLS["moved"].replace("seed-0", "seed-1")
    run = plan(suite, cell, config=configured(experiments__tiny__seeds=[0, 1]))
    assert run.jobs == {"train": 2, "attack": 1}


def test_another_distribution_runs_the_attack_that_draws_again(suite):
    drawn = {"randomisation": {"high": 2, "images": 8}}
    changed = {f"experiments__tiny__{key}": value for key, value in drawn.items()}
    assert plan(suite, *CELLS.values(), config=configured(**changed)).jobs == {"attack": 1}


def test_another_attack_on_the_source_runs_the_transfer_again(suite):
    run = plan(suite, *CELLS.values(), config=configured(attacks__steps__iterations=4))
    assert run.jobs == {"attack": 2}
    assert "by moved" in run.output
    assert "by back" in run.output


def test_other_weights_of_the_source_run_the_transfer_again(suite):
    changed = configured(models__RES__training={"epochs": 2})
    run = plan(suite, CELLS["moved"], CELLS["smallest"], config=changed)
    assert run.jobs == {"train": 1, "attack": 1}


SPARED = {
    "steps": ATTACKS["steps"],
    "squares": {"method": "square", "queries": 30},
    "least": {"method": "fab", "iterations": 4, "targets": 2},
}
EXPENSIVE = {
    "squares": ["eps-0.1", "eps-0.3"],
    "least": ["eps-0.3"],
}


def expensive_cells():
    return [
        f"{OON}/tau-1/{attack}/linf/{epsilon}/attack.h5"
        for attack, epsilons in EXPENSIVE.items()
        for epsilon in epsilons
    ]


def with_expensive(skip=True, **changes):
    keys = {"attacks": list(SPARED), "epsilons": [0.1, 0.3], "skip_broken": skip}
    changed = {f"experiments__tiny__{key}": value for key, value in keys.items()}
    return tiny(**({"attacks": copy.deepcopy(SPARED)} | changed | changes))


@pytest.fixture(scope="module")
def spared(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("spared") / "run")
    run = snakemake(folder, *expensive_cells(), config=with_expensive())
    # Three expensive cells, and the cheap one at both epsilons, which spares them work.
    assert run.jobs == {"attack": 5}
    return folder


LEFT_OUT_BY = {
    ("squares", 0.1): {"steps": 0.1, "least": 0.3},
    ("squares", 0.3): {"steps": 0.3, "least": 0.3},
    ("least", 0.3): {"steps": 0.1},
}


@pytest.mark.parametrize(("attack", "epsilon"), LEFT_OUT_BY)
def test_expensive_attacks_leave_out_what_attacks_before_them_broke(spared, attack, epsilon):
    within = 0.1 if attack == "least" else epsilon
    broken = False
    for other, at in LEFT_OUT_BY[attack, epsilon].items():
        with h5py.File(spared / f"{OON}/tau-1/{other}/linf/eps-{at:g}/attack.h5") as file:
            sizes = file["perturbation_linf"][:]
            broken |= file["success"][:] & (sizes <= within * (1 + 1e-5))
    with h5py.File(spared / f"{OON}/tau-1/steps/linf/eps-0.1/attack.h5") as file:
        right = file["attacked"][:]
        assert not file["skipped"][:].any()
    assert 0 < broken.sum() < right.sum()
    with h5py.File(spared / f"{OON}/tau-1/{attack}/linf/eps-{epsilon:g}/attack.h5") as file:
        np.testing.assert_array_equal(file["skipped"][:], broken)
        np.testing.assert_array_equal(file["attacked"][:], right & ~broken)
        assert not file["success"][:][broken].any()
        assert not file["perturbation_linf"][:][broken].any()
        skips = json.loads(file.attrs["settings"])["skips"]
    assert skips == {"broken_by": LEFT_OUT_BY[attack, epsilon], "within": within}


def test_the_strongest_protocol_is_the_same_where_nothing_is_left_out(spared, tmp_path):
    whole = shutil.copytree(spared, tmp_path / "run")
    run = snakemake(whole, *expensive_cells(), config=with_expensive(skip=False))
    assert run.jobs == {"attack": 3}
    tables = []
    for folder in (spared, whole):
        cheap = [f"{OON}/tau-1/steps/linf/eps-{epsilon}/attack.h5" for epsilon in (0.1, 0.3)]
        paths = [*expensive_cells(), *cheap]
        (group,) = read_attacked(folder / path for path in paths)
        assert any(one.skipped.any() for one in group.attempts) == (folder == spared)
        tables.append(protocol_table([group], None))
    # Attacks that left images out take no part in the estimate of what is hidden.
    assert tables[0].pop("hidden").isna().all()
    assert tables[1].pop("hidden").notna().all()
    pd.testing.assert_frame_equal(*tables)
    # So that the equality says something: the expensive attacks break more than the cheap one.
    assert (tables[0].strongest < tables[0].correct / tables[0].n).all()


def test_another_cheap_attack_runs_the_expensive_ones_again(spared):
    assert plan(spared, *expensive_cells(), config=with_expensive()).jobs == {}
    changed = with_expensive(attacks__steps__iterations=4)
    assert plan(spared, *expensive_cells(), config=changed).jobs == {"attack": 5}
    others = with_expensive(experiments__tiny__attacks=[*SPARED, "fgsm"])
    assert plan(spared, *expensive_cells(), config=others).jobs == {"attack": 5}
