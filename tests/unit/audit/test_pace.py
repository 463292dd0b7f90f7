"""The time of the paper's procedure: image by image, by torchdiffeq; and what it comes to."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t as student

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.gradients import with_gradient
from node_robustness.audit.pace import measure
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.report import pace
from samples import cell, write

ADJOINT = {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"}


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_it_is_the_same_attack_solved_by_torchdiffeq_one_image_at_a_time(body):
    torch.manual_seed(7)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8)).eval()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        model.head.linear.bias -= model(images).mean(0)
        labels = model(images).argmax(1)
    labels[2] = (labels[2] + 1) % 4
    method = BasicIterativeMethod(Norm("linf"), 0.1, 0.02, 8)
    settings = ADJOINT if body == "ode" else {}
    attacked = with_gradient(model, 1e-2, settings)
    procedure = with_gradient(model.at(backend="torchdiffeq"), 1e-2, settings)
    batches, done = [], []

    def seen(model, inputs):
        batches.append((len(inputs[0]), model.solver and model.solver.backend))

    with model.register_forward_pre_hook(seen):
        found = measure(
            procedure, images, labels, method, index=range(6), seed=0, progress=done.append
        )
    together = attack(attacked, images, labels, method)
    assert found.iterations.tolist() == together.iterations.tolist()
    assert together.success.any()
    assert found.iterations[2] == 0
    assert (found.seconds > 0).all()
    assert found.seconds.shape == (6,)
    assert set(batches) == {(1, "torchdiffeq" if body == "ode" else None)}
    assert done == [1] * 6


def timed(folder, seconds, iterations, **where):
    arrays = {"seconds": np.array(seconds), "iterations": np.array(iterations)}
    return write(folder / f"{where['model']}.h5", "pace", cell(**where), arrays)


def rows(frame):
    return pd.DataFrame(frame, columns=[*COORDINATES, *frame[0].keys() - {*COORDINATES}])


COORDINATES = ["dataset", "model", "tolerance", "attack"]


def attacks_table():
    """Two cells of OON, one of which broke nothing; one of RES; another attack; another tau."""
    oon = {"dataset": "toy", "model": "OON", "tolerance": 0.1, "attack": "bim"}
    return rows(
        [
            oon | {"attacked": 10, "successes": 4, "iterations_mean": 2.5},
            oon | {"attacked": 8, "successes": 0, "iterations_mean": math.nan},
            oon
            | {"model": "RES", "tolerance": math.nan}
            | {"attacked": 5, "successes": 5, "iterations_mean": 1.0},
            oon | {"attack": "pgd", "attacked": 99, "successes": 0, "iterations_mean": math.nan},
            oon | {"tolerance": 1.0, "attacked": 99, "successes": 9, "iterations_mean": 3.0},
        ]
    )


def jobs_table():
    oon = {"dataset": "toy", "model": "OON", "tolerance": 0.1, "attack": "bim"}
    res = oon | {"model": "RES", "tolerance": math.nan}
    return rows(
        [
            oon | {"rule": "attack_shard", "seconds": 3.0},
            oon | {"rule": "merge", "seconds": 1.0},
            oon | {"rule": "pace", "seconds": 100.0},
            oon | {"rule": "attack", "attack": "pgd", "seconds": 100.0},
            oon | {"rule": "judge", "seconds": 100.0},
            res | {"rule": "attack", "seconds": 0.5},
        ]
    )


def test_steps_are_extrapolated_to_all_cells_of_the_attack(tmp_path):
    paths = [
        # The third image was misclassified: its clean pass is no step.
        timed(tmp_path, [2.0, 6.0, 0.5], [2, 3, 0], model="OON", tolerance=0.1),
        timed(tmp_path, [0.25], [1], model="RES", tolerance=None),
    ]
    oon, res = pace.compare(paths, attacks_table(), jobs_table())
    assert [oon["model"], oon["tolerance"], oon["images"], oon["cells"]] == ["OON", 0.1, 2, 2]
    assert oon["seconds_image"] == 4.0
    assert oon["steps"] == 4 * 2.5 + 6 * 10 + 8 * 10
    assert oon["seconds_step"] == 1.5
    half = student.ppf(0.975, 1) * np.std([1.0, 2.0], ddof=1) / math.sqrt(2)
    assert oon["seconds_step_low"] == 0
    assert oon["seconds_step_high"] == pytest.approx(1.5 + half)
    assert oon["procedure_seconds"] == 150 * 1.5
    assert oon["procedure_seconds_high"] == pytest.approx(150 * (1.5 + half))
    assert oon["run_seconds"] == 4.0
    assert (res["tolerance"], res["steps"], res["run_seconds"]) == (None, 5, 0.5)
    assert (res["procedure_seconds"], res["procedure_seconds_low"]) == (1.25, None)


def test_what_it_comes_to_in_words(tmp_path):
    path = timed(tmp_path, [2.0, 3.0], [2, 3], model="OON", tolerance=0.1)
    (sentence,) = pace.sentences(pace.compare([path], attacks_table(), jobs_table()))
    assert "took 0:00:04 (h:mm:ss) of this run" in sentence
    assert "its 150 gradient steps would have taken 0:02:30 (0:02:30 to 0:02:30)" in sentence
    assert "37.5 times as long: extrapolated from 2 images" in sentence


def test_of_a_single_image_there_is_no_interval(tmp_path):
    path = timed(tmp_path, [2.0], [2], model="OON", tolerance=0.1)
    found = pace.compare([path], attacks_table(), jobs_table())
    assert "would have taken 0:02:30, 37.5 times as long" in pace.sentences(found)[0]


def test_nothing_is_said_of_what_is_not_known(tmp_path):
    assert pace.sentences([]) == []
    wrong = timed(tmp_path, [2.0], [0], model="OON", tolerance=0.1)
    found = pace.compare([wrong], attacks_table(), jobs_table())
    assert found[0]["images"] == 0
    assert found[0]["seconds_image"] is None
    assert pace.sentences(found) == []
