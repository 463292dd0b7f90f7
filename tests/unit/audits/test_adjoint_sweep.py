"""A sweep is the attack itself with one gradient after another; its file, read with h5py."""

import json

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.audits.adjoint_sweep import sweep, write_sweep
from node_robustness.perturbations.norms import Norm
from rounding import dtype_and_margin
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

METHOD = BasicIterativeMethod(Norm("linf"), 0.03, 0.015, 3)
BACKWARD = [1e-3, 10.0]


def swept(model, x, y, rows, **changes):
    settings = {"adjoint_norm": "full", "seed": 0, "batch_size": 128} | changes
    return sweep(model, x, y, METHOD, BACKWARD, index=rows, **settings)


def test_every_column_is_an_attack_with_its_gradient():
    model, x = small_ode().at(tolerance=1.0), random_images(5)
    y = predicted(model, x)
    y[0] = 1 - y[0]
    found, done = swept(model, x, y, range(5)), []
    swept(model, x, y, range(5), batch_size=3, progress=done.append)
    assert sum(done) == 3 * 5
    assert found.correct.tolist() == [False] + [True] * 4
    np.testing.assert_array_equal(found.backward_tolerances, [np.nan, *BACKWARD])
    sources = [{"gradient": "direct"}]
    sources += [{"gradient": "adjoint", "adjoint_tolerance": tau} for tau in BACKWARD]
    for column, settings in enumerate(sources):
        own = attack(model.at(**settings), x, y, METHOD)
        change = own.adversarials - x
        assert torch.equal(found.success[:, column], own.success)
        assert torch.equal(found.perturbation_linf[:, column], change.abs().amax((1, 2, 3)))
        torch.testing.assert_close(found.perturbation_l2[:, column], change.flatten(1).norm(dim=1))
    assert found.success.any()


def test_the_cosine_is_that_with_the_direct_gradient():
    model, x = small_ode().at(tolerance=10.0), random_images(6)
    y = predicted(model, x)
    found = swept(model, x, y, range(6)).cosine
    torch.testing.assert_close(found[:, 0], torch.ones(6))
    gradients = []
    for settings in ({}, {"gradient": "adjoint", "adjoint_tolerance": BACKWARD[0]}):
        at = x.clone().requires_grad_()
        F.cross_entropy(model.at(**settings)(at), y, reduction="sum").backward()
        gradients.append(at.grad.flatten(1))
    torch.testing.assert_close(found[:, 1], F.cosine_similarity(*gradients).float())
    assert (found[:, 1] < 0.999).any()


def test_results_depend_on_the_image_alone():
    dtype, margin = dtype_and_margin()
    model, x = small_ode(dtype=dtype).at(tolerance=1.0), random_images(5).to(dtype)
    y = predicted(model, x)
    whole, order = swept(model, x, y, range(5)), torch.tensor([4, 0, 2])
    some = swept(model, x[order], y[order], order.tolist(), batch_size=2)
    for name in ("success", "perturbation_linf", "cosine"):
        expected, own = getattr(whole, name)[order], getattr(some, name)
        torch.testing.assert_close(own, expected, rtol=0, atol=margin)


def test_the_file(tmp_path):
    model, x = small_ode().at(tolerance=1.0), random_images(3)
    y, path = predicted(model, x), tmp_path / "adjoint_sweep.h5"
    found = swept(model, x, y, [7, 2, 9])
    write_sweep(
        path, {"epsilon": 0.1}, np.array([7, 2, 9]), y.numpy(), found, seconds=1.5, device="here"
    )
    with h5py.File(path) as file:
        assert file.attrs["kind"] == "adjoint_sweep"
        assert json.loads(file.attrs["settings"]) == {"epsilon": 0.1}
        assert (file.attrs["seconds"], file.attrs["device"]) == (1.5, "here")
        assert file["index"][:].tolist() == [7, 2, 9]
        assert file["labels"][:].tolist() == y.tolist()
        for name in ("correct", "success", "perturbation_linf", "perturbation_l2", "cosine"):
            np.testing.assert_array_equal(file[name][:], getattr(found, name).numpy())
            assert {"units", "description"} <= set(file[name].attrs)
        np.testing.assert_array_equal(file["backward_tolerances"][:], [np.nan, *BACKWARD])
