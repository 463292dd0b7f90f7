"""The attack on the cost against a plain solve and plain noise; its file, read with h5py."""

import json

import h5py
import numpy as np
import pytest
import torch

from node_robustness.audits.cost import CostSearch, attack_cost, write_cost
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from rounding import dtype_and_margin
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

EPSILON = 0.2


def costed(model, x, rows, norm="linf", batch_size=128, progress=None, **changes):
    search = {"epsilon": EPSILON, "step": 0.05, "queries": 15, "iterations": 4} | changes
    return attack_cost(
        model,
        x,
        CostSearch(Norm(norm), **search),
        lambda purpose: Streams.of(0, rows, purpose),
        batch_size=batch_size,
        progress=progress,
    )


def evaluations(model, x):
    with torch.no_grad():
        model(x)
    return model.nfe


@pytest.mark.parametrize("norm", ["linf", "l2_rms"])
def test_what_is_counted_is_what_the_solver_takes(norm):
    model, x = small_ode().at(tolerance=1e-4), random_images(10)
    found = costed(model, x, range(10), norm)
    assert torch.equal(found.nfe_clean, evaluations(model, x))
    assert torch.equal(found.nfe_attacked, evaluations(model, found.attacked))
    assert torch.equal(found.clean_predictions, predicted(model, x))
    assert torch.equal(found.attacked_predictions, predicted(model, found.attacked))
    assert (Norm(norm).size(found.attacked - x) <= EPSILON * (1 + 1e-6)).all()
    assert ((found.attacked >= 0) & (found.attacked <= 1)).all()
    assert (found.nfe_attacked >= found.nfe_clean).all()
    assert found.nfe_attacked.sum() > found.nfe_noise.sum()


def test_the_search_and_the_climb_each_raise_the_work():
    """At a loose tolerance all images take the same steps, and only the work tells them apart."""
    model, x = small_ode().at(tolerance=0.1), random_images(8)

    def work(images):
        with torch.no_grad():
            solution = model.ode.solve(model.embed(images), (0.0, 1.0), keep_work=True)
        return solution.nfe, solution.work

    nfe, clean = work(x)
    for queries, iterations in ((15, 0), (1, 4)):
        found = costed(model, x, range(8), queries=queries, iterations=iterations)
        attacked_nfe, attacked = work(found.attacked)
        alike = attacked_nfe == nfe
        assert alike.any()
        assert (attacked[alike] >= clean[alike]).all()
        assert (attacked > clean).float().mean() > 0.7
    once = costed(model, x, range(8), queries=1, iterations=0)
    climbed = work(costed(model, x, range(8), queries=1, iterations=4).attacked)[1]
    assert climbed.sum() > work(once.attacked)[1].sum()


def test_results_depend_on_the_image_alone():
    dtype, margin = dtype_and_margin()
    model, x = small_ode(dtype=dtype).at(tolerance=1e-3), random_images(8).to(dtype)
    whole, order, done = costed(model, x, range(8)), torch.tensor([7, 2, 4]), []
    some = costed(model, x[order], order.tolist(), batch_size=2, progress=done.append)
    assert done == [2, 1]
    for name in ("nfe_clean", "nfe_noise", "nfe_attacked", "attacked"):
        expected, own = getattr(whole, name)[order], getattr(some, name)
        assert (own - expected).abs().max() <= margin, name


def test_a_failed_solve_costs_the_most():
    """Where every attempt is used up nothing costs more, and nothing stops the attack."""
    model, x = small_ode().at(tolerance=1e-6, max_steps=3), random_images(3)
    found = costed(model, x, range(3))
    assert found.nfe_attacked.tolist() == found.nfe_clean.tolist()
    assert found.clean_predictions.tolist() == [-1] * 3


def test_the_file(tmp_path):
    model, x = small_ode().at(tolerance=1e-3), random_images(4)
    found, path = costed(model, x, range(4)), tmp_path / "cost.h5"
    labels = found.clean_predictions.clone()
    labels[0] += 1
    found.attacked_predictions[:] = torch.stack([labels[0], labels[1], labels[2] + 1, labels[3]])
    write_cost(path, {"seed": 0}, np.arange(4), labels.numpy(), x, found, seconds=1, device="here")
    with h5py.File(path) as file:
        assert file.attrs["kind"] == "cost"
        assert json.loads(file.attrs["settings"]) == {"seed": 0}
        assert file["success"][:].tolist() == [False, False, True, False]
        for name in ("nfe_clean", "nfe_noise", "nfe_attacked", "attacked_predictions", "attacked"):
            np.testing.assert_array_equal(file[name][:], getattr(found, name).numpy())
        change = (found.attacked - x).flatten(1)
        np.testing.assert_array_equal(file["perturbation_linf"][:], change.abs().amax(1).numpy())
        np.testing.assert_allclose(file["perturbation_l2"][:], change.norm(dim=1).numpy())
        assert file["labels"][:].tolist() == labels.tolist()
