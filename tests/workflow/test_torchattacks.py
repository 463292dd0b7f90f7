"""Attacks of torchattacks in a run, next to our own."""

import json
import shutil

import h5py
import numpy as np
import pytest

from harness import OON, snakemake, tiny

STEPS = {"relative_step": 0.25}
ATTACKS = {
    "theirs_fgsm": {"method": "torchattacks", "name": "FGSM"},
    "theirs_bim": STEPS | {"method": "torchattacks", "name": "BIM", "parameters": {"steps": 4}},
    "theirs_pgd": STEPS
    | {"method": "torchattacks", "name": "PGD"}
    | {"parameters": {"steps": 4, "random_start": False}},
    "theirs_square": {"method": "torchattacks", "name": "Square", "parameters": {"n_queries": 5}},
    "ours": STEPS | {"method": "bim", "iterations": 4},
}
NAMES = ["fgsm", *ATTACKS]


def cell(name):
    return f"{OON}/tau-1/{name}/linf/eps-0.3/attack.h5"


def configured(**changes):
    return tiny(experiments__tiny__attacks=NAMES, attacks=ATTACKS, **changes)


@pytest.fixture(scope="module")
def found(finished, tmp_path_factory):
    """The settings and the data of every cell."""
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("torchattacks") / "run")
    run = snakemake(folder, *map(cell, NAMES), config=configured())
    assert run.jobs == {"attack": len(NAMES)}
    return {name: read(folder / cell(name)) for name in NAMES}


def read(path):
    with h5py.File(path) as file:
        data = {name: node[()] for name, node in file.items()}
        return json.loads(file.attrs["settings"]) | data


def test_the_settings_are_complete(found):
    theirs = found["theirs_pgd"]
    assert theirs["name"] == "PGD"
    assert theirs["parameters"] == {"alpha": 2 / 255, "steps": 4, "random_start": False}
    assert theirs["relative_step"] == 0.25
    assert theirs["gradient"] == "direct"
    assert found["theirs_square"]["gradient"] == "none"


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "ours"])
def test_success_is_what_the_model_says_within_the_ball(found, name):
    cell, ours = found[name], found["fgsm"]
    np.testing.assert_array_equal(cell["clean_predictions"], ours["clean_predictions"])
    np.testing.assert_array_equal(cell["attacked"], cell["clean_predictions"] == cell["labels"])
    wrong = cell["adversarial_predictions"] != cell["labels"]
    np.testing.assert_array_equal(cell["success"], cell["attacked"] & wrong)
    assert 0 < cell["attacked"].sum() < len(wrong)
    assert cell["perturbation_linf"].max() <= 0.3 * (1 + 1e-6)
    assert not cell["iterations"][~cell["attacked"]].any()
    assert (cell["iterations"][cell["attacked"]] > 0).all()


def test_one_step_of_the_library_is_our_fgsm(found):
    """The two differ by rounding alone."""
    ours, theirs = found["fgsm"], found["theirs_fgsm"]
    assert ours["success"].any()
    np.testing.assert_array_equal(theirs["success"], ours["success"])
    np.testing.assert_allclose(theirs["adversarials"], ours["adversarials"], atol=1e-6)


def test_the_librarys_steps_from_the_image_are_our_bim(found):
    """We stop at the first adversarial iterate, they take all steps: success there is one here."""
    ours = found["ours"]
    for name in ("theirs_bim", "theirs_pgd"):
        theirs = found[name]
        assert theirs["success"].any()
        assert not (theirs["success"] & ~ours["success"]).any()
        stands = ours["attacked"] & ~ours["success"]
        np.testing.assert_allclose(
            theirs["adversarials"][stands], ours["adversarials"][stands], atol=1e-4
        )


def test_shards_change_nothing(found, finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    names = ["theirs_pgd", "theirs_square"]
    config = configured(compute__shard_size=16, compute__batch_size=5)
    run = snakemake(folder, *map(cell, names), config=config)
    assert run.jobs == {"attack_shard": 6, "merge": 2}
    for name in names:
        again = read(folder / cell(name))
        for key in ("success", "adversarials", "iterations", "adversarial_predictions"):
            np.testing.assert_array_equal(again[key], found[name][key])
