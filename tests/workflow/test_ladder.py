"""Attacks beside the paper's in a run: their cells, inputs, settings, and what a change reruns."""

import copy
import json
import shutil

import h5py
import numpy as np
import pytest
from harness import IMAGES, OON, plan, snakemake, tiny

from node_robustness.storage import sha256

ATTACKS = {
    "moved": {"method": "transfer", "by": "steps"},
    "steps": {"method": "pgd", "iterations": 3, "relative_step": 0.5, "loss": "margin"},
    "smallest": {"method": "bisection", "iterations": 3, "halvings": 4},
    "stand_in": {"method": "bim", "iterations": 3, "relative_step": 0.5, "gradient": "surrogate"}
    | {"surrogate": {"method": "rk4", "steps": 4}},
}
NAMES = ["moved", "smallest", "stand_in"]
CELLS = {name: f"{OON}/tau-1/{name}/linf/eps-0.3/attack.h5" for name in NAMES}


def configured(**changes):
    keys = {"attacks": NAMES, "epsilons": [0.1, 0.3], "trajectories": {"attacks": ["smallest"]}}
    changes = {f"experiments__tiny__{key}": value for key, value in keys.items()} | changes
    return tiny(**({"attacks": copy.deepcopy(ATTACKS)} | changes))


@pytest.fixture(scope="module")
def ladder(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("ladder") / "run")
    run = snakemake(folder, *CELLS.values(), config=configured())
    assert run.jobs == {"attack": 3}
    return folder


def test_cells_hold_what_they_say(ladder):
    found = {}
    for name, path in CELLS.items():
        with h5py.File(ladder / path) as file:
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
    weights = ladder / "results/tiny/digits/RES/seed-0/model.safetensors"
    assert settings["source_weights_sha256"] == sha256(weights)
    settings, sizes = found["smallest"]
    assert settings["halvings"] == 4
    assert (sizes < 0.3).all()
    assert found["stand_in"][0]["surrogate"] == {"method": "rk4", "steps": 4}


def test_the_cells_of_a_run(ladder):
    """OON at two tolerances and RES at none, two norms, two epsilons, less what is left out."""
    run = plan(ladder, config=configured())
    transfers, smallest, stand_in = 2 * 2 * 2, 3 * 2, 3 * 2 * 2
    assert run.jobs["attack"] == transfers + smallest + stand_in - len(CELLS)


def test_another_attack_on_the_source_runs_the_transfer_again(ladder):
    run = plan(ladder, *CELLS.values(), config=configured(attacks__steps__iterations=4))
    assert run.jobs == {"attack": 1}
    assert "by moved" in run.output


def test_other_weights_of_the_source_run_the_transfer_again(ladder):
    changed = configured(models__RES__training={"epochs": 2})
    run = plan(ladder, *CELLS.values(), config=changed)
    assert run.jobs == {"train": 1, "attack": 1}
