"""The files of a cell, read back with h5py alone."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from node_robustness.attacks import files as attack_files
from node_robustness.attacks.engine import AttackResult
from node_robustness.attacks.files import (
    Adversarials,
    read_adversarials,
    read_attacked,
    write_attack,
)
from node_robustness.audits.attack_checks import AttackChecks, Neighbours
from node_robustness.audits.attack_paths import AttackPaths
from node_robustness.audits.detection import Detected, write_detection
from node_robustness.audits.files import write_audit
from node_robustness.audits.gradients import GradientAudit
from node_robustness.audits.network import Held, NetworkAudit, NormAudit
from node_robustness.audits.randomisation import Randomised, write_randomised
from node_robustness.audits.tolerance_matrix import Reevaluated, write_reevaluated
from node_robustness.errors import UserError
from node_robustness.files import records
from node_robustness.files.hdf5 import schema_version
from node_robustness.files.records import not_measured
from node_robustness.models import evaluation as evaluation_files
from node_robustness.models.evaluation import Evaluation, write_clean

SETTINGS = {"model": "OON", "seed": 1, "tolerance": None, "epsilon": 0.1}
WITH = {"seconds": 1.5, "device": "a processor"}
INDEX, LABELS = np.array([7, 2, 9]), np.array([0, 1, 2])
IMAGES = torch.linspace(0, 1, 3 * 2 * 4 * 4).view(3, 2, 4, 4)


def evaluation(with_ode):
    cost = torch.tensor([14, 20, 26], dtype=torch.int32) if with_ode else None
    status = torch.tensor([0, 1, 0]) if with_ode else None
    logits = torch.arange(12, dtype=torch.float32).view(3, 4)
    return Evaluation(logits, torch.tensor([3, -1, 3]), cost, status)


def attacked(success=(False, True, True), with_ode=True, skipped=False):
    adversarials = IMAGES.clone()
    adversarials[1, 0, 0, 0] += 0.3
    adversarials[1, 0, 0, 1] -= 0.4
    adversarials[2] += 0.25
    cost = torch.tensor([14, 20, 26], dtype=torch.int32)
    return AttackResult(
        clean_predictions=torch.tensor([3, 1, 2]),
        attacked=torch.tensor([False, True, True]),
        skipped=torch.tensor([skipped, False, False]),
        success=torch.tensor(success),
        adversarials=adversarials,
        adversarial_predictions=torch.tensor([3, 0, -1]),
        iterations=torch.tensor([0, 4, 10]),
        nfe_clean=cost if with_ode else None,
        nfe_adversarial=cost + 6 if with_ode else None,
    )


def read(path, kind):
    """All datasets by name, after a look at what every file has."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset):
            assert item.attrs["units"]
            assert item.attrs["description"]
            found[name] = item[:]

    with h5py.File(path) as file:
        assert file.attrs["kind"] == kind
        assert file.attrs["schema_version"] == schema_version(kind)
        assert file.attrs["software"].startswith("node-robustness ")
        assert json.loads(file.attrs["settings"]) == SETTINGS
        assert {name: file.attrs[name] for name in WITH} == WITH
        file.visititems(take)
    return found


def check(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("with_ode", [True, False])
def test_clean(tmp_path, with_ode):
    path = tmp_path / "a" / "clean.h5"
    write_clean(path, SETTINGS, INDEX, LABELS, evaluation(with_ode), **WITH)
    found = read(path, "clean")
    expected = {
        "index": INDEX,
        "labels": LABELS,
        "predictions": [3, -1, 3],
        "logits": np.arange(12).reshape(3, 4),
    }
    if with_ode:
        expected |= {"nfe": [14, 20, 26], "status": [0, 1, 0]}
    check(found, expected)
    types = {name: values.dtype.name for name, values in found.items()}
    assert types.pop("logits") == "float32"
    assert types.pop("nfe", "int32") == "int32"
    assert set(types.values()) == {"int64"}


@pytest.mark.parametrize("with_ode", [True, False])
def test_attack(tmp_path, with_ode):
    path = tmp_path / "attack.h5"
    result = attacked(with_ode=with_ode)
    write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, result, **WITH)
    found = read(path, "attack")
    sizes = {name: found.pop(name) for name in ("perturbation_linf", "perturbation_l2")}
    np.testing.assert_allclose(sizes["perturbation_linf"], [0, 0.4, 0.25], rtol=1e-6)
    np.testing.assert_allclose(sizes["perturbation_l2"], [0, 0.5, 0.25 * 32**0.5], rtol=1e-6)
    expected = {
        "index": INDEX,
        "labels": LABELS,
        "clean_predictions": [3, 1, 2],
        "adversarial_predictions": [3, 0, -1],
        "attacked": [False, True, True],
        "skipped": [False, False, False],
        "success": [False, True, True],
        "iterations": [0, 4, 10],
        "adversarials": result.adversarials,
    }
    if with_ode:
        expected |= {"nfe_clean": [14, 20, 26], "nfe_adversarial": [20, 26, 32]}
    check(found, expected)
    assert {name: found[name].dtype.name for name in ("attacked", "iterations")} == {
        "attacked": "bool",
        "iterations": "int32",
    }
    assert found["adversarials"].dtype == sizes["perturbation_l2"].dtype == np.float32


def test_the_images_that_were_attacked(tmp_path):
    path = tmp_path / "attack.h5"
    write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, attacked((False, True, False)), **WITH)
    found = read_attacked(path)
    assert found.index.tolist() == [2, 9]
    assert found.success.tolist() == [True, False]
    assert found.clean_predictions.tolist() == [1, 2]
    np.testing.assert_array_equal(found.images(np.arange(2)), attacked().adversarials[1:])
    np.testing.assert_array_equal(found.images(np.array([1])), attacked().adversarials[2:])
    assert found.settings == SETTINGS
    first = read_attacked(path, 1)
    assert first.index.tolist() == [2]


def test_everything_that_an_attack_left(tmp_path):
    path = tmp_path / "attack.h5"
    write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, attacked(), **WITH)
    found = read_adversarials(path)
    np.testing.assert_array_equal(found.index, INDEX)
    np.testing.assert_array_equal(found.labels, LABELS)
    np.testing.assert_array_equal(found.success, [False, True, True])
    np.testing.assert_array_equal(found.images, attacked().adversarials)


def test_an_image_that_was_skipped_is_no_adversarial(tmp_path):
    path = tmp_path / "attack.h5"
    write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, attacked(skipped=True), **WITH)
    assert read_adversarials(path).index.tolist() == [2, 9]


def test_an_attack_on_no_image(tmp_path):
    path = tmp_path / "attack.h5"
    result = replace(attacked(), attacked=torch.zeros(3, dtype=torch.bool))
    write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, result, **WITH)
    found = read_attacked(path)
    assert found.index.shape == (0,)
    assert found.images(np.arange(0)).shape == (0, 2, 4, 4)


def test_the_adversarials_of_another_file(tmp_path):
    foreign, clean = tmp_path / "foreign.h5", tmp_path / "clean.h5"
    with h5py.File(foreign, "w") as file:
        file["success"] = [True]
    write_clean(clean, SETTINGS, INDEX, LABELS, evaluation(with_ode=True), **WITH)
    for path in (foreign, clean, tmp_path / "none.h5"):
        with pytest.raises(UserError, match=path.name) as caught:
            read_adversarials(path)
        assert "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    def write_all():
        write_clean(
            tmp_path / "clean.h5", SETTINGS, INDEX, LABELS, evaluation(with_ode=True), **WITH
        )
        write_attack(tmp_path / "attack.h5", SETTINGS, INDEX, LABELS, IMAGES, attacked(), **WITH)

    write_all()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2
    original = records.put

    def put_three(file, *arguments, **keywords):
        if len(file) == 3:
            raise KeyError("half-way")
        original(file, *arguments, **keywords)

    for module in (records, evaluation_files, attack_files):
        monkeypatch.setattr(module, "put", put_three)
    for write in (
        lambda path: write_clean(path, SETTINGS, INDEX, LABELS, evaluation(with_ode=False), **WITH),
        lambda path: write_attack(path, SETTINGS, INDEX, LABELS, IMAGES, attacked(), **WITH),
    ):
        for path in (*before, tmp_path / "new.h5"):
            with pytest.raises(KeyError):
                write(path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def filled(cls, shapes):
    """A record whose arrays differ from each other."""
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    return cls(
        **{
            name: torch.arange(place, place + sizes[name]).view(shape)
            for place, (name, shape) in enumerate(shapes.items())
        }
    )


PATH = {
    "loss": (3, 5),
    "success": (3,),
    "reached": (3,),
    "no_gradient": (3,),
    "adversarials": (3, 1, 2, 2),
    "perturbation_linf": (3,),
    "perturbation_l2": (3,),
    "halfway": (3, 1, 2, 2),
    "halfway_gradient": (3, 1, 2, 2),
}
ONE_EACH = (3,)


@pytest.mark.parametrize("with_ode", [True, False])
def test_audit(tmp_path, with_ode):
    path = tmp_path / "audit.h5"
    gradients = filled(
        GradientAudit,
        {
            "cosine": (3, 2, 2),
            "sign_agreement": (3, 2, 2),
            "gradient_norm": (3, 2),
            "zero_share": (3, 2),
            "precision_cosine": (2,),
            "derivative": (2, 2, 4),
            "finite_difference": (2, 4),
            "finite_difference_frozen": (2, 4),
        },
    )
    near = filled(Neighbours, {"changed": ONE_EACH, "variation": ONE_EACH})
    checks = filled(AttackChecks, {"iterations_success": ONE_EACH, "single_step_success": ONE_EACH})
    names = ("adversarial", "survives", "crosses", "jump", "change")
    held = filled(Held, dict.fromkeys(names, ONE_EACH)) if with_ode else None
    paths = {"paper": filled(AttackPaths, PATH), "apgd": filled(AttackPaths, PATH)}
    cosine, slope_error = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])
    own = NormAudit(checks, paths, cosine, slope_error, held)
    sources, directions = ["direct", "tight"], ["random_0", "random_1", "direct", "tight"]
    correct, large, papers_large = torch.tensor([[1, 0, 1], [1, 1, 0], [0, 1, 1]]).bool()
    norms = {"linf": own, "l2": own}
    audit = NetworkAudit(
        sources, directions, gradients, correct, near, large, papers_large, norms, ["It draws."]
    )
    write_audit(path, SETTINGS, INDEX, LABELS, audit, **WITH)
    with h5py.File(path) as file:
        assert not_measured(file) == "It draws."
    found = read(path, "audit")
    for name, texts in (("sources", sources), ("directions", directions), ("norms", list(norms))):
        assert [text.decode() for text in found.pop(name)] == texts
    expected = {
        "index": INDEX,
        "labels": LABELS,
        "correct": correct,
        "large_epsilon_success": large,
        "paper_large_epsilon_success": papers_large,
        "neighbours_changed": near.changed,
        "neighbours_variation": near.variation,
        **vars(gradients),
    }
    for norm in norms:
        parts = {**vars(checks), "paper/cosine": cosine, "apgd/slope_error": slope_error}
        for name, values in paths.items():
            kept = ("loss", "reached", "no_gradient")
            parts |= {f"{name}/{part}": getattr(values, part) for part in kept}
            sizes = ("success", "perturbation_linf", "perturbation_l2")
            expected |= {f"{part}/{name}_{norm}": getattr(values, part) for part in sizes}
        if held is not None:
            parts |= {f"held/{name}": values for name, values in vars(held).items()}
        expected |= {f"{norm}/{name}": values for name, values in parts.items()}
    check(found, expected)


def test_reevaluated(tmp_path):
    path = tmp_path / "reevaluated.h5"
    clean, adversarial = (
        Reevaluated(
            torch.arange(6).view(3, 2) + shift,
            torch.arange(24.0).view(3, 2, 4) + shift,
            torch.arange(6, dtype=torch.int32).view(3, 2) + shift,
        )
        for shift in (0, 10)
    )
    success = np.array([True, False, True])
    images = Adversarials(INDEX, LABELS, IMAGES.numpy(), success, SETTINGS)
    write_reevaluated(path, SETTINGS, images, [1e-5, 1.0], clean, adversarial, **WITH)
    check(
        read(path, "reevaluated"),
        {
            "index": INDEX,
            "labels": LABELS,
            "success": success,
            "tolerances": [1e-5, 1.0],
            "clean_predictions": clean.predictions,
            "clean_logits": clean.logits,
            "adversarial_predictions": adversarial.predictions,
            "adversarial_logits": adversarial.logits,
            "nfe": adversarial.nfe,
        },
    )


def test_defences(tmp_path):
    path, several = tmp_path / "randomised.h5", torch.tensor([0.1, 0.5, 0.9])
    wrong = {name: several + i for i, name in enumerate(["clean", "fixed", "fresh", "eot"])}
    result = Randomised(wrong, several.double(), torch.tensor([True, False, True]))
    write_randomised(path, SETTINGS, INDEX, LABELS, result, **WITH)
    expected = {"index": INDEX, "labels": LABELS}
    expected |= {f"wrong/{name}": values for name, values in wrong.items()}
    expected |= {"fixed_tolerance": several.double(), "fixed_wrong": [True, False, True]}
    check(read(path, "randomised"), expected)

    path, correct = tmp_path / "detection.h5", torch.tensor([True, True, False])
    parts = {
        "correct": correct,
        "clean": torch.rand(3, 2),
        "scores": torch.rand(3, 3, 2),
        "success": correct[:, None].expand(3, 3),
        "linf": torch.rand(3, 3),
        "l2": torch.rand(3, 3),
    }
    write_detection(path, SETTINGS, INDEX, LABELS, Detected(**parts), **WITH)
    expected = {"index": INDEX, "labels": LABELS, **parts, "clean_scores": parts["clean"]}
    expected |= {f"perturbation_{name}": expected.pop(name) for name in ("linf", "l2")}
    expected |= {"attackers": [b"plain", b"confident", b"adaptive"]}
    expected |= {"detectors": [b"disagreement", b"confidence"]}
    del expected["clean"]
    check(read(path, "detection"), expected)
