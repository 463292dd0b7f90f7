"""Cells in which there is little to share out: what is defined is right, the rest is undefined."""

from dataclasses import dataclass
from functools import partialmethod

import h5py
import numpy as np
import pytest
import torch

from node_robustness.attacks.logits import margin
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.trajectories import writer
from node_robustness.trajectories.growth import LinearisedFlow
from node_robustness.trajectories.layout import SHARED
from node_robustness.trajectories.measure import FollowedImages, Measurement, Selection
from node_robustness.trajectories.runs import grid
from samples import cell, tables_of

pytestmark = pytest.mark.numerical

SHAPE = (1, 8, 8)


@pytest.fixture(autouse=True)
def few_iterations(monkeypatch):
    """The largest exponent is a bound after any number of iterations."""
    few = partialmethod(LinearisedFlow.largest_exponents, iterations=3)
    monkeypatch.setattr(LinearisedFlow, "largest_exponents", few)


@pytest.fixture(scope="module", params=["ode", "residual"])
def model(request):
    torch.manual_seed(6)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", request.param, filters=8, blocks=3)
    network = Classifier(spec).eval().requires_grad_(False)
    with torch.no_grad():  # so that classes differ
        network.head.linear.weight *= 20
        network.head.linear.bias -= network(drawn(64)).mean(0)
    return network.at(tolerance=1e-2)


def drawn(count: int) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(9))


def downhill(model: Classifier, clean: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Images in which one step raises the margin of the decision instead of lowering it."""
    points = clean.clone().requires_grad_()
    logits = model(points)
    (gradient,) = torch.autograd.grad(margin(logits, logits.argmax(1)).sum(), points)
    return (clean - epsilon * gradient.sign()).clamp(0, 1)


@dataclass
class Cell:
    """What was measured of a cell, its datasets by name, and its tables."""

    arrays: dict
    tables: dict

    def shares(self, perturbation: str) -> np.ndarray:
        group = f"shares/{perturbation}"
        return np.column_stack([self.arrays[f"{group}/start"], self.arrays[f"{group}/parts"]])


def followed(tmp_path, model, clean, attacked, *, epsilon, strengthen=5, growth=0) -> Cell:
    """Follow images in a cell, the growth of the first ones alone, and collect its tables."""
    with torch.no_grad():
        decided, after = (model(x).argmax(1).numpy() for x in (clean, attacked))
    images = FollowedImages(
        np.arange(len(clean)),
        decided,
        decided != after,
        decided,
        SHAPE,
        lambda rows: (clean.numpy()[rows], attacked.numpy()[rows]),
    )
    chosen = Selection.of(images.success, states=2, growth=growth, causal=5)
    norm = Norm("linf")
    measurement = Measurement(model, grid(4), 3, norm, epsilon, strengthen, 5, 1e-5)
    settings = cell(epsilon=epsilon)
    if model.ode is None:
        settings = cell(model="RES", tolerance=None, epsilon=epsilon)
    sizes = measurement.sizes(len(clean), len(chosen.kept), SHAPE, "float32")
    path = tmp_path / "trajectory.h5"
    with writer.writing(
        path, settings, sizes, measurement.axis, measurement.grid, measurement.ends, device="cpu"
    ) as written:
        measurement.record(images, chosen, written)
    arrays = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, node: (
                arrays.update({name: node[()]}) if isinstance(node, h5py.Dataset) else None
            )
        )
    return Cell(arrays, tables_of(trajectories=[path]))


def complete(found: Cell, perturbation: str) -> None:
    """The shares of a perturbation are numbers, and sum to the loss but for the error given."""
    shares, loss = found.shares(perturbation), found.arrays[f"shares/{perturbation}/loss"]
    error = found.arrays[f"shares/{perturbation}/error"]
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(shares.sum(axis=1) - loss, error, atol=1e-5)
    if perturbation == "strong":
        lost = found.arrays["shares/margin"] - found.arrays["strong/margin"]
        np.testing.assert_allclose(loss, lost, atol=1e-5)


def grown(found: Cell, model: Classifier) -> None:
    """The growth of the first image, and of no other, was measured, and lies within its bounds."""
    arrays = found.arrays
    known = np.isfinite(arrays["lyapunov_largest"])
    assert known.tolist() == [True] + [False] * (len(known) - 1)
    for pair in ("attack", "noise"):
        along = arrays[f"{pair}/lyapunov_along"]
        np.testing.assert_array_equal(np.isfinite(along), known)
        assert along[0] <= arrays["lyapunov_largest"][0]
        if model.ode is not None:
            jacobian = arrays[f"{pair}/growth/jacobian"][0]
            assert (jacobian <= arrays["growth/log_norm_upper"][0]).all()
            assert (jacobian >= arrays["growth/log_norm_lower"][0]).all()


def test_no_adversarial_example(tmp_path, model):
    """So small a perturbation misleads nobody: it has shares, but nothing is claimed of them."""
    clean = drawn(4)
    with torch.no_grad():
        sure = model(clean).topk(2).values.diff(dim=1).abs().flatten() > 0.05
    clean = clean[sure]
    assert len(clean) >= 2
    found = followed(tmp_path, model, clean, clean + 0, epsilon=1e-4)
    assert not found.arrays["strong/success"].any()
    for perturbation in SHARED:
        complete(found, perturbation)
    assert (found.arrays["shares/strong/loss"] > 0).all()
    assert (found.arrays["causal/repaired"] == -1).all()
    assert (found.arrays["causal/inserted"] == -1).all()
    shares, dynamics = found.tables["shares"], found.tables["dynamics"]
    assert (shares.n == 0).all()
    assert shares[["fraction", "fraction_low", "fraction_high"]].isna().all(axis=None)
    assert dynamics[["claim", "because"]].to_numpy().tolist() == [["undecided", "no_adversarial"]]


def test_one_image(tmp_path, model):
    """There is no other image whose perturbation could be added."""
    clean = drawn(1)
    attacked = downhill(model, clean, 0.005)
    found = followed(tmp_path, model, clean, attacked, epsilon=0.3, strengthen=20, growth=1)
    assert found.arrays["strong/success"].all()
    complete(found, "strong")
    complete(found, "noise")
    grown(found, model)
    assert np.isnan(found.shares("swapped")).all()
    assert np.isnan(found.arrays["shares/swapped/loss"]).all()
    assert np.isnan(found.arrays["shares/swapped/error"]).all()
    shares = found.tables["shares"].set_index("perturbation")
    assert (shares.loc["strong"].n == 1).all()
    assert shares.loc["swapped", ["share", "fraction"]].isna().all(axis=None)
    (row,) = found.tables["dynamics"].itertuples()
    assert (row.claim, row.particular) == ("undecided", pytest.approx(np.nan, nan_ok=True))


def test_a_perturbation_that_gains_margin(tmp_path, model):
    """Its loss is negative, its shares sum to it, and nothing is divided by it."""
    clean = drawn(6)
    attacked = downhill(model, clean, 0.005)
    found = followed(tmp_path, model, clean, attacked, epsilon=0.005, strengthen=0, growth=1)
    assert (found.arrays["shares/strong/loss"] < 0).all()
    complete(found, "strong")
    grown(found, model)
    assert (found.shares("strong").sum(axis=1) < 0).all()
    assert not found.arrays["strong/success"].any()
    assert found.tables["shares"][["fraction", "fraction_low"]].isna().all(axis=None)


def test_an_attack_that_changed_nothing(tmp_path, model):
    """Shares of what is not there are zero, exactly."""
    clean = drawn(3)
    found = followed(tmp_path, model, clean, clean + 0, epsilon=0.1, strengthen=0, growth=1)
    for perturbation in SHARED:
        assert not found.shares(perturbation).any()
        assert not found.arrays[f"shares/{perturbation}/loss"].any()
    assert not found.arrays["strong/perturbation_l2"].any()


def test_a_model_without_an_ode_has_a_share_for_every_block(tmp_path, model):
    clean = drawn(4)
    found = followed(tmp_path, model, clean, clean + 0, epsilon=0.3, strengthen=20)
    ends = found.arrays["shares/ends"]
    np.testing.assert_allclose(ends, [0, 1 / 3, 2 / 3, 1])
    assert found.shares("strong").shape == (4, 4)
    for perturbation in SHARED:
        complete(found, perturbation)
    players = found.tables["shares"].query("perturbation == 'strong'").player.tolist()
    assert players == ["h(0)", "part", "part", "part"]
