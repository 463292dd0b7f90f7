"""`odeint` and `odeint_adjoint` against torchdiffeq's, one sample at a time, and closed forms."""

import gc
import subprocess
import sys
import weakref
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_moons
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.ode import drop_in, odeint, odeint_adjoint, products
from node_robustness.ode.drop_in import SolveError
from node_robustness.ode.rows import Way
from node_robustness.ode.tableaus import TABLEAUS

pytestmark = pytest.mark.numerical

OURS = {"direct": odeint, "adjoint": odeint_adjoint}
THEIRS = {"direct": torchdiffeq.odeint, "adjoint": torchdiffeq.odeint_adjoint}
ADAPTIVE = sorted(name for name, tableau in TABLEAUS.items() if tableau.error)
FIXED = sorted(TABLEAUS.keys() - set(ADAPTIVE))


@pytest.fixture(autouse=True)
def constant_first_step(monkeypatch):
    """torchdiffeq's direct gradients pass through the size of the first step; ours do not."""
    common = torchdiffeq._impl.rk_common
    select = torch.no_grad()(common._select_initial_step)
    monkeypatch.setattr(common, "_select_initial_step", select)


class Vectors(nn.Module):
    """Of a tensor [n, 3], with a scalar time as most people write it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return 2 * self.net(torch.cat([y, torch.ones_like(y[:, :1]) * t], 1))


class Images(nn.Module):
    """Of a tensor [n, 2, 4, 4]; the time as a view that does not broadcast."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 2, 3, padding=1).double()
        self.norm = nn.GroupNorm(1, 2).double()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        time = t.view(1, 1, 1, 1).expand(len(y), 1, *y.shape[2:])
        return self.norm(self.conv(torch.cat([time, y.tanh()], 1)))


class Flow(Vectors):
    """Of a tuple ([n, 3], [n]), as a continuous normalising flow."""

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, density = state
        slope = super().forward(t, y)
        return slope, slope.sum(1) - 0.1 * density


class Switched(Vectors):
    """A jump in time, which a step ends next to."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return super().forward(t, y) if t < 0.5 else super().forward(1 - t, -y)


def start(model: type, n: int = 4):
    generator = torch.Generator().manual_seed(1)
    shape = (n, 2, 4, 4) if model is Images else (n, 3)
    y = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (y, y.sum(1)) if model is Flow else y


def parts_of(state) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def weights(part: Tensor) -> Tensor:
    """Different ones for all times and elements, the same for all samples, [T, 1, ...]."""
    return torch.arange(part[:, :1].numel()).double().cos().view_as(part[:, :1])


def gradients(integrate, model: type, state, t: Tensor, **arguments):
    """The solution, and the gradients of a weighted sum of it for state and parameters."""
    func = model()
    parts = tuple(part.clone().requires_grad_() for part in parts_of(state))
    y0 = parts[0] if isinstance(state, Tensor) else parts
    solved = parts_of(integrate(func, y0, t, **arguments))
    loss = sum((part * weights(part)).sum() for part in solved)
    found = torch.autograd.grad(
        loss, [*parts, *func.parameters()], allow_unused=True, materialize_grads=True
    )
    return solved, found[: len(parts)], found[len(parts) :]


def one_by_one(integrate, model: type, state, t: Tensor, **arguments):
    rows = zip(*(part.split(1) for part in parts_of(state)), strict=True)
    single = isinstance(state, Tensor)
    found = [gradients(integrate, model, row[0] if single else row, t, **arguments) for row in rows]
    solved, of_state, of_parameters = zip(*found, strict=True)
    return (
        tuple(torch.cat(column, dim=1) for column in zip(*solved, strict=True)),
        tuple(torch.cat(column) for column in zip(*of_state, strict=True)),
        tuple(sum(column) for column in zip(*of_parameters, strict=True)),
    )


def agree(found, expected, close: float = 1e-8) -> None:
    for ones, others in zip(found, expected, strict=True):
        for one, other in zip(ones, others, strict=True):
            torch.testing.assert_close(one, other, rtol=close, atol=1e-10)


def times(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


GRIDS = [times(0, 1), times(1, 0.3, -1), times(0, 0.1, 0.7, 2), times(0.5)]


@pytest.mark.parametrize("t", GRIDS)
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("model", [Vectors, Images, Flow])
def test_equals_torchdiffeq_at_batch_one(model, kind, t):
    arguments = {"rtol": 1e-3, "atol": 1e-4}
    found = gradients(OURS[kind], model, start(model), t, **arguments)
    agree(found, one_by_one(THEIRS[kind], model, start(model), t, **arguments))


@pytest.mark.parametrize("kind", OURS)
def test_defaults_are_those_of_torchdiffeq(kind):
    found = gradients(OURS[kind], Vectors, start(Vectors, 2), times(0, 1))
    agree(found, one_by_one(THEIRS[kind], Vectors, start(Vectors, 2), times(0, 1)))


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("kind", OURS)
def test_every_adaptive_method(kind, method):
    arguments = {"rtol": 1e-2, "atol": torch.tensor(1e-2), "method": method}
    found = gradients(OURS[kind], Vectors, start(Vectors), times(0, 0.4, 1), **arguments)
    agree(found, one_by_one(THEIRS[kind], Vectors, start(Vectors), times(0, 0.4, 1), **arguments))


@pytest.mark.parametrize("kind", OURS)
def test_options_of_the_step_sizes(kind):
    options = {"first_step": 2.0, "safety": 0.7, "ifactor": 1.1, "dfactor": torch.tensor(0.5)}
    arguments = {"rtol": 1e-6, "atol": 1e-6, "options": options}
    t = times(0, 0.4, 2)
    found = gradients(OURS[kind], Vectors, start(Vectors), t, **arguments)
    agree(found, one_by_one(THEIRS[kind], Vectors, start(Vectors), t, **arguments))
    for option in options:
        others = {key: value for key, value in options.items() if key != option}
        with torch.no_grad():
            changed = odeint(Vectors(), start(Vectors), t, **arguments | {"options": others})
        assert not torch.allclose(changed, found[0][0], rtol=1e-12, atol=1e-12)


def squares(_func, _y, t: Tensor) -> Tensor:
    share = torch.linspace(0, 1, 6, dtype=t.dtype) ** 2
    return torch.cat([t[:1] + (t[-1] - t[0]) * share[:-1], t[-1:]])


@pytest.mark.parametrize(
    "options",
    [
        None,
        {"step_size": 0.3},
        {"step_size": 0.25},
        {"step_size": 7.0},
        {"grid_constructor": squares},
    ],
)
@pytest.mark.parametrize("t", [times(0, 0.4, 1), times(1, 0)])
@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("kind", OURS)
def test_every_method_of_fixed_steps(kind, method, t, options):
    arguments = {"method": method, "options": options}
    found = gradients(OURS[kind], Vectors, start(Vectors), t, **arguments)
    agree(found, one_by_one(THEIRS[kind], Vectors, start(Vectors), t, **arguments))


@pytest.mark.parametrize(
    "changes",
    [
        {"adjoint_options": {"norm": "seminorm"}},
        {"adjoint_rtol": 1e-1, "adjoint_atol": 1e-5},
        {"adjoint_method": "bosh3"},
        {"adjoint_method": "rk4", "adjoint_options": {"step_size": 0.2}},
        {
            "method": "rk4",
            "options": {"step_size": 0.2},
            "adjoint_method": "dopri5",
            "adjoint_options": {},
        },
    ],
)
@pytest.mark.parametrize("model", [Vectors, Flow])
def test_the_backward_solve_has_its_settings(model, changes):
    arguments = {"rtol": 1e-3, "atol": 1e-3} | changes
    found = gradients(odeint_adjoint, model, start(model), times(0, 1), **arguments)
    agree(
        found, one_by_one(torchdiffeq.odeint_adjoint, model, start(model), times(0, 1), **arguments)
    )


@pytest.mark.parametrize("method", ["dopri5", "rk4"])
def test_a_function_that_branches_on_time(method):
    arguments = {"rtol": 1e-3, "atol": 1e-3, "method": method}
    t = times(0, 0.5, 1)
    found = gradients(odeint, Switched, start(Vectors), t, **arguments)
    # The order in which rows are summed moves the steps next to the jump.
    expected = one_by_one(torchdiffeq.odeint, Switched, start(Vectors), t, **arguments)
    agree(found, expected, 1e-5)


def test_frozen_parameters_and_a_state_without_gradient():
    t, arguments = times(0, 1), {"rtol": 1e-3, "atol": 1e-3}
    found = []
    for integrate in (odeint_adjoint, torchdiffeq.odeint_adjoint):
        func = Vectors()
        func.net[0].requires_grad_(False)
        rows = [start(Vectors)] if integrate is odeint_adjoint else start(Vectors).split(1)
        loss = sum(integrate(func, y, t, **arguments)[-1].square().sum() for y in rows)
        loss.backward()
        assert func.net[0].weight.grad is None
        found.append(func.net[2].weight.grad)
    torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


def test_parameters_that_are_given():
    """A closure, and a tensor that no module holds."""
    matrix = (0.3 * torch.eye(3, dtype=torch.float64)).requires_grad_()
    func = Vectors()

    def field(t: Tensor, y: Tensor) -> Tensor:
        return func(t, y) @ matrix

    given = (*func.parameters(), matrix)
    y, t = start(Vectors), times(0, 1)
    solved = odeint_adjoint(field, y, t, rtol=1e-3, atol=1e-3, adjoint_params=given)
    found = torch.autograd.grad(solved[-1].sum(), given)
    sums = 0.0
    for row in y.split(1):
        solved = torchdiffeq.odeint_adjoint(
            field, row, t, rtol=1e-3, atol=1e-3, adjoint_params=given
        )
        sums = sums + solved[-1].sum()
    for one, other in zip(found, torch.autograd.grad(sums, given), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


class Moons(nn.Module):
    """A net for two moons around a neural ODE."""

    def __init__(self, integrate, **arguments) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.func = Vectors()
        self.lift, self.head = nn.Linear(2, 3).double(), nn.Linear(3, 2).double()
        self.integrate = partial(integrate, rtol=1e-2, atol=1e-2, **arguments)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.integrate(self.func, self.lift(x), times(0, 1))[-1])


@pytest.mark.parametrize("seminorm", [False, True])
@pytest.mark.parametrize("kind", OURS)
def test_a_net_can_be_trained(kind, seminorm):
    """At its first and its last step, its gradient is the sum of torchdiffeq's at batch 1."""
    if kind == "direct" and seminorm:
        pytest.skip("a norm of the adjoint")
    arguments = {"adjoint_options": {"norm": "seminorm"}} if seminorm else {}
    x, labels = make_moons(24, noise=0.1, random_state=0)
    x, labels = torch.from_numpy(x), torch.from_numpy(labels)
    net = Moons(OURS[kind], **arguments)
    reference = Moons(THEIRS[kind], **arguments)

    def compare() -> None:
        reference.load_state_dict(net.state_dict())
        reference.zero_grad()
        for row, label in zip(x.split(1), labels.split(1), strict=True):
            (F.cross_entropy(reference(row), label) / len(x)).backward()
        for one, other in zip(net.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10)

    optimiser = torch.optim.Adam(net.parameters(), lr=0.1)
    losses = []
    for step in range(20):
        optimiser.zero_grad()
        losses.append(F.cross_entropy(net(x), labels))
        losses[-1].backward()
        if step in (0, 19):
            compare()
        optimiser.step()
    assert losses[-1] < losses[0] / 2


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 4),
    n=st.integers(1, 6),
    grid=st.lists(st.integers(-8, 8), min_size=2, max_size=6, unique=True),
    backwards=st.booleans(),
    kind=st.sampled_from(sorted(OURS)),
)
def test_linear_equations_have_their_solution_and_gradient(seed, size, n, grid, backwards, kind):
    """y' = M y + b has y(t) = exp((t - t0) A) [y, 1], with gradients for y, M and b."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    layer = nn.Linear(size, size).double()
    with torch.no_grad():
        layer.weight.copy_(draw(size, size) / 2)
    y = draw(n, size).requires_grad_()
    t = torch.tensor(sorted(grid, reverse=backwards), dtype=torch.float64) / 8

    class Field(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return self.layer(y)

    found = OURS[kind](Field(), y, t, rtol=1e-7, atol=1e-7)
    top = torch.cat([layer.weight, layer.bias[:, None]], 1)
    whole = torch.cat([top, top.new_zeros(1, size + 1)])
    flows = torch.stack([torch.matrix_exp((time - t[0]) * whole) for time in t])
    lifted = torch.cat([y, y.new_ones(n, 1)], 1)
    expected = torch.einsum("tij,nj->tni", flows, lifted)[:, :, :size]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    wanted, weights = [y, layer.weight, layer.bias], draw(len(t), n, size)
    products = [torch.autograd.grad((weights * s).sum(), wanted) for s in (found, expected)]
    for one, other in zip(*products, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(),
    n=st.integers(1, 7),
    way=st.sampled_from([None, *Way]),
    exponent=st.floats(-4, 0),
)
def test_a_sample_is_solved_as_if_it_were_alone(data, n, way, exponent):
    values = data.draw(st.lists(st.floats(-2, 2), min_size=2, max_size=5, unique=True))
    t = torch.tensor(sorted({round(value, 3) for value in values}), dtype=torch.float64)
    t = t if data.draw(st.booleans()) else t.flip(0)
    func, y = Vectors(), start(Vectors, n)
    with torch.no_grad():
        found = odeint(func, y, t, rtol=10**exponent, atol=10**exponent, way=way)
        for row in range(n):
            alone = torchdiffeq.odeint(
                func, y[row : row + 1], t, rtol=10**exponent, atol=10**exponent
            )
            torch.testing.assert_close(found[:, row : row + 1], alone, rtol=1e-8, atol=1e-8)


def test_vectorised_products_are_compared_once(monkeypatch):
    agree, compared = products._Checked._agree, []

    def counted(*arguments):
        compared.append(1)
        return agree(*arguments)

    monkeypatch.setattr(products._Checked, "_agree", counted)
    func = Vectors()
    for _ in range(3):
        odeint_adjoint(func, start(Vectors), times(0, 1), rtol=1e-2, atol=1e-2)[-1].sum().backward()
    assert len(compared) == 1


@pytest.mark.parametrize("kind", OURS)
def test_fixed_steps_that_leave_the_numbers_return_what_is_not_finite(kind):
    y = torch.tensor([[1e200], [0.5]], dtype=torch.float64)
    arguments = {"method": "euler", "options": {"step_size": 0.25}}
    found = OURS[kind](Square(), y, times(0, 1), **arguments, way=Way.BROADCAST)[-1]
    expected = torch.cat(
        [THEIRS[kind](Square(), row, times(0, 1), **arguments)[-1] for row in y.split(1)]
    )
    assert torch.isfinite(found).tolist() == torch.isfinite(expected).tolist() == [[False], [True]]
    torch.testing.assert_close(found[1], expected[1])


def test_a_way_is_found_for_each_shape_of_the_state():
    """Here the broadcast of times is right for vectors, and wrong for matrices."""

    class Scaled(nn.Module):
        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            return y * (1 + t).view(-1, 1)

    func, generator = Scaled(), torch.Generator().manual_seed(1)
    for shape in ((2, 2), (2, 2, 2)):
        y = torch.randn(shape, generator=generator, dtype=torch.float64)
        found = odeint(func, y, times(0, 1), rtol=1e-3, atol=1e-3)
        rows = [
            torchdiffeq.odeint(func, row, times(0, 1), rtol=1e-3, atol=1e-3) for row in y.split(1)
        ]
        torch.testing.assert_close(found, torch.cat(rows, 1), rtol=1e-8, atol=1e-8)


def test_steps_are_counted_from_each_output_time():
    t, tight = times(0, 1, 2, 3, 4), {"rtol": 1e-5, "atol": 1e-5}
    y = start(Vectors)
    with torch.no_grad():
        for limit in range(2, 30):
            options = {"max_num_steps": limit}
            try:
                for row in y.split(1):
                    torchdiffeq.odeint(Vectors(), row, t, **tight, options=options)
            except AssertionError:
                continue
            odeint(Vectors(), y, t, **tight, options=options)
            break
        with pytest.raises(SolveError):
            odeint(Vectors(), y, times(0, 4), **tight, options=options)


def test_a_step_of_no_length_is_left_out():
    """Six steps of 0.2 end at 1.2 by rounding, and torchdiffeq takes a seventh."""
    y, t = start(Vectors), times(0, 0.2 * 6)
    arguments = {"method": "euler", "options": {"step_size": 0.2}}
    found = gradients(odeint, Vectors, y, t, **arguments)
    agree(found, one_by_one(torchdiffeq.odeint, Vectors, y, t, **arguments))


def test_a_function_is_examined_once_and_forgotten_with_its_module(monkeypatch):
    choose, examined = drop_in.choose, []

    def counted(*arguments):
        examined.append(1)
        return choose(*arguments)

    monkeypatch.setattr(drop_in, "choose", counted)
    gc.collect()
    before, loose = len(drop_in._known_functions), dict.fromkeys(("rtol", "atol"), 1e-2)

    def solve() -> weakref.ref:
        func, y = Vectors(), start(Vectors)
        for _ in range(3):
            odeint(func, y, times(0, 1), **loose)
            odeint_adjoint(func, y[:2], times(0, 1), **loose)
        assert len(examined) == 1
        for _ in range(3):
            odeint(lambda t, y: func(t, y), y, times(0, 1), **loose)
        assert len(examined) == 2
        func.eval()
        odeint(func, y, times(0, 1), **loose)
        odeint(func, y, times(0, 1), **loose, way=Way.VMAP)
        assert len(examined) == 3
        return weakref.ref(func)

    gone = solve()
    gc.collect()
    assert gone() is None
    assert len(drop_in._known_functions) == before


def test_what_is_slow_says_so():
    def field(t: Tensor, y: Tensor) -> Tensor:
        return -y if y.abs().max() < 100 else y

    y = start(Vectors)
    with pytest.warns(UserWarning, match="one sample at a time: it reads values of the state"):
        found = odeint(field, y, times(0, 1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[-1], y * torch.exp(-times(1)), rtol=1e-4, atol=1e-4)


def test_without_gradients_and_in_inference_mode():
    func, y = Vectors(), start(Vectors)
    expected = odeint(func, y, times(0, 1)).detach()
    for context in (torch.no_grad, torch.inference_mode):
        for integrate in OURS.values():
            func = Vectors()
            with context():
                found = integrate(func, y, times(0, 1))
            assert not found.requires_grad
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


class Square(nn.Module):
    """Reaches infinity at time 1 / y."""

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return y**2


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_num_steps": 5}, "max_num_steps exceeded: sample 1 of 3 not solved"),
        ({}, "(underflow in dt|non-finite values).*: sample 1 of 3 not solved"),
    ],
)
def test_a_sample_that_is_not_solved_is_an_error_as_in_torchdiffeq(kind, options, message):
    y = torch.tensor([[0.1], [2.0], [0.2]], dtype=torch.float64)
    with pytest.raises(SolveError, match=message):
        OURS[kind](Square(), y, times(0, 1), rtol=1e-2, atol=1e-2, options=options)
    with pytest.raises(AssertionError):
        THEIRS[kind](Square(), y[1:2], times(0, 1), rtol=1e-2, atol=1e-2, options=options)


def test_a_backward_solve_that_fails_is_an_error():
    y = start(Vectors).requires_grad_()
    solved = odeint_adjoint(
        Vectors(), y, times(0, 1), rtol=1e-1, atol=1e-1,
        adjoint_rtol=1e-9, adjoint_atol=1e-9, adjoint_options={"max_num_steps": 3},
    )  # fmt: skip
    with pytest.raises(SolveError, match=r"max_num_steps exceeded.*not solved backwards"):
        solved[-1].sum().backward()


class Watched(Vectors):
    def callback_accept_step(self, t: Tensor, y: Tensor, dt: Tensor) -> None:
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"event_fn": lambda t, y: y.sum()}, "event_fn is not supported"),
        ({"method": "dopri8"}, "method 'dopri8' is not supported; use one of dopri5, bosh3"),
        ({"options": {"step_t": times(0.5)}}, "option 'step_t' of dopri5 is not supported"),
        ({"func": Watched()}, "callback_accept_step of func is not supported"),
        ({"options": {"norm": torch.norm}}, "'norm' of dopri5 is not supported; use max_num_steps"),
        ({"method": "rk4", "options": {"max_num_steps": 3}}, "'max_num_steps' of rk4 is not"),
        (
            {"method": "rk4", "options": {"step_size": 0.1, "grid_constructor": squares}},
            "step_size or grid_constructor, not both",
        ),
        (
            {"method": "rk4", "options": {"grid_constructor": lambda f, y, t: t[:1]}},
            r"must begin at t\[0\] and end at t\[-1\]",
        ),
        ({"t": [0.0, 1.0]}, r"t must be a tensor \[T\] of floating point numbers"),
        ({"t": torch.tensor([0, 1])}, "t must be a tensor"),
        ({"t": times(0, 1, 1)}, "t must strictly increase or decrease"),
        ({"t": times(0, 1).requires_grad_()}, "a gradient for t is not supported"),
        ({"y0": [torch.ones(2, 3)]}, "y0 must be a tensor or a tuple of tensors"),
        ({"y0": torch.tensor(1.0)}, "the first dimension of y0 must be the batch"),
        ({"y0": (torch.ones(2, 3), torch.ones(3, 3))}, "must be the batch, in every part"),
        ({"y0": torch.ones(2, 3, dtype=torch.complex64)}, "real floating point numbers"),
        ({"rtol": (1e-3, 1e-4)}, "rtol must be one number for all parts"),
        ({"atol": torch.ones(2)}, "atol must be one number for all parts"),
    ],
)
@pytest.mark.parametrize("kind", OURS)
def test_what_is_not_supported_is_named(kind, changes, message):
    arguments = {"func": Vectors(), "y0": start(Vectors), "t": times(0, 1)} | changes
    with pytest.raises(UserError, match=message) as caught:
        OURS[kind](arguments.pop("func"), arguments.pop("y0"), arguments.pop("t"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"func": lambda t, y: -y}, "func is not a torch.nn.Module; give adjoint_params"),
        ({"adjoint_options": {"norm": torch.norm}}, "except 'seminorm'"),
        (
            {"options": {"max_num_steps": 9}, "adjoint_method": "bosh3"},
            "adjoint_method differs from method; give adjoint_options",
        ),
    ],
)
def test_what_the_adjoint_does_not_support_is_named(changes, message):
    arguments = {"func": Vectors(), "y0": start(Vectors), "t": times(0, 1)} | changes
    with pytest.raises(UserError, match=message):
        odeint_adjoint(arguments.pop("func"), arguments.pop("y0"), arguments.pop("t"), **arguments)


def test_the_solver_alone_does_not_import_the_functions():
    scripts = Path(drop_in.__file__).parents[2]
    lines = (
        f"import sys; sys.path.append({str(scripts)!r})\n"
        "import node_robustness.ode.solve\n"
        "assert 'node_robustness.ode.drop_in' not in sys.modules\n"
        "from node_robustness.ode import odeint\n"
        "from node_robustness.ode import odeint as again\n"
        "assert odeint is again and callable(odeint)\n"
        "import node_robustness.ode\n"
        "try:\n    node_robustness.ode.nothing\nexcept AttributeError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert run.stdout == "module 'node_robustness.ode' has no attribute 'nothing'\n"
