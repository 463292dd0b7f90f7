"""Shares of a loss of margin: closed forms, Shapley values, planted intervals, other solvers."""

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchdiffeq import odeint

from node_robustness.models.classifier import Classifier, Spec
from node_robustness.ode.parts import spread
from node_robustness.ode.tableaus import TABLEAUS
from node_robustness.trajectories import shares as module
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.shares import Steps, shares, solve_margins
from planted import (
    ReadLinearly,
    RisingField,
    cued,
    cued_blocks,
    linear,
)
from rounding import OtherRounding

pytestmark = pytest.mark.numerical

TENTHS = tuple(k / 10 for k in range(11))


def shared(model, clean, moved, ends=TENTHS, **settings):
    """The shares for the decision of the model on clean images."""
    with torch.no_grad():
        decided = model(clean).argmax(1)
    solved = (solve_margins(model, images, decided) for images in (clean, moved))
    return shares(model, *solved, decided, ends, **settings)


def network(body="ode", dtype=torch.float64, **settings):
    torch.manual_seed(4)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", body, filters=8, blocks=3, **settings)
    model = Classifier(spec).eval().to(dtype)
    with torch.no_grad():
        model.head.linear.weight *= 20
    return model


def pairs(n=4, dtype=torch.float64, channels=1, side=8):
    generator = torch.Generator().manual_seed(1)
    clean, change = (
        torch.rand(n, channels, side, side, dtype=torch.float64, generator=generator)
        for _ in range(2)
    )
    return clean.to(dtype), (clean + 0.5 * (change - 0.5)).to(dtype)


def linear_model(rising, tolerance=1e-10, scale=1.0, seed=0):
    """A linear ODE of three numbers and a linear head, with its matrix and weight."""
    generator = torch.Generator().manual_seed(seed)
    matrix = scale * torch.randn(3, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, dtype=torch.float64, generator=generator)
    model = linear(matrix, tolerance)
    if rising:
        model.ode.function = RisingField(matrix)
    model.head = ReadLinearly(weight)
    return model, matrix, weight


def closed_form(matrix, weight, clean, moved):
    """The shares of h(0) and of all that the dynamics add, for h' = w(t) A h, w of integral one.

    With d' = s w(t) A d and d(0) = s d0, all of them powers of one matrix, the adjoint times A d is
    the same at all times but for w: a part has the share of w that it has.
    """
    d0, start, dynamics = (moved - clean).flatten(1), 0, 0
    abscissas, weights = np.polynomial.legendre.leggauss(40)
    for s, own in zip((1 + abscissas) / 2, weights / 2, strict=True):
        flow = torch.matrix_exp(s * matrix)
        start = start + own * d0 @ flow.T @ weight
        dynamics = dynamics + own * s * d0 @ (matrix @ flow).T @ weight
    with torch.no_grad():
        sign = 2 - 4 * ((clean.flatten(1) @ torch.matrix_exp(matrix).T @ weight) > 0).double()
    return sign * start, sign * dynamics


@pytest.mark.parametrize("rising", [False, True])
def test_a_linear_ode_has_shares_in_closed_form(rising):
    model, matrix, weight = linear_model(rising)
    clean, moved = pairs(5, channels=3, side=1)
    ends = (0.0, 0.1, 0.35, 0.8, 1.0)
    found = shared(model, clean, moved, ends)
    start, dynamics = closed_form(matrix, weight, clean, moved)
    done = np.array(ends) ** (3 if rising else 1)
    torch.testing.assert_close(found.start, start, rtol=0, atol=1e-8)
    expected = dynamics[:, None] * torch.from_numpy(np.diff(done))
    torch.testing.assert_close(found.parts, expected, rtol=0, atol=1e-6)
    assert dynamics.abs().min() > 0.01
    assert found.error.abs().max() < 1e-8


def test_contraction_has_negative_shares():
    """h' = -h: the share of the whole interval is -d0 times the integral of s exp(-s)."""
    model = linear(-torch.eye(3, dtype=torch.float64), 1e-10)
    model.head = ReadLinearly(torch.ones(3, dtype=torch.float64))
    clean = torch.full((1, 3, 1, 1), -2.0, dtype=torch.float64)
    found = shared(model, clean, clean + 1)
    whole = 6 * (1 - 2 / math.e)
    torch.testing.assert_close(found.parts, torch.full_like(found.parts, -whole / 10))
    torch.testing.assert_close(found.start, torch.full_like(found.start, 6 * (1 - 1 / math.e)))


@pytest.mark.parametrize(("growth", "most"), [(4, False), (5, True), (20, True)])
def test_dynamics_have_most_of_the_loss_from_a_growth_of_five_on(growth, most):
    """With d' = s ln(g) d, h(0) has the integral of g^s: without it, nothing would grow."""
    model = linear(math.log(growth) * torch.eye(3, dtype=torch.float64), 1e-10)
    model.head = ReadLinearly(torch.ones(3, dtype=torch.float64))
    clean = torch.full((1, 3, 1, 1), -2.0, dtype=torch.float64)
    found = shared(model, clean, clean + 0.1)
    fraction = float(found.parts.sum() / found.loss)
    assert fraction == pytest.approx(1 - (1 - 1 / growth) / math.log(growth), rel=1e-6)
    assert (fraction > 0.5) == most


def test_distances_do_not_say_where_a_decision_is_lost():
    """In a linear ODE the adjoint times the difference is the loss at all times."""
    model, _, weight = linear_model(rising=True)
    clean, moved = pairs(1, channels=3, side=1)
    times = (0.0, 0.3, 0.6, 0.9)
    with torch.no_grad():
        before, after = (model.ode.solve(x, (*times, 1.0)).states for x in (clean, moved))
    loss = ((after - before)[-1].flatten(1) @ weight)[0]
    products, sizes = [], []
    for t, difference, state in zip(times, after - before, before, strict=False):
        state = state.requires_grad_()
        value = (model.ode.solve(state, (t, 1.0)).states[-1].flatten(1) @ weight).sum()
        (adjoint,) = torch.autograd.grad(value, state)
        products.append((adjoint * difference).sum())
        sizes.append(difference.norm())
    torch.testing.assert_close(torch.stack(products), loss.expand(4), rtol=1e-7, atol=0)
    assert max(sizes) > 1.1 * min(sizes)


class LinearBlock(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, h):
        return h + (h.flatten(1) @ self.matrix.T).view_as(h)


def test_of_a_game_linear_in_each_player_they_are_shapley_values():
    """Owen 1972: of a multilinear game, the integral along the diagonal is the Shapley value."""
    spec = Spec(3, 2, (0.0,) * 3, (1.0,) * 3, "convolution", "residual", filters=3, blocks=4)
    model = Classifier(spec).double().eval()
    model.downsampling = nn.Identity()
    generator = torch.Generator().manual_seed(2)
    matrices = torch.randn(4, 3, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(3, dtype=torch.float64, generator=generator)
    for number, matrix in enumerate(matrices):
        model.body[number] = LinearBlock(matrix)
    model.head = ReadLinearly(weight)
    clean, moved = pairs(1, channels=3, side=1)
    with torch.no_grad():
        sign = -1 if model(clean).argmax() == 1 else 1

    def value(players):
        difference = (moved - clean).flatten() * (0 in players)
        for number, matrix in enumerate(matrices):
            difference = difference + matrix @ difference * (1 + number in players)
        return sign * 2 * float(difference @ weight)

    expected = np.zeros(5)
    for order in permutations(range(5)):
        for place, player in enumerate(order):
            expected[player] += value(order[: place + 1]) - value(order[:place])
    found = shared(model, clean, moved, tuple(k / 4 for k in range(5)))
    everyone = np.concatenate([found.start, found.parts[0]])
    np.testing.assert_allclose(everyone, expected / math.factorial(5), rtol=1e-12)


class SmoothField(nn.Module):
    """h' = tanh of a convolution of h; solvers agree on gradients, too, where f has no kinks."""

    def __init__(self):
        super().__init__()
        self.map = nn.Conv2d(8, 8, 3, padding=1).double()

    def forward(self, t, h):
        return torch.tanh(spread((1 + t) ** 2 * torch.ones(len(h)), h) * self.map(h))

    def bind(self, like):
        return self


def test_they_are_those_of_torchdiffeq_and_plain_autograd():
    """The system as it is written down, image by image, part by part."""
    model, (clean, moved) = network(tolerance=1e-8), pairs(2)
    model.ode.function = SmoothField()
    ends, quadrature = (0.0, 0.2, 0.5, 1.0), 3
    found = shared(model, clean, moved, ends, quadrature=quadrature)
    function = model.ode.function
    abscissas, weights = np.polynomial.legendre.leggauss(quadrature)
    for image in range(2):
        one, other = clean[image : image + 1], moved[image : image + 1]
        decided = model(one).argmax(1)
        expected = torch.zeros(4, dtype=torch.float64)
        for s, own in zip((1 + abscissas) / 2, weights / 2, strict=True):
            alpha = torch.full((4,), s, dtype=torch.float64, requires_grad=True)
            c, p = model.embed(one).detach(), model.embed(other).detach()
            state = torch.stack([c, c + alpha[0] * (p - c)])
            for k, times in enumerate(pairwise(ends)):

                def slopes(t, both, k=k, alpha=alpha):
                    c, p = (function(t, h) for h in both)
                    return torch.stack([c, c + alpha[1 + k] * (p - c)])

                state = odeint(slopes, state, torch.tensor(times).double(), rtol=1e-8, atol=1e-8)[1]
            value = -margins(model.head(state[1])[None], decided).sum()
            expected += own * torch.autograd.grad(value, alpha)[0]
        assert expected.abs().min() > 0.01
        own_shares = torch.cat([found.start[image : image + 1], found.parts[image]])
        torch.testing.assert_close(own_shares, expected, rtol=1e-5, atol=1e-5)


def zeros_and_ones(n=2):
    clean = torch.zeros(n, 1, 2, 2, dtype=torch.float64)
    return clean, clean + 1


@pytest.mark.parametrize("window", [(0.3, 0.5), (0.0, 0.2), (0.4, 0.9), (0.33, 0.47)])
def test_a_planted_interval_has_the_shares(window):
    """The loss is 2 alpha_0 times the mean alpha of the window: half is of h(0), half of that."""
    found = shared(cued(*window).at(tolerance=1e-9), *zeros_and_ones(1), quadrature=2)
    start, end = window
    overlap = np.clip(np.minimum(end, TENTHS[1:]) - np.maximum(start, TENTHS[:-1]), 0, None)
    np.testing.assert_allclose(found.parts, [overlap / (end - start)], atol=2e-3)
    np.testing.assert_allclose(found.start, 1, atol=1e-3)
    np.testing.assert_allclose(found.loss, 2, atol=1e-3)


def test_what_is_lost_before_the_dynamics_is_of_the_start():
    model = cued(0.3, 0.5)
    model.head = ReadLinearly(torch.tensor([1.0] * 4 + [0.0] * 8, dtype=torch.float64))
    clean, moved = zeros_and_ones()
    found = shared(model, clean - 0.1, moved)
    np.testing.assert_allclose(found.start, 2 * 4 * 1.1, rtol=1e-12)
    assert (found.parts == 0).all()


@pytest.mark.parametrize("number", [0, 2, 4])
def test_a_planted_block_has_the_shares(number):
    found = shared(cued_blocks(number, 5), *zeros_and_ones(), tuple(k / 5 for k in range(6)))
    expected = np.zeros((2, 5))
    expected[:, number] = 1
    np.testing.assert_allclose(found.parts, expected, atol=1e-12)
    np.testing.assert_allclose(found.start, 1, rtol=1e-12)


FIXED = [{"method": name, "steps": 3} for name in TABLEAUS]
ADAPTIVE = [
    {"method": name, "tolerance": tau}
    for name, tableau in TABLEAUS.items()
    if tableau.error
    for tau in (10.0, 0.01)
]


@pytest.mark.parametrize("settings", [*FIXED, *ADAPTIVE], ids=str)
def test_the_steps_of_the_solver_are_repeated(settings):
    model, (images, _) = network(**settings), pairs()
    decided = torch.zeros(4, dtype=torch.int64)
    solved = solve_margins(model, images, decided)
    with torch.no_grad():
        steps = Steps.of(model, solved.start, solved.nodes)
        logits = model.head(steps.run(solved.start).states[-1])
        torch.testing.assert_close(logits, model(images), rtol=1e-11, atol=1e-11)
    if "tolerance" in settings:
        assert (steps.nodes[:, -1] > 1).any()


@pytest.mark.parametrize("settings", [*FIXED, *ADAPTIVE], ids=str)
def test_shares_sum_to_the_loss_on_these_steps(settings):
    """Of a smooth game the quadrature has no error, whatever that of the solver."""
    model, _, _ = linear_model(rising=True)
    model = model.at(**{"steps": None, **settings})
    clean, moved = pairs(5, channels=3, side=1)
    found = shared(model, clean, moved)
    with torch.no_grad():
        decided = model(clean).argmax(1)
        solved = solve_margins(model, moved, decided)
        still = Steps.of(model, clean, solved.nodes).run(clean).states[-1]
        loss = margins(model.head(still)[None], decided)[:, 0] - solved.margin
    torch.testing.assert_close(found.start + found.parts.sum(1), loss, rtol=1e-10, atol=1e-10)
    if "steps" in settings:
        assert found.error.abs().max() < 1e-10


@settings(max_examples=40)
@given(
    st.integers(0, 1000),
    st.floats(0.1, 1.5),
    st.lists(st.floats(0.01, 0.99), max_size=6, unique=True),
    st.booleans(),
)
def test_shares_are_complete(seed, scale, inner, rising):
    model, _, _ = linear_model(rising, scale=scale, seed=seed)
    clean, moved = pairs(3, channels=3, side=1)
    model = model.at(method="rk4", steps=4)
    found = shared(model, clean, moved, (0.0, *sorted(inner), 1.0))
    assert (found.error.abs() <= 1e-11 * (1 + found.loss.abs())).all()


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_the_quadrature_converges(body):
    model, (clean, moved) = network(body, tolerance=1e-3), pairs(6)
    ends = tuple(k / 3 for k in range(4))
    coarse, fine = (shared(model, clean, moved, ends, quadrature=q) for q in (2, 64))
    assert fine.error.abs().mean() < coarse.error.abs().mean() / 10


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_what_is_not_perturbed_has_shares_of_zero(body):
    model, (clean, moved) = network(body, torch.float32), pairs(4, torch.float32)
    moved[1] = clean[1]
    decided = torch.zeros(4, dtype=torch.int64)
    still = solve_margins(model, clean, decided)
    with OtherRounding():
        changed = solve_margins(model, moved, decided)
        found = shares(model, still, changed, decided, tuple(k / 3 for k in range(4)))
    for values in (found.start, found.parts, found.loss, found.error):
        assert (values[1] == 0).all()
        assert (values[[0, 2, 3]] != 0).all()


def test_a_failed_solve_has_no_shares():
    model, (clean, moved) = network(tolerance=1e-6), pairs()
    with torch.no_grad():
        model(torch.cat([clean, moved]))
        rows = torch.stack(model.nfe.split(4)).amax(0)
    # Six evaluations a step of dopri5: the most expensive images alone fail.
    model = model.at(max_steps=int((rows.max() - 2) // 6) - 1)
    found = shared(model, clean, moved)
    failed = found.loss.isnan()
    assert 0 < failed.sum() < 4
    assert torch.equal(found.start.isnan(), failed)
    assert torch.equal(found.parts.isnan(), failed[:, None].expand(-1, 10))


def test_where_every_solve_fails_there_are_no_shares():
    found = shared(network(tolerance=1e-6).at(max_steps=1), *pairs())
    assert found.start.isnan().all()
    assert found.parts.isnan().all()


@pytest.mark.parametrize("body", ["ode", "residual"])
@pytest.mark.parametrize(("method", "tolerance"), [("dopri5", 1e-5), ("adaptive_heun", 1e-2)])
def test_shares_depend_neither_on_the_batch_nor_on_the_memory(body, method, tolerance, monkeypatch):
    model = network(body, tolerance=tolerance, method=method)
    clean, moved = pairs(6)
    # The last end but one lies within the last step.
    ends = (0.0, 0.5, 0.99, 1.0) if body == "ode" else tuple(k / 3 for k in range(4))
    together = shared(model, clean, moved, ends, quadrature=3)
    if body == "ode":
        assert len(set(map(len, solve_margins(model, moved, torch.zeros(6).long()).nodes))) > 1
    monkeypatch.setattr(module, "_GRAPH_BYTES", 1)
    alone = [
        shared(model, clean[i : i + 1], moved[i : i + 1], ends, quadrature=3) for i in range(6)
    ]
    for name in ("start", "parts", "loss"):
        found = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(found, getattr(together, name), rtol=1e-8, atol=1e-9)
    parts = shared(model, clean, moved, ends, quadrature=3).parts
    torch.testing.assert_close(parts, together.parts, rtol=1e-8, atol=1e-9)
