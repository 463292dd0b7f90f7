"""The ways of images, against torchdiffeq image by image, and numpy."""

import numpy as np
import pytest
import torch
from torch import nn
from torchdiffeq import odeint

from node_robustness.models.classifier import Classifier, Spec
from node_robustness.trajectories.distances import distances
from node_robustness.trajectories.runs import follow, grid
from rounding import rows_round_alike

pytestmark = pytest.mark.numerical

TAUS = [1e-3, 0.1, 10.0]
TIMES = grid(11)
NAMES = ["clean", "attack", "noise"]


def network(body="ode", downsampling="convolution", dtype=torch.float64, channels=1):
    torch.manual_seed(3)
    spec = Spec(
        channels, 4, (0.4,) * channels, (0.3,) * channels, downsampling, body, filters=8, blocks=3
    )
    return Classifier(spec).eval().to(dtype)


def batch(count, dtype=torch.float64, side=10, channels=1):
    generator = torch.Generator().manual_seed(1)

    def draw():
        return torch.rand(count, channels, side, side, dtype=torch.float64, generator=generator)

    clean = draw()
    moved = {name: (clean + 0.2 * (draw() - 0.5)).clamp(0, 1) for name in NAMES[1:]}
    return {name: images.to(dtype) for name, images in {"clean": clean, **moved}.items()}


def reference(model, image, tau, times):
    """h(t) at some times, and the accepted nodes, of one image by torchdiffeq."""

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
            torch.tensor(times, dtype=torch.float64),
            rtol=tau,
            atol=tau,
            method="dopri5",
        )
    return states[:, 0], function.nodes


@pytest.mark.parametrize("downsampling", ["convolution", "residual"])
@pytest.mark.parametrize("tau", TAUS)
def test_states_and_nodes_are_torchdiffeqs_at_batch_one(tau, downsampling):
    model, images = network(downsampling=downsampling), batch(3)
    runs = follow(model.at(tolerance=tau), images, TIMES)
    np.testing.assert_allclose(runs.times, np.arange(11) / 10, rtol=0, atol=1e-15)
    for name in NAMES:
        for i, image in enumerate(images[name]):
            states, nodes = reference(model, image, tau, TIMES)
            torch.testing.assert_close(runs.states[name][:, i], states, rtol=0, atol=1e-9)
            np.testing.assert_allclose(runs.costs[name].nodes[i], nodes, rtol=1e-9)


@pytest.mark.parametrize("tau", TAUS)
def test_distances_at_the_nodes_are_torchdiffeqs(tau):
    model, images = network(), batch(3)
    runs = follow(model.at(tolerance=tau), images, TIMES)
    for name in NAMES[1:]:
        for i, image in enumerate(images[name]):
            nodes = runs.costs[name].nodes[i].clamp(max=1).tolist()
            after, _ = reference(model, image, tau, nodes)
            before, _ = reference(model, images["clean"][i], tau, nodes)
            found = runs.at_nodes[name][i]
            l2 = (after - before).flatten(1).norm(dim=1)
            torch.testing.assert_close(found.l2, l2, rtol=1e-7, atol=0)
            relative = l2 / before.flatten(1).norm(dim=1)
            torch.testing.assert_close(found.relative_l2, relative, rtol=1e-7, atol=0)
            assert len(found.cosine) == len(nodes)


def test_the_blocks_of_a_residual_body():
    model, images = network("residual"), batch(3)
    runs = follow(model, images, TIMES)
    assert runs.times.tolist() == [0, 1 / 3, 2 / 3, 1]
    assert runs.costs == runs.at_nodes == {}
    with torch.no_grad():
        state = model.embed(images["attack"])
        for number in range(4):
            torch.testing.assert_close(runs.states["attack"][number], state)
            if number < 3:
                state = model.body[number](state)
        assert torch.equal(model.head(runs.states["clean"][-1]), model(images["clean"]))


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_the_state_at_the_end_is_the_one_that_is_classified(body):
    model, images = network(body), batch(3)
    solved = model.at(tolerance=0.1)
    runs = follow(solved, images, grid(51))
    with torch.no_grad():
        for name in NAMES:
            logits = solved.head(runs.states[name][-1])
            torch.testing.assert_close(logits, solved(images[name]), rtol=0, atol=1e-12)


def test_an_image_is_followed_alone_as_among_others():
    model, images = network(dtype=torch.float32), batch(5, torch.float32)
    exact = rows_round_alike()
    solved = model.at(tolerance=1e-2)
    together = follow(solved, images, TIMES)
    for i in range(5):
        alone = follow(solved, {name: x[i : i + 1] for name, x in images.items()}, TIMES)
        for name in NAMES:
            found, expected = alone.costs[name].nodes[0], together.costs[name].nodes[i]
            torch.testing.assert_close(found, expected, rtol=0, atol=0 if exact else 1e-4)
            expected = together.states[name][:, i : i + 1]
            atol = 1e-6 if exact else 1e-4
            torch.testing.assert_close(alone.states[name], expected, rtol=1e-6, atol=atol)
        for name in NAMES[1:]:
            found, expected = alone.at_nodes[name][0].l2, together.at_nodes[name][i].l2
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=atol)


def test_some_images_of_runs():
    model = network().at(tolerance=1e-4)
    runs = follow(model, batch(5), grid(4))
    chosen = torch.tensor([3, 1])
    own = runs.of(chosen)
    for name in NAMES:
        assert torch.equal(own.states[name], runs.states[name][:, chosen])
        for new, old in enumerate(chosen.tolist()):
            assert torch.equal(own.costs[name].nodes[new], runs.costs[name].nodes[old])
        for cost in ("nfe", "accepted", "rejected", "status"):
            values = getattr(runs.costs[name], cost)
            assert torch.equal(getattr(own.costs[name], cost), values[chosen])
    for new, old in enumerate(chosen.tolist()):
        assert torch.equal(own.at_nodes["attack"][new].l2, runs.at_nodes["attack"][old].l2)


def test_distances_are_those_of_the_states():
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.randn(5, 4, 3, 2, 2, generator=generator) for _ in range(2))
    found = distances(before, after)
    a, b = (s.flatten(2).transpose(0, 1).double().numpy() for s in (before, after))
    l2, sizes = np.linalg.norm(b - a, axis=2), (np.linalg.norm(s, axis=2) for s in (a, b))
    of_a, of_b = sizes
    np.testing.assert_allclose(found.l2, l2, rtol=1e-5)
    np.testing.assert_allclose(found.relative_l2, l2 / of_a, rtol=1e-5)
    np.testing.assert_allclose(found.cosine, (a * b).sum(2) / (of_a * of_b), atol=1e-5)


def test_cosine_lies_between_minus_one_and_one():
    states = torch.randn(1, 500, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for other in (states, 3 * states, -states, states + 1e-7):
        assert (distances(states, other).cosine.abs() <= 1).all()


def test_a_failed_solve_leaves_the_others_as_they_are():
    model, images = network(), batch(4)
    together = torch.cat(list(images.values()))
    solved = model.at(tolerance=1e-4)
    with torch.no_grad():
        solved(together)
    steps = ((solved.ode.nfe - 2) // 6).view(3, 4)
    most = int(steps.max()) - 1
    failed = {name: own > most for name, own in zip(NAMES, steps, strict=True)}
    assert any(own.any() for own in failed.values())
    whole = follow(solved, images, TIMES)
    found = follow(solved.at(max_steps=most), images, TIMES)
    for name in NAMES:
        fine = ~failed[name]
        assert fine.any()
        torch.testing.assert_close(found.states[name][:, fine], whole.states[name][:, fine])
        assert found.states[name][-1, ~fine].isnan().all()
    for name in NAMES[1:]:
        for i in (~failed[name] & ~failed["clean"]).nonzero().flatten().tolist():
            torch.testing.assert_close(found.at_nodes[name][i].l2, whole.at_nodes[name][i].l2)


@pytest.mark.parametrize("times", [1, [0.0], [0.0, 0.5], [0.1, 1.0], [0, 0.6, 0.4, 1], [0, 1, 2]])
def test_times_rise_from_0_to_1(times):
    with pytest.raises(ValueError, match="increase from 0 to 1"):
        grid(times)


def test_times_may_be_chosen():
    assert grid([0, 0.9, 1]) == (0.0, 0.9, 1.0)
    model, images = network(), batch(2)
    runs = follow(model, images, (0.0, 0.9, 1.0))
    states, _ = reference(model, images["clean"][0], 1e-3, [0.0, 0.9, 1.0])
    torch.testing.assert_close(runs.states["clean"][:, 0], states, rtol=0, atol=1e-9)
