"""Trajectories against torchdiffeq, image by image, and numpy."""

import numpy as np
import pytest
import torch
from torch import nn
from torchdiffeq import odeint

from node_robustness.models import Classifier, Spec, solving
from node_robustness.trajectories import distances as module
from node_robustness.trajectories.distances import follow

TAUS = [1e-3, 0.1, 10.0]
TIMES = 11


def network(body="ode", downsampling="convolution", dtype=torch.float64, channels=1):
    torch.manual_seed(3)
    spec = Spec(channels, 4, (0.4,) * channels, (0.3,) * channels, downsampling, body, filters=8)
    return Classifier(spec).eval().to(dtype)


def pairs(count, dtype=torch.float64, side=10, channels=1):
    generator = torch.Generator().manual_seed(1)
    clean = torch.rand(count, channels, side, side, dtype=torch.float64, generator=generator)
    change = torch.rand(count, channels, side, side, dtype=torch.float64, generator=generator)
    return clean.to(dtype), (clean + 0.2 * (change - 0.5)).clamp(0, 1).to(dtype)


def reference(model, image, tau, times=TIMES):
    """h(t) on the grid, and the accepted nodes, of one image by torchdiffeq."""

    class Noted(nn.Module):
        def __init__(self):
            super().__init__()
            self.nodes = [0.0]

        def forward(self, t, h):
            return model.ode.function(t, h)

        def callback_accept_step(self, t0, y0, dt):
            self.nodes.append(float(t0 + dt))

    function = Noted()
    with torch.no_grad():
        states = odeint(
            function,
            model.embed(image[None]),
            torch.linspace(0, 1, times, dtype=torch.float64),
            rtol=tau,
            atol=tau,
            method="dopri5",
        )
    return states[:, 0].numpy(), function.nodes


@pytest.mark.parametrize("downsampling", ["convolution", "residual"])
@pytest.mark.parametrize("tau", TAUS)
def test_states_and_nodes_are_torchdiffeqs_at_batch_one(tau, downsampling):
    model, (clean, adversarial) = network(downsampling=downsampling), pairs(3)
    with solving(model, tolerance=tau):
        found = follow(model, clean, adversarial, times=TIMES, states=3, precision="float64")
    np.testing.assert_allclose(found.times, np.arange(TIMES) / (TIMES - 1), rtol=0, atol=1e-15)
    for images, states, nodes in (
        (clean, found.clean_states, found.clean_nodes),
        (adversarial, found.adversarial_states, found.adversarial_nodes),
    ):
        assert len(nodes) == 3
        for i, image in enumerate(images):
            expected_states, expected_nodes = reference(model, image, tau)
            np.testing.assert_allclose(states[i], expected_states, rtol=0, atol=1e-9)
            np.testing.assert_allclose(nodes[i], expected_nodes, rtol=1e-9)


def test_distances_are_those_of_the_states():
    model, (clean, adversarial) = network(channels=3), pairs(4, channels=3)
    found = follow(model, clean, adversarial, times=TIMES, states=4, precision="float64")
    before = found.clean_states.reshape(4, TIMES, -1)
    after = found.adversarial_states.reshape(4, TIMES, -1)
    l2 = np.sqrt(((after - before) ** 2).sum(2))
    sizes = np.sqrt((before**2).sum(2)), np.sqrt((after**2).sum(2))
    np.testing.assert_allclose(found.l2, l2, rtol=1e-6)
    np.testing.assert_allclose(found.relative_l2, l2 / sizes[0], rtol=1e-6)
    cosine = (before * after).sum(2) / (sizes[0] * sizes[1])
    np.testing.assert_allclose(found.cosine, cosine, rtol=1e-6)
    assert {found.l2.dtype, found.relative_l2.dtype, found.cosine.dtype} == {np.dtype(np.float32)}
    assert found.l2.shape == found.relative_l2.shape == found.cosine.shape == (4, TIMES)


def test_the_distance_at_the_start_is_that_of_the_embedding():
    model, (clean, adversarial) = network(), pairs(3)
    found = follow(model, clean, adversarial, times=2, states=0, precision="float32")
    with torch.no_grad():
        start = (model.embed(adversarial) - model.embed(clean)).flatten(1).norm(dim=1)
    np.testing.assert_allclose(found.l2[:, 0], start, rtol=1e-6)


def test_the_state_at_the_end_is_the_one_that_is_classified():
    model, (clean, adversarial) = network(), pairs(3)
    with solving(model, tolerance=0.1):
        found = follow(model, clean, adversarial, times=51, states=3, precision="float64")
        with torch.no_grad():
            for images, states in (
                (clean, found.clean_states),
                (adversarial, found.adversarial_states),
            ):
                logits = model.head(torch.from_numpy(states[:, -1]))
                torch.testing.assert_close(logits, model(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("tau", TAUS)
def test_nodes_start_at_0_increase_and_reach_1(tau):
    model, (clean, adversarial) = network(dtype=torch.float32), pairs(4, torch.float32)
    with solving(model, tolerance=tau):
        found = follow(model, clean, adversarial, times=TIMES, states=0, precision="float16")
    for nodes in [*found.clean_nodes, *found.adversarial_nodes]:
        assert nodes.dtype == np.float64
        assert nodes[0] == 0
        assert (np.diff(nodes) > 0).all()
        assert nodes[-2] < 1 <= nodes[-1]


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_the_same_image_twice_has_no_distance_and_cosine_one(dtype, rounding):
    model, (clean, _) = network(dtype=dtype), pairs(20, dtype)
    found = follow(model, clean, clean, times=TIMES, states=0, precision="float16")
    assert (found.relative_l2 < rounding).all()
    np.testing.assert_allclose(found.cosine, 1, atol=1e-6)


def test_cosine_lies_between_minus_one_and_one():
    model, (clean, adversarial) = network(dtype=torch.float32), pairs(20, torch.float32)
    almost = clean + 1e-6 * (adversarial - clean)
    for other in (adversarial, almost, 1 - clean):
        found = follow(model, clean, other, times=TIMES, states=0, precision="float16")
        assert (np.abs(found.cosine) <= 1).all()


@pytest.mark.parametrize("downsampling", ["convolution", "residual"])
def test_no_pairs(downsampling):
    model, (clean, adversarial) = network(downsampling=downsampling), pairs(1, side=12)
    some = follow(model, clean, adversarial, times=5, states=2, precision="float16")
    none = follow(model, clean[:0], adversarial[:0], times=5, states=2, precision="float16")
    np.testing.assert_array_equal(none.times, some.times)
    assert none.clean_nodes == none.adversarial_nodes == []
    for name in ("l2", "relative_l2", "cosine", "clean_states", "adversarial_states"):
        expected, found = getattr(some, name), getattr(none, name)
        assert found.shape == (0, *expected.shape[1:])
        assert found.dtype == expected.dtype


@pytest.mark.parametrize("room", [1, 2])
def test_a_small_memory_changes_nothing(monkeypatch, room):
    model, (clean, adversarial) = network(), pairs(5)
    counts = []
    settings = {"times": 4, "states": 3, "precision": "float32", "progress": counts.append}
    whole = follow(model, clean, adversarial, **settings)
    assert counts == [5]
    state = model.embed(clean[:1]).numel()
    monkeypatch.setattr(module, "_STATES_BYTES", room * 2 * 4 * state * 4 if room > 1 else 1)
    parts = follow(model, clean, adversarial, **settings)
    assert counts[1:] == {1: [1] * 5, 2: [2, 2, 1]}[room]
    for name in ("times", "l2", "relative_l2", "cosine", "clean_states", "adversarial_states"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-6)
    for name in ("clean_nodes", "adversarial_nodes"):
        for found, expected in zip(getattr(parts, name), getattr(whole, name), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("states", [0, 2, 5, 9])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_states_of_the_first_pairs_are_kept_in_the_precision_asked_for(states, precision):
    model, (clean, adversarial) = network(), pairs(5)
    settings = {"times": 4, "precision": precision}
    found = follow(model, clean, adversarial, states=states, **settings)
    exact = follow(model, clean, adversarial, times=4, states=5, precision="float64")
    for kept, all_of_them in (
        (found.clean_states, exact.clean_states),
        (found.adversarial_states, exact.adversarial_states),
    ):
        assert kept.dtype == np.dtype(precision)
        np.testing.assert_array_equal(kept, all_of_them[:states].astype(precision))


def test_a_failed_solve_leaves_the_others_as_they_are():
    model, (clean, adversarial) = network(), pairs(4)
    with solving(model, tolerance=1e-4):
        with torch.no_grad():
            model(torch.cat([clean, adversarial]))
        steps = (model.nfe - 2) // 6
        whole = follow(model, clean, adversarial, times=4, states=0, precision="float32")
        most = int(steps.sort().values[4])
        failed = (steps > most).view(2, 4).any(0).numpy()
        assert failed.any()
        assert not failed.all()
        with solving(model, max_steps=most):
            found = follow(model, clean, adversarial, times=4, states=0, precision="float32")
    for name in ("l2", "relative_l2", "cosine"):
        values, expected = getattr(found, name), getattr(whole, name)
        np.testing.assert_allclose(values[~failed], expected[~failed], rtol=1e-6)
        assert np.isnan(values[failed, -1]).all()


def test_a_model_without_an_ode_cannot_be_followed():
    clean, adversarial = pairs(1)
    with pytest.raises(ValueError, match="without an ODE"):
        follow(network("residual"), clean, adversarial, times=3, states=0, precision="float32")
