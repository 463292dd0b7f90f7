"""The batched solver against torchdiffeq at batch 1, closed forms and finite differences."""

import math
from itertools import pairwise

import pytest
import torch
import torchdiffeq
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.profiler import profile

from node_robustness.ode.solve import Status, solve, solve_parts
from node_robustness.ode.tableaus import TABLEAUS

pytestmark = pytest.mark.numerical

ADAPTIVE = sorted(name for name, tableau in TABLEAUS.items() if tableau.error)
FIXED = sorted(TABLEAUS.keys() - set(ADAPTIVE))


class Network(nn.Module):
    """A smooth, time-dependent vector field that counts its evaluations."""

    def __init__(self, seed: int, size: int = 6, scale: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(size + 1, 16), nn.Linear(16, size)
        self.scale, self.evaluations = scale, 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += 1
        t = t.reshape(-1, 1).expand(len(y), 1)
        return self.scale * self.second(torch.tanh(self.scale * self.first(torch.cat([y, t], 1))))


def reference(field: Network, y: Tensor, times: list[float], tau: float, method: str, **options):
    """States [T, n, D] and NFE [n] by torchdiffeq, one sample at a time."""
    states, nfe = [], []
    grid = torch.tensor(times, dtype=torch.float64)
    for sample in y.split(1):
        field.evaluations = 0
        states.append(
            torchdiffeq.odeint(
                field, sample, grid, rtol=tau, atol=tau, method=method, options=options or None
            )
        )
        nfe.append(field.evaluations)
    return torch.cat(states, dim=1), torch.tensor(nfe)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    scale=st.floats(0.5, 5.0),
    exponent=st.floats(-6.0, 1.0),
    times=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=52, unique=True),
    backwards=st.booleans(),
)
def test_equals_torchdiffeq_at_batch_one(seed, scale, exponent, times, backwards):
    times = sorted(times, reverse=backwards)
    assume(min(abs(a - b) for a, b in pairwise(times)) >= 1e-6)
    field = Network(seed, scale=scale).double()
    y = torch.randn(4, 6, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(field, y, times, tolerance=10**exponent, max_steps=10**5)
        states, nfe = reference(field, y, times, 10**exponent, "dopri5")
    assert torch.equal(ours.nfe, nfe)
    assert torch.allclose(ours.states, states, rtol=1e-10, atol=1e-10)
    assert torch.equal(ours.nfe, 2 + 6 * (ours.accepted + ours.rejected))


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tau", [1e-4, 1e-1])
def test_every_adaptive_method_equals_torchdiffeq(method, tau):
    field, times = Network(3).double(), torch.linspace(0, 1, 51).tolist()
    y = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(field, y, times, tolerance=tau, method=method, max_steps=10**5)
        states, nfe = reference(field, y, times, tau, method)
    assert torch.equal(ours.nfe, nfe)
    assert torch.allclose(ours.states, states, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("times", [[0.0, 1.0], [1.0, 0.0], [0.0, 0.01, 0.5, 0.52, 0.53, 1.0]])
def test_fixed_steps_equal_torchdiffeq(method, steps, times):
    field = Network(19).double()
    y = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        ours = solve(field, y, times, method=method, steps=steps)
        states, nfe = reference(field, y, times, 1.0, method, step_size=1 / steps)
    assert torch.equal(ours.nfe, nfe)
    assert torch.allclose(ours.states, states, rtol=1e-10, atol=1e-10)
    assert ours.accepted.tolist() == [steps] * 5
    assert not ours.rejected.any()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", sorted(TABLEAUS))
def test_a_jump_of_the_dynamics_at_the_end_of_a_step(method, backwards):
    """Fixed steps evaluate the dynamics at their end exactly, adaptive ones just before it."""
    times = [1.0, 0.5, 0.0] if backwards else [0.0, 0.5, 1.0]
    y = torch.ones(2, 1, dtype=torch.float64)

    def field(t: Tensor, y: Tensor) -> Tensor:
        return torch.where(t.reshape(-1, 1) < 0.5, y, -3 * y)

    options = {"tolerance": 1e-3} if TABLEAUS[method].error else {"steps": 2}
    ours = solve(field, y, times, method=method, **options).states
    grid = torch.tensor(times, dtype=torch.float64)
    theirs = torchdiffeq.odeint(field, y, grid, rtol=1e-3, atol=1e-3, method=method)
    # Rounding moves adaptive steps, and the error of a step across the jump with it.
    close = 1e-7 if TABLEAUS[method].error else 1e-12
    torch.testing.assert_close(ours, theirs, rtol=close, atol=close)


@settings(max_examples=50, deadline=None)
@given(
    start=st.floats(-10.0, 10.0),
    length=st.floats(1e-3, 10.0),
    steps=st.integers(1, 100),
    backwards=st.booleans(),
)
def test_fixed_steps_end_at_the_last_time(start, length, steps, backwards):
    times = sorted([start, start + length], reverse=backwards)
    y = torch.ones(2, 1, dtype=torch.float64)
    found = solve(lambda t, y: 0 * y, y, times, method="euler", steps=steps, keep_nodes=True)
    for nodes in found.nodes:
        assert (nodes[0], nodes[-1], len(nodes)) == (*times, steps + 1)
    assert torch.equal(found.nfe, torch.full((2,), steps))


def test_fixed_steps_ignore_what_bounds_adaptive_ones():
    y = torch.ones(1, 1, dtype=torch.float64)
    found = solve(lambda t, y: -y, y, [0, 1], method="rk4", steps=50, tolerance=1e9, max_steps=3)
    assert found.status.item() == Status.SUCCESS
    assert found.nfe.item() == 200
    assert math.isclose(found.states[-1].item(), math.exp(-1), rel_tol=1e-8)


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_with_one_bad_sample(method):
    y = torch.tensor([[1.0], [1e30], [2.0]])
    found = solve(lambda t, y: -(y**3), y, [0.0, 0.2, 1.0], method=method, steps=10)
    alone = solve(lambda t, y: -(y**3), y[[0, 2]], [0.0, 0.2, 1.0], method=method, steps=10)
    assert found.status.tolist() == [Status.SUCCESS, Status.NONFINITE, Status.SUCCESS]
    assert torch.equal(found.states[:, [0, 2]], alone.states)
    assert torch.isnan(found.states[1:, 1]).all()


def test_float32_is_close_to_torchdiffeq(record_property):
    """States to rounding; NFE may differ where rounding flips an acceptance."""
    equal, taus = [], (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    for seed, tau in enumerate(taus):
        field = Network(seed, scale=1.0)
        y = torch.randn(32, 6)
        with torch.no_grad():
            ours = solve(field, y, [0.0, 1.0], tolerance=tau)
            states, nfe = reference(field, y, [0.0, 1.0], tau, "dopri5")
        equal.append((ours.nfe == nfe).float().mean().item())
        assert torch.allclose(ours.states, states, rtol=1e-4, atol=1e-4)
    record_property(
        "share of samples with equal NFE in float32", dict(zip(taus, equal, strict=True))
    )
    assert min(equal) >= 0.9


def test_a_joint_batch_is_something_else():
    """The reason for this solver: in torchdiffeq a result depends on the other samples."""
    field = Network(7, scale=3.0).double()
    y = torch.randn(16, 6, dtype=torch.float64)
    with torch.no_grad():
        joint = torchdiffeq.odeint(field, y, torch.tensor([0.0, 1.0]), rtol=0.1, atol=0.1)[-1]
        ours = solve(field, y, [0.0, 1.0], tolerance=0.1).states[-1]
    assert (joint - ours).abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 3, 7, 16])
def test_batch_size_and_order_do_not_matter(size):
    field = Network(11, scale=3.0).double()
    y = torch.randn(16, 6, dtype=torch.float64)
    order = torch.randperm(16)
    with torch.no_grad():
        whole = solve(field, y, [0.0, 0.5, 1.0], tolerance=1e-3, keep_nodes=True)
        parts = [
            solve(field, y[rows], [0.0, 0.5, 1.0], tolerance=1e-3, keep_nodes=True)
            for rows in order.split(size)
        ]
    back = torch.argsort(order)
    assert torch.allclose(
        torch.cat([p.states for p in parts], 1)[:, back], whole.states, rtol=1e-9, atol=1e-9
    )
    assert torch.equal(torch.cat([p.nfe for p in parts])[back], whole.nfe)
    nodes = [n for p in parts for n in p.nodes]
    assert all(
        torch.allclose(nodes[i], whole.nodes[j], rtol=1e-6) for i, j in enumerate(order.tolist())
    )


@pytest.mark.parametrize("method", sorted(TABLEAUS))
def test_order_of_convergence(method):
    """The error at the end of y' = y cos t falls with the step size to the power of the order."""
    y = torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        found = solve(lambda t, y: y * t.cos()[:, None], y, [0, 2], method=method, steps=steps)
        errors.append(abs(found.states[-1].item() - math.exp(math.sin(2))))
    assert abs(math.log2(errors[0] / errors[1]) - TABLEAUS[method].order) < 0.3


@pytest.mark.parametrize("method", sorted(TABLEAUS))
def test_order_of_the_dense_output(method):
    """Between the nodes: four for dopri5, else at most two."""
    y = torch.ones(1, 1, dtype=torch.float64)
    errors = []
    for steps in (20, 40):
        times = [0, *(2 / steps * (torch.arange(steps) + 0.37)).tolist(), 2]
        found = solve(lambda t, y: y * t.cos()[:, None], y, times, method=method, steps=steps)
        exact = torch.tensor(times, dtype=torch.float64).sin().exp()
        errors.append((found.states.flatten() - exact).abs().max().item())
    order = 4 if method == "dopri5" else min(TABLEAUS[method].order, 2)
    assert math.log2(errors[0] / errors[1]) > order - 0.3


@pytest.mark.parametrize("method", ADAPTIVE)
def test_adaptive_steps_grow_as_the_order_says(method):
    """The error of y' = -y falls with the tolerance, at the number of steps the order implies."""
    y, order = torch.ones(1, 1, dtype=torch.float64), TABLEAUS[method].order
    errors, steps = [], []
    for tau in (1e-3, 1e-7):
        found = solve(
            lambda t, y: -y, y, [0.0, 10.0], tolerance=tau, method=method, max_steps=10**6
        )
        errors.append(abs(found.states[-1].item() - math.exp(-10)) + 1e-16)
        steps.append(found.accepted.item())
    # The local error of a step is of the order of its size to the power `order`, so that a
    # tolerance 10^4 times smaller takes about 10^(4 / order) times more steps.
    growth = math.log(steps[1] / steps[0]) / math.log(1e4)
    assert 0.7 / order < growth < 1.4 / order
    assert errors[1] < errors[0] * 1e-2


@pytest.mark.parametrize("checkpoint", [False, True])
def test_work_in_closed_form_and_its_gradient_with_the_steps_held(checkpoint):
    """Of y' = -y by Heun's method, whose last stage is, as in torchdiffeq, the next first one."""
    tau, start = 1e-3, torch.tensor([[1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    keep = {"keep_nodes": True, "keep_work": True, "checkpoint": checkpoint}
    settings = {"tolerance": tau, "method": "adaptive_heun", **keep}
    found = solve(lambda t, y: -y, start, [0.0, 1.0], **settings)
    expected = []
    for nodes, y in zip(found.nodes, start.flatten(), strict=True):
        work, slope = torch.zeros((), dtype=torch.float64), -y
        for before, after in pairwise(nodes.tolist()):
            h = after - before
            last = -(y + h * slope)
            ratio = h * (last - slope) / 2 / (tau * (1 + y))  # the state before is the larger one
            work = work + min(1, (1 - before) / h) * ratio**0.5
            y, slope = y + h * (slope + last) / 2, last
        expected.append(work)
    torch.testing.assert_close(found.work, torch.stack(expected))
    assert ((found.work > 0) & (found.work < found.accepted)).all()
    gradients = (torch.autograd.grad(w, start)[0] for w in (found.work.sum(), sum(expected)))
    torch.testing.assert_close(*gradients)
    without = solve(lambda t, y: -y, start, [0.0, 1.0], **settings | {"keep_work": False})
    assert torch.equal(without.states, found.states)
    assert without.work.tolist() == [0, 0]


def test_every_output_time_is_interpolated():
    """y' = 4 t^3 + 1 has a quartic solution, which the dense output of dopri5 reproduces."""
    y = torch.zeros(3, 2, dtype=torch.float64)
    times = torch.linspace(0, 1, 51, dtype=torch.float64)
    found = solve(
        lambda t, y: (4 * t**3 + 1)[:, None].expand_as(y), y, times.tolist(), tolerance=1e-3
    )
    assert torch.allclose(found.states[:, 0, 0], times**4 + times, atol=1e-6)
    assert torch.equal(found.states[0], y)


def test_nodes_cover_the_interval_and_grow():
    field = Network(13, scale=3.0)
    with torch.no_grad():
        found = solve(field, torch.randn(5, 6), [0.0, 1.0], tolerance=1e-4, keep_nodes=True)
    for nodes, accepted in zip(found.nodes, found.accepted.tolist(), strict=True):
        assert len(nodes) == accepted + 1
        assert nodes[0] == 0
        assert nodes[-1] >= 1
        assert (nodes[1:] > nodes[:-1]).all()


def test_every_sample_may_have_its_own_output_times():
    dynamics, state = Network(0).double(), torch.linspace(-1, 1, 18).double().view(3, 6)
    own = torch.tensor([[0, 0.1, 0.7, 1], [0, 0.5, 0.5, 1], [0, 0, 1, 1]], dtype=torch.float64)
    with_own = solve(dynamics, state, own, tolerance=1e-4, keep_nodes=True)
    for sample, times in enumerate(own):
        for position, time in enumerate(times.tolist()):
            common = (0.0, time, 1.0) if 0 < time < 1 else (0.0, 1.0)
            expected = solve(dynamics, state, common, tolerance=1e-4)
            index = common.index(time)
            found = with_own.states[position, sample]
            torch.testing.assert_close(found, expected.states[index, sample], rtol=0, atol=1e-14)
            assert expected.nfe[sample] == with_own.nfe[sample]


def test_states_at_the_nodes():
    dynamics, state = Network(0).double(), torch.linspace(-1, 1, 18).double().view(3, 6)
    found = solve(
        dynamics, state, (0.0, 1.0), tolerance=1e-5, keep_nodes=True, keep_node_states=True
    )
    for sample, (nodes, states) in enumerate(zip(found.nodes, found.node_states, strict=True)):
        assert len(nodes) == len(states) == found.accepted[sample] + 1
        inside = tuple(nodes[nodes < 1].tolist())
        expected = solve(dynamics, state, (*inside, 1.0), tolerance=1e-5).states[:-1, sample]
        torch.testing.assert_close(states[: len(inside)], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "times",
    [
        [[0.0, 0.5, 1.0]],
        [[0.0, 0.5, 1.0], [0.0, 0.5, 0.9]],
        [[0.0, 0.6, 1.0], [0.0, -0.5, 1.0]],
        [[0.0], [0.0]],
    ],
)
def test_bad_output_times_of_samples(times):
    with pytest.raises(ValueError, match="times"):
        solve(lambda t, y: -y, torch.ones(2, 1), torch.tensor(times), tolerance=1e-3)


def test_one_bad_sample_does_not_take_down_its_batch():
    """Sample 1 blows up in finite time, sample 2 turns into NaN; the others are as if alone."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        kind = y[:, 1:]
        slope = torch.where(kind == 1, 50 * y[:, :1] ** 2, -y[:, :1])
        slope = torch.where((kind == 2) & (t[:, None] > 0.5), torch.nan, slope)
        return torch.cat([slope, torch.zeros_like(kind)], 1)

    y = torch.tensor([[1.0, 0], [1, 1], [1, 2], [2, 0]], dtype=torch.float64)
    found = solve(field, y, [0.0, 0.25, 1.0], tolerance=1e-6, max_steps=500)
    alone = solve(field, y[[0, 3]], [0.0, 0.25, 1.0], tolerance=1e-6)
    assert found.status[0] == found.status[3] == Status.SUCCESS
    assert found.status[1] in (Status.MAX_STEPS, Status.UNDERFLOW, Status.NONFINITE)
    assert found.status[2] == Status.NONFINITE
    assert torch.equal(found.states[:, [0, 3]], alone.states)
    assert torch.isnan(found.states[-1, [1, 2]]).all()
    assert torch.isfinite(found.states[1, 2]).all()  # reached before it failed


def test_max_steps_is_reported():
    found = solve(lambda t, y: -y, torch.ones(1, 1), [0.0, 100.0], tolerance=1e-8, max_steps=5)
    assert found.status.item() == Status.MAX_STEPS
    assert found.accepted.item() + found.rejected.item() == 5


def test_direct_gradient_is_the_derivative_with_frozen_steps():
    """Against central differences of the same steps replayed, in float64."""
    field = Network(17).double()
    y = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(3, 6, dtype=torch.float64)
    found = solve(field, y, [0.0, 1.0], tolerance=1e-2, keep_nodes=True)
    (gradient,) = torch.autograd.grad((weights * found.states[-1]).sum(), y)
    direction = torch.randn_like(gradient)
    numeric = (
        replay(field, y.detach() + 1e-6 * direction, found.nodes, weights)
        - replay(field, y.detach() - 1e-6 * direction, found.nodes, weights)
    ) / 2e-6
    assert math.isclose((gradient * direction).sum().item(), numeric, rel_tol=1e-6)


@pytest.mark.parametrize("solver", [{"tolerance": 1e-3}, {"method": "rk4", "steps": 6}])
def test_checkpointing_changes_the_memory_and_not_the_gradient(solver):
    field = Network(23, scale=3.0).double()
    y = torch.randn(64, 6, dtype=torch.float64, requires_grad=True)
    wanted = [y, *field.parameters()]

    def run(checkpoint: bool) -> tuple[Tensor, list[Tensor], int]:
        with profile(profile_memory=True) as memory:
            found = solve(field, y, [0.0, 0.4, 1.0], **solver, checkpoint=checkpoint)
        gradients = torch.autograd.grad(found.states.square().sum(), wanted)
        # What the forward pass allocated and did not free: the graph (and the result).
        kept = sum(event.self_cpu_memory_usage for event in memory.key_averages())
        return found.states, list(gradients), kept

    states, gradients, kept = run(False)
    states_again, gradients_again, kept_again = run(True)
    assert torch.equal(states, states_again)
    assert all(torch.equal(a, b) for a, b in zip(gradients, gradients_again, strict=True))
    assert 0 < kept_again < kept / 2


def test_checkpointing_without_gradients_is_no_more_work():
    field = Network(23).double()
    with torch.no_grad():
        found = solve(field, torch.randn(3, 6).double(), [0, 1], tolerance=0.1, checkpoint=True)
    assert field.evaluations <= found.nfe.max()
    assert not found.states.requires_grad


def test_steps_that_all_samples_reject_are_not_in_the_graph():
    """The backward pass evaluates the dynamics once for each stage that the result depends on."""
    visits = 0

    def field(t: Tensor, y: Tensor) -> Tensor:
        def visit(gradient: Tensor) -> None:
            nonlocal visits
            visits += 1

        slope = -1000 * (y - t.cos()[:, None])
        if slope.requires_grad:
            slope.register_hook(visit)
        return slope

    y = torch.full((1, 1), 0.5, dtype=torch.float64, requires_grad=True)
    found = solve(field, y, [0.0, 0.1], tolerance=1e-2)
    found.states[-1].sum().backward()
    assert found.rejected.item() > 0
    assert visits <= 1 + 6 * found.accepted.item()


def replay(field: Network, y: Tensor, nodes: list[Tensor], weights: Tensor) -> float:
    """The weighted sum of y(1) when each sample takes the given steps, by plain Runge-Kutta."""
    tableau, total = TABLEAUS["dopri5"], 0.0
    with torch.no_grad():
        for sample, times, weight in zip(y.split(1), nodes, weights, strict=True):
            state = sample
            for start, end in pairwise(times):
                step = end - start
                stages = [field(start[None], state)]
                for alpha, beta in zip(tableau.alpha, tableau.beta, strict=True):
                    value = state + step * sum(b * k for b, k in zip(beta, stages, strict=True))
                    stages.append(field((start + alpha * step)[None], value))
                old, state = state, value
            middle = old + step * sum(c * k for c, k in zip(tableau.middle, stages, strict=True))
            x = (1 - start) / step
            total += (weight * quartic(x, old, state, middle, stages[0], stages[-1], step)).sum()
    return float(total)


def quartic(x, y0, y1, middle, f0, f1, step):
    """The polynomial through three states and two slopes, by solving for its coefficients."""
    rows = torch.tensor(
        [[1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0.5, 0.25, 0.125, 0.0625], [0, 1, 0, 0, 0],
         [0, 1, 2, 3, 4]], dtype=torch.float64,
    )  # fmt: skip
    values = torch.cat([y0, y1, middle, step * f0, step * f1])
    coefficients = torch.linalg.solve(rows, values)
    return (x ** torch.arange(5)) @ coefficients


TAUS = torch.tensor([1e-5, 10.0, 0.1, 1e-3, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_tolerance_for_each_sample_is_a_solve_for_each(method, dtype):
    """Up to the last bits of vector operations, which depend on neighbours."""

    def field(t: Tensor, y: Tensor) -> Tensor:
        rate, y = y.split(1, dim=1)
        return torch.cat([0 * rate, rate * (t[:, None] ** 2 - y)], dim=1)

    y = torch.tensor([[1, 1], [30, -1], [10, 2], [3, 0.5], [20, 1]], dtype=dtype)
    y.requires_grad_()
    options = {"method": method, "max_steps": 10**5, "keep_nodes": True}
    close = dict.fromkeys(("rtol", "atol"), 1e-12 if dtype == torch.float64 else 1e-6)
    together = solve(field, y, [0, 0.4, 1], tolerance=TAUS, **options)
    assert len(set(together.accepted.tolist())) > 2
    for row, tau in enumerate(TAUS.tolist()):
        alone = solve(field, y[row : row + 1], [0, 0.4, 1], tolerance=tau, **options)
        torch.testing.assert_close(together.states[:, row], alone.states[:, 0], **close)
        torch.testing.assert_close(together.nodes[row], alone.nodes[0], **close)
        assert together.nfe[row] == alone.nfe[0]
        (gradient,) = torch.autograd.grad(together.states[:, row].sum(), y, retain_graph=True)
        torch.testing.assert_close(gradient, torch.autograd.grad(alone.states.sum(), y)[0], **close)


def test_one_tolerance_for_all_is_that_for_each():
    field = Network(31, scale=3.0).double()
    y = torch.randn(5, 6, dtype=torch.float64)
    with torch.no_grad():
        one = solve(field, y, [0.0, 1.0], tolerance=1e-3)
        each = solve(field, y, [0.0, 1.0], tolerance=torch.full((5,), 1e-3, dtype=torch.float64))
    assert torch.equal(one.states, each.states)
    assert torch.equal(one.nfe, each.nfe)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tau", [1.0, TAUS + 1e-4])
@pytest.mark.parametrize("ratio", [(1.0, 0.1), (0.0, 0.5), (0.5, 0.0)])
def test_relative_and_absolute_tolerances_of_their_own(method, tau, ratio):
    field = Network(43).double()
    y = torch.randn(5, 6, dtype=torch.float64)
    taus = torch.as_tensor(tau).expand(5).tolist()
    times = [0, 0.3, 1]
    with torch.no_grad():
        ours = solve(field, y, times, tolerance=tau, ratio=ratio, method=method, max_steps=10**5)
        for row, tau_of_row in enumerate(taus):
            field.evaluations = 0
            rtol, atol = (share * tau_of_row for share in ratio)
            grid = torch.tensor(times, dtype=torch.float64)
            theirs = torchdiffeq.odeint(
                field, y[row : row + 1], grid, rtol=rtol, atol=atol, method=method
            )
            assert ours.nfe[row] == field.evaluations
            torch.testing.assert_close(ours.states[:, [row]], theirs, rtol=1e-10, atol=1e-10)


def test_another_norm_controls_the_steps():
    """That of torchdiffeq for a tuple: the largest of the parts' root mean squares."""
    field = Network(47, scale=3.0).double()
    y = torch.randn(8, 6, dtype=torch.float64)

    def by_parts(error: Tensor) -> Tensor:
        squares = [part.square().mean(1) for part in error.split([1, 5], dim=1)]
        return torch.stack(squares).amax(0).sqrt()

    def of_tuple(t: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return field(t, torch.cat(parts, 1)).split([1, 5], dim=1)

    with torch.no_grad():
        ours = solve(field, y, [0.0, 1.0], tolerance=1e-4, norm=by_parts)
        apart = solve_parts(
            lambda t, parts: of_tuple(t, parts), y.split([1, 5], dim=1), [0, 1], tolerance=1e-4
        )
        usual = solve(field, y, [0.0, 1.0], tolerance=1e-4)
        theirs, nfe = [], []
        for sample in y.split(1):
            field.evaluations = 0
            parts = torchdiffeq.odeint(
                of_tuple,
                sample.split([1, 5], dim=1),
                torch.tensor([0.0, 1.0]),
                rtol=1e-4,
                atol=1e-4,
            )
            theirs.append(torch.cat(parts, 2))
            nfe.append(field.evaluations)
    torch.testing.assert_close(ours.states, torch.cat(theirs, 1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.cat(apart.parts, 2), ours.states, rtol=1e-10, atol=1e-10)
    assert ours.nfe.tolist() == apart.nfe.tolist() == nfe
    assert ours.nfe.tolist() != usual.nfe.tolist()


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_the_steps_of_a_solution_can_be_taken_again(method, backwards):
    """States and gradients are those of the adaptive solve, which holds its steps constant."""
    field = Network(37, scale=5.0).double()
    y = torch.randn(8, 6, dtype=torch.float64, requires_grad=True)
    times = [1.0, 0.3, 0.0] if backwards else [0.0, 0.3, 1.0]
    first = solve(field, y, times, tolerance=1e-4, method=method, keep_nodes=True)
    again = solve(field, y, times, method=method, nodes=first.nodes, keep_nodes=True)
    assert first.rejected.any()
    assert len(set(first.accepted.tolist())) > 1
    assert torch.equal(again.accepted, first.accepted)
    assert not again.rejected.any()
    assert not again.status.any()
    assert all(torch.equal(a, b) for a, b in zip(again.nodes, first.nodes, strict=True))
    assert torch.allclose(again.states, first.states, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(s.states.square().sum(), y)[0] for s in (first, again)]
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-10)


def test_steps_that_are_given_do_not_depend_on_the_state():
    """Other states with the steps of the first: what the direct gradient is the derivative of."""
    field = Network(41, scale=3.0).double()
    y = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        nodes = solve(field, y, [0, 1], tolerance=0.1, keep_nodes=True).nodes
        moved = solve(field, y + 0.5, [0, 1], nodes=nodes, keep_nodes=True)
        adaptive = solve(field, y + 0.5, [0, 1], tolerance=0.1, keep_nodes=True)
        summed = sum(
            replay(field, (y + 0.5)[i : i + 1], nodes[i : i + 1], torch.ones(1, 6).double())
            for i in range(3)
        )
    assert all(torch.equal(a, b) for a, b in zip(moved.nodes, nodes, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(adaptive.nodes, nodes, strict=False))
    assert math.isclose(moved.states[-1].sum().item(), summed, rel_tol=1e-10)


def test_quadrature_parts_are_integrals_along_the_solution():
    """A part that the dynamics do not read: the integral of y for y' = -y."""
    y = torch.ones(4, 1, dtype=torch.float64)
    found = solve_parts(
        lambda t, parts: (-parts[0], parts[0]),
        (y, torch.zeros_like(y)),
        [0.0, 1.0],
        tolerance=1e-9,
        coupled=1,
    )
    assert torch.allclose(found.parts[1][-1], torch.full_like(y, 1 - math.exp(-1)), atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.0, 0.0]}, r"times must strictly increase or decrease.*\[0.0, 0.0\]"),
        ({"times": [0.0, 1.0, 0.5]}, r"times must strictly"),
        ({"times": [0.0]}, r"at least two: \[0.0\]"),
        ({"tolerance": 0.0}, "tolerance must be greater than 0, not 0.0"),
        ({"tolerance": float("nan")}, "tolerance must be greater than 0, not nan"),
        ({"tolerance": None}, "tolerance must be greater than 0, not None"),
        ({"ratio": (0.0, 0.0)}, "ratio must be two finite numbers, at least 0, not both 0"),
        ({"ratio": (1.0, float("nan"))}, r"ratio .*: \(1.0, nan\)"),
        ({"ratio": (1.0, -1.0)}, r"ratio .*: \(1.0, -1.0\)"),
        ({"method": "euler9"}, "unknown method 'euler9'; there are dopri5"),
        ({"tolerance": torch.ones(3)}, r"one number or 2, not of shape \(3,\)"),
        ({"tolerance": torch.tensor([0.1, -0.5])}, "tolerance must be greater than 0, not -0.5"),
        ({"nodes": [torch.tensor([0.0, 1.0])]}, "nodes for 1 of 2 samples"),
        ({"nodes": [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.5])]}, "nodes of sample 1"),
        ({"nodes": [torch.tensor([0.0, 0.0, 1.0])] * 2}, "nodes of sample 0 must increase"),
        ({"method": "rk4"}, "method rk4 has no error estimate and needs steps, not None"),
        ({"method": "rk4", "steps": 0}, "steps must be 1 or more, not 0"),
        ({"steps": -3}, "steps must be 1 or more, not -3"),
        ({"initial": torch.ones(2, 2, dtype=torch.int64)}, "floating point, not torch.int64"),
        ({"initial": torch.ones(0, 2)}, r"batch is empty: initial state of shape \(0, 2\)"),
        ({"initial": torch.tensor([[1.0], [torch.nan]])}, r"not finite in samples \[1\]"),
        (
            {"dynamics": lambda t, y: y[:, :1]},
            r"derivative of shape \(2, 1\) for a state of shape \(2, 2\)",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "dynamics": lambda t, y: -y,
        "initial": torch.ones(2, 2),
        "times": [0.0, 1.0],
        "tolerance": 0.1,
    } | change
    with pytest.raises(ValueError, match=message):
        solve(**arguments)
