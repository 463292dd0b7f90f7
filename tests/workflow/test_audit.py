"""The files of the audit: is a model robust, or only its gradient hidden?"""

import json
import shutil

import h5py
import numpy as np
import pytest

from harness import IMAGES, OON, plan, snakemake, tiny

RES = "results/tiny/digits/RES/seed-0"
FILES = {
    "audit": f"{OON}/tau-1/audit.h5",
    "reevaluated": f"{OON}/tau-1/bim/linf/eps-0.3/reevaluated.h5",
    "randomised": f"{OON}/randomised/linf/eps-0.3/randomised.h5",
    "detection": f"{OON}/tau-1/detection/linf/eps-0.3/detection.h5",
}
WITHOUT_ODE = f"{RES}/tau-none/audit.h5"
SMALL = {
    "experiments__tiny__audit": {"images": 4, "iterations": 2},
    "experiments__tiny__randomisation": {"images": 4, "draws": 2, "iterations": 2},
    "experiments__tiny__detection": {"images": 6, "iterations": 2},
}

PAPER = {"method": "bim", "iterations": 2, "step": 0.1, "gradient": "adjoint"}
SWEPT = {
    "attacks__bim_adjoint": PAPER,
    "experiments__tiny__attacks": ["bim", "bim_adjoint"],
    "experiments__tiny__adjoint_sweep": {"images": 6, "backward_tolerances": [1, 1e-3]},
}
PAPERS_CELL = f"{OON}/tau-1/bim_adjoint/linf/eps-0.3/attack.h5"
COST = f"{OON}/tau-1/cost/linf/eps-0.3/cost.h5"
SWEEP = f"{OON}/tau-1/adjoint_sweep/linf/eps-0.3/adjoint_sweep.h5"


@pytest.fixture(scope="module")
def audited(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("audit") / "run")
    run = snakemake(folder, *FILES.values(), WITHOUT_ODE, config=tiny(**SMALL))
    assert run.jobs == {"audit": 2, "randomise": 1, "detect": 1}
    return folder


def read(path):
    """All datasets of a file, and its settings."""
    with h5py.File(path) as file:
        found = {}
        file.visititems(
            lambda name, node: found.update(
                {name: node[()]} if isinstance(node, h5py.Dataset) else {}
            )
        )
        return found, json.loads(file.attrs["settings"])


def test_the_same_images_in_every_file(audited):
    with h5py.File(audited / "results/tiny/digits/data.h5") as data:
        index = data["indices/test"][:IMAGES]
        labels = data["test/labels"][:][index]
    for path, count in zip([*FILES.values(), WITHOUT_ODE], (4, IMAGES, 4, 6, 4), strict=True):
        found, settings = read(audited / path)
        np.testing.assert_array_equal(found["index"], index[:count])
        np.testing.assert_array_equal(found["labels"], labels[:count])
        assert settings["dataset"] == "digits"
        assert len(settings["weights_sha256"]) == 64


def test_audit(audited):
    found, settings = read(audited / FILES["audit"])
    sources = [name.decode() for name in found["sources"]]
    assert sources == ["direct", "adjoint", "tight", "rk4"]
    assert len(found["directions"]) == 6
    assert found["cosine"].shape == (4, 4, 4)
    assert found["derivative"].shape == (4, 4, 6)
    direct = found["derivative"][:, 0]
    error = np.abs(found["finite_difference_frozen"] - direct).max(1)
    assert np.median(error / np.abs(direct).max(1)) < 1e-4
    assert settings["epsilons"] == {"linf": 0.3, "l2_rms": 0.3}
    assert {norm.decode() for norm in found["norms"]} == {"linf", "l2_rms"}
    assert found["linf/paper/loss"].shape == (4, 3)
    assert found["linf/apgd/loss"].shape == (4, 26)
    correct = found["correct"]
    np.testing.assert_array_equal(np.isnan(found["linf/apgd/loss"][:, 0]), ~correct)
    assert not found["success/apgd_linf"][~correct].any()
    assert (found["perturbation_linf/apgd_linf"] <= 0.3 + 1e-6).all()
    np.testing.assert_array_equal(found["linf/held/adversarial"], found["success/apgd_linf"])
    without, settings = read(audited / WITHOUT_ODE)
    assert settings["tolerance"] is None
    assert without["cosine"].shape == (4, 1, 1)
    assert "linf/held/adversarial" not in without


def test_reevaluated(audited):
    found, _ = read(audited / FILES["reevaluated"])
    np.testing.assert_array_equal(found["tolerances"], [1e-5, 1e-3, 1])
    attack, _ = read(audited / f"{OON}/tau-1/bim/linf/eps-0.3/attack.h5")
    np.testing.assert_array_equal(
        found["adversarial_predictions"][:, 2], attack["adversarial_predictions"]
    )
    np.testing.assert_array_equal(found["clean_predictions"][:, 2], attack["clean_predictions"])
    np.testing.assert_array_equal(found["success"], attack["success"])
    assert found["adversarial_logits"].shape == (IMAGES, 3, 10)


def test_defences(audited):
    found, settings = read(audited / FILES["randomised"])
    assert {f"wrong/{name}" for name in ("clean", "fixed", "fresh", "eot")} < set(found)
    assert (settings["low"], settings["high"]) == (1e-3, 1)
    found, settings = read(audited / FILES["detection"])
    assert settings["tolerances"] == [1e-3, 1]
    assert [*found["attackers"].astype(str)] == ["plain", "confident", "adaptive"]
    assert found["success"].shape == (6, 3)
    assert not found["success"][~found["correct"]].any()
    assert (found["perturbation_linf"] <= 0.3 * (1 + 1e-6)).all()


@pytest.fixture(scope="module")
def swept(finished, tmp_path_factory):
    folder = shutil.copytree(finished, tmp_path_factory.mktemp("sweep") / "run")
    run = snakemake(folder, SWEEP, PAPERS_CELL, config=tiny(**SWEPT))
    assert run.jobs == {"attack": 1, "sweep": 1}
    return folder


def test_the_adjoint_at_other_tolerances(swept):
    """At the forward tolerance the sweep is the paper's attack."""
    found, settings = read(swept / SWEEP)
    attack, made_with = read(swept / PAPERS_CELL)
    np.testing.assert_array_equal(found["backward_tolerances"], [np.nan, 1e-3, 1])
    for name in ("success", "perturbation_linf", "perturbation_l2"):
        np.testing.assert_array_equal(found[name][:, 2], attack[name][:6])
    assert (settings["attack"], settings["step"]) == ("bim_adjoint", made_with["step"])
    assert settings["weights_sha256"] == made_with["weights_sha256"]
    other = tiny(**SWEPT | {"attacks__bim_adjoint": PAPER | {"step": 0.2}})
    assert plan(swept, SWEEP, config=other).jobs == {"sweep": 1}


def test_the_cost(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    changes = {"experiments__tiny__cost": {"images": 6, "queries": 3, "iterations": 1}}
    run = snakemake(folder, COST, config=tiny(**changes))
    assert run.jobs == {"attack_cost": 1}
    found, settings = read(folder / COST)
    clean, _ = read(folder / f"{OON}/tau-1/clean.h5")
    np.testing.assert_array_equal(found["nfe_clean"], clean["nfe"][:6])
    assert (found["nfe_attacked"] >= found["nfe_clean"]).all()
    assert (settings["queries"], settings["step"], settings["tolerance"]) == (3, 0.075, 1)
    assert len(settings["weights_sha256"]) == 64
    changes = {"experiments__tiny__cost": {"images": 6, "queries": 4, "iterations": 1}}
    assert plan(folder, COST, config=tiny(**changes)).jobs == {"attack_cost": 1}


def test_a_change_of_one_section_runs_its_files_again(audited):
    changed = tiny(**(SMALL | {"experiments__tiny__detection": {"images": 5, "iterations": 2}}))
    run = plan(audited, *FILES.values(), WITHOUT_ODE, config=changed)
    assert run.jobs == {"detect": 1}
    other = tiny(**SMALL, compute__batch_size=7)
    assert plan(audited, *FILES.values(), WITHOUT_ODE, config=other).jobs == {}
