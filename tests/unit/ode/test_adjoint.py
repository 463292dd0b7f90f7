"""The adjoint of any right-hand side against torchdiffeq's `odeint_adjoint` at batch 1."""

import functools

import pytest
import torch
import torchdiffeq
from torch import Tensor, nn

from node_robustness.ode.adjoint import AdjointSettings, with_adjoint_gradient
from node_robustness.ode.products import row_products
from node_robustness.ode.rows import Way, rowwise
from node_robustness.ode.solve import Status, solve_parts
from node_robustness.ode.tableaus import TABLEAUS

pytestmark = pytest.mark.numerical

ADAPTIVE = sorted(name for name, tableau in TABLEAUS.items() if tableau.error)


class Flow(nn.Module):
    """Two coupled parts, a parameter that is not used, and a count of the calls."""

    def __init__(self, seed: int = 0, scale: float = 1.5) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(5, 12), nn.Linear(12, 4)
        self.unused = nn.Parameter(torch.ones(3))
        self.scale, self.calls = scale, 0
        self.double()

    def forward(self, t: Tensor, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.calls += 1
        y, z = parts
        t = t * torch.ones_like(y[:, :1])
        slope = self.scale * self.second(torch.tanh(self.first(torch.cat([y, t], 1))))
        return slope, y.sin().sum(1, keepdim=True) * z


def start(n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (
        torch.randn(n, 4, generator=generator, dtype=torch.float64),
        torch.randn(n, 1, generator=generator, dtype=torch.float64),
    )


def weights(times: int, n: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(
        torch.randn(times, n, size, generator=generator, dtype=torch.float64) for size in (4, 1)
    )


def theirs(flow: Flow, times: list[float], rtol: float, atol: float, **settings):
    """Gradients for the parts and, summed, for parameters; and evaluations backwards."""
    parameters = [p for p in flow.parameters() if p.requires_grad]
    rows, sums, evaluations = [], [0.0] * len(parameters), []
    for row in range(5):
        parts = tuple(part[row : row + 1].requires_grad_() for part in start())
        grid = torch.tensor(times, dtype=torch.float64)
        solved = torchdiffeq.odeint_adjoint(flow, parts, grid, rtol=rtol, atol=atol, **settings)
        of_row = (part[:, row : row + 1] for part in weights(len(times)))
        loss = sum((part * w).sum() for part, w in zip(solved, of_row, strict=True))
        flow.calls = 0
        found = torch.autograd.grad(loss, [*parts, *parameters], allow_unused=True)
        evaluations.append(flow.calls)
        rows.append(found[:2])
        sums = [total + part for total, part in zip(sums, found[2:], strict=True)]
    return [torch.cat(column) for column in zip(*rows, strict=True)], sums, evaluations


def ours(flow: Flow, times: list[float], way: Way, settings: AdjointSettings, nodes=None):
    parameters = [p for p in flow.parameters() if p.requires_grad]
    parts = tuple(part.requires_grad_() for part in start())
    with torch.no_grad():
        found = solve_parts(
            rowwise(flow, way),
            parts,
            times,
            tolerance=settings.tolerance,
            ratio=settings.ratio,
            method=settings.method,
            steps=settings.steps,
            nodes=nodes,
        )
    noted = []
    solved = with_adjoint_gradient(
        parts,
        found.parts,
        times,
        row_products(flow, way, parameters),
        settings,
        lambda evaluations, status: noted.append((evaluations, status)),
        parameters,
    )
    loss = sum((a * w).sum() for a, w in zip(solved, weights(len(times)), strict=True))
    gradients = torch.autograd.grad(loss, [*parts, *parameters])
    ((evaluations, status),) = noted
    assert status.tolist() == [Status.SUCCESS] * 5
    return gradients[:2], gradients[2:], evaluations.tolist()


def agree(found, expected) -> None:
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert found[2] == expected[2]


TIMES = [[0.0, 1.0], [2.0, -1.0], [0.0, 0.2, 0.7, 1.5], [1.0, 0.9, 0.0]]


@pytest.mark.parametrize("in_norm", [True, False])
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("way", Way)
def test_equals_torchdiffeq_at_batch_one(way, times, in_norm):
    settings = AdjointSettings(1e-3, "dopri5", None, 1000, in_norm, (1.0, 0.1))
    agree(ours(Flow(), times, way, settings), solved_by_torchdiffeq(tuple(times), in_norm))


@functools.cache
def solved_by_torchdiffeq(times, in_norm):
    options = {} if in_norm else {"adjoint_options": {"norm": "seminorm"}}
    return theirs(Flow(), list(times), 1e-3, 1e-4, **options)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_every_adaptive_method(method):
    expected = theirs(Flow(), [0.0, 0.5, 1.0], 1e-2, 1e-2, method=method)
    settings = AdjointSettings(1e-2, method, None, 1000, True)
    agree(ours(Flow(), [0.0, 0.5, 1.0], Way.BROADCAST, settings), expected)


@pytest.mark.parametrize("method", sorted(TABLEAUS.keys() - set(ADAPTIVE)))
def test_fixed_steps_between_output_times(method):
    """torchdiffeq takes one step from one output time to the next; or steps that are given."""
    times = [0.0, 0.5, 1.25]
    expected = theirs(Flow(), times, 1e-2, 1e-2, method=method)
    nodes = [torch.tensor(times, dtype=torch.float64)] * 5
    settings = AdjointSettings(None, method, 1, 1000, True)
    agree(ours(Flow(), times, Way.BROADCAST, settings, nodes), expected)
    given = AdjointSettings(
        None, method, None, 1000, True, nodes=lambda *span: torch.tensor(span).double()
    )
    agree(ours(Flow(), times, Way.BROADCAST, given, nodes), expected)


@pytest.mark.parametrize("numbers", [1, 300])
def test_integrals_of_a_few_samples_at_a_time_are_the_same(numbers, monkeypatch):
    """Of one and of two samples; the five samples step differently."""
    settings = AdjointSettings(1e-3, "dopri5", None, 1000, True)
    expected = ours(Flow(), [0.0, 0.2, 1.5], Way.BROADCAST, settings)
    monkeypatch.setattr("node_robustness.ode.solve._NUMBERS", numbers)
    found = ours(Flow(), [0.0, 0.2, 1.5], Way.BROADCAST, settings)
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        assert torch.equal(one, other)
    assert found[2] == expected[2]
    assert len(set(found[2])) > 1


def test_frozen_parameters_are_left_out():
    flow, frozen = Flow(), Flow()
    for each in (flow, frozen):
        each.first.requires_grad_(False)
    settings = AdjointSettings(1e-3, "dopri5", None, 1000, True)
    expected = theirs(flow, [0.0, 1.0], 1e-3, 1e-3)
    agree(ours(frozen, [0.0, 1.0], Way.VMAP, settings), expected)


@pytest.mark.parametrize("holder", ["closure", "tensor"])
def test_parameters_that_no_module_holds_take_a_loop(holder):
    """A closure over a module is vectorised, one over a tensor is not; both are right."""
    flow = Flow()
    matrix = torch.eye(4, dtype=torch.float64).requires_grad_()
    calls = []

    def function(t: Tensor, parts: tuple[Tensor, Tensor]):
        calls.append(len(parts[0]))
        y, z = flow(t, parts)
        return (y @ matrix, z) if holder == "tensor" else (y, z)

    wanted = [*flow.first.parameters(), *([matrix] if holder == "tensor" else [])]
    t, state, along = torch.linspace(0, 1, 6).double(), start(6), start(6)
    products = row_products(function, Way.BROADCAST, wanted)
    loop = row_products(function, Way.ONE_BY_ONE, wanted)
    products.evaluate(t, state, along)
    calls.clear()
    found = products.evaluate(t, state, along)
    assert len(calls) == (6 if holder == "tensor" else 1)
    expected = loop.evaluate(t, state, along)
    for one, other in zip((*found[0], *found[1]), (*expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_vectorised_product_that_differs_is_not_used():
    """The weight is read where `functional_call` does not put it: its product would be zero."""
    flow = Flow()
    weight = flow.first.weight

    def function(t: Tensor, parts: tuple[Tensor, Tensor]):
        y, z = flow(t, parts)
        return y * weight.sum(), z

    t, state, along = torch.linspace(0, 1, 6).double(), start(6), start(6)
    found = row_products(function, Way.BROADCAST, [weight]).evaluate(t, state, along)
    expected = row_products(function, Way.ONE_BY_ONE, [weight]).evaluate(t, state, along)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_sample_that_fails_does_not_take_down_the_others():
    """One failed forwards, one fails backwards after some output times, one has no gradient."""

    def function(t: Tensor, parts: tuple[Tensor]):
        (y,) = parts
        # Backwards, the adjoint of the second sample grows without bound near t = 0.5.
        rate = torch.where(y[:, 1:] == 1, -1 / (t - 0.5).clamp(min=0) ** 2, torch.ones_like(t))
        return (torch.cat([rate * y[:, :1], torch.zeros_like(y[:, 1:])], 1),)

    solved = torch.tensor([[[1.0, 0]], [[1.0, 1]], [[1.0, 0]], [[1.0, 0]]], dtype=torch.float64)
    solved = solved.transpose(0, 1).repeat(4, 1, 1)
    solved[1:, 2] = torch.nan
    noted = []
    initial = solved[0].clone().requires_grad_()
    (out,) = with_adjoint_gradient(
        (initial,),
        (solved,),
        (0.0, 0.3, 0.8, 1.0),
        row_products(function, Way.BROADCAST),
        AdjointSettings(1e-3, "dopri5", None, 100, True),
        lambda *found: noted.append(found),
    )
    out[1:, :3].nan_to_num().sum().backward()
    ((evaluations, status),) = noted
    assert status[0] == status[2] == status[3] == Status.SUCCESS
    assert status[1] != Status.SUCCESS
    assert (evaluations > 0).tolist() == [True, True, False, False]
    assert torch.isfinite(initial.grad[0]).all()
    assert torch.isnan(initial.grad[1:3]).all()
    assert not initial.grad[3].any()


@pytest.mark.parametrize("last", [nn.ReLU(inplace=True), nn.Dropout(0.5)])
def test_rounding_and_dropout_do_not_prevent_vectorisation(last):
    """Of the product for a bias that a normalisation removes there is rounding alone."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(4, 4), last)
    calls = []

    def function(t: Tensor, parts: tuple[Tensor]):
        calls.append(len(parts[0]))
        return (t * net(parts[0]),)

    products = row_products(function, Way.BROADCAST, list(net.parameters()))
    arguments = torch.linspace(0.1, 1, 6), (torch.randn(6, 4, 5, 5),), (torch.randn(6, 4, 5, 5),)
    products.evaluate(*arguments)
    calls.clear()
    products.evaluate(*arguments)
    assert len(calls) == 1


def test_one_sample_alone_has_the_products_of_a_loop():
    """Fewer samples than there are attempts to check the vectorised products."""
    flow = Flow()
    t, state, along = torch.ones(1).double(), start(1), start(1)
    parameters = list(flow.parameters())
    found = row_products(flow, Way.BROADCAST, parameters).evaluate(t, state, along)
    expected = row_products(flow, Way.ONE_BY_ONE, parameters).evaluate(t, state, along)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
