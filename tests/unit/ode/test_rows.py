"""Functions of a scalar time, evaluated at a time for each row, against the loop over rows."""

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from node_robustness.ode.rows import Way, choose, rowwise
from node_robustness.ode.side_effects import parameters_of
from node_robustness.ode.small_batches import ROWS
from rounding import rows_round_alike

pytestmark = pytest.mark.numerical


class Convolutions(nn.Module):
    """As in torchdiffeq's example: in-place ReLU, group norm, the time as a channel."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(2, channels), nn.GroupNorm(2, channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.nfe = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        self.nfe += 1
        out = self.relu(self.norm1(x))
        out = self.conv1(torch.cat([torch.ones_like(x[:, :1]) * t, out], 1))
        out = self.relu(self.norm2(out))
        return self.conv2(torch.cat([torch.ones_like(x[:, :1]) * t, out], 1))


class Changed(Convolutions):
    """Those convolutions with something of a user's own before or after them."""

    def __init__(self, change) -> None:
        super().__init__()
        self.change = change
        self.batch = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.kept, self.calls = None, 0
        self.register_buffer("count", torch.zeros(()))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.change(self, t, x)

    def plain(self, t: Tensor, x: Tensor) -> Tensor:
        return super().forward(t, x)


def view_of_time(f, t, x):
    return x * t.view(1, 1, 1, 1).repeat(len(x), 1, 1, 1)


def full_of_time(f, t, x):
    return f.plain(t, x) + torch.full_like(x, t)


def branch_on_time(f, t, x):
    return f.plain(t, x) if t < 0.5 else f.plain(1 - t, x)


def sine_of_time(f, t, x):
    return math.sin(t) * x


def table_by_time(f, t, x):
    return x * [1.0, 2.0, 3.0][int(t * 2)]


def branch_on_all_times(f, t, x):
    """Broadcasting times would do, as far as values tell: all are below 5."""
    return f.plain(t, x) if (t < 5).all() else x


def branch_on_state(f, t, x):
    """All states that are compared take the first branch."""
    return f.plain(t, x) if x.abs().max() < 100 else x


def branch_in_numpy(f, t, x):
    return f.plain(t, x) if x.detach().numpy().max() < 100 else x


def branch_on_number_of_large_values(f, t, x):
    return f.plain(t, x) if len(x[x > 100]) == 0 else x


def branch_on_parameter(f, t, x):
    return f.plain(t, x) if f.conv1.weight.abs().max() < 100 else x


def masked(f, t, x):
    y = f.plain(t, x)
    y[y < 0] = 0
    return y


def indexed_by_state(f, t, x):
    largest = x[:, 0].flatten(1).argmax(1)
    return f.plain(t, x) + x.flatten(2)[torch.arange(len(x)), :, largest][..., None, None]


def branch_on_time_and_mean_of_batch(f, t, x):
    return f.plain(t, x + x.detach().mean(0, keepdim=True)) if t < 0.5 else x


def batch_norm_and_dropout(f, t, x):
    return f.dropout(f.batch(f.plain(t, x)))


def without_time(f, t, x):
    return f.conv2(F.pad(x, (0, 0, 0, 0, 1, 0)))


def mean_of_batch(f, t, x):
    return f.plain(t, x - x.mean(0, keepdim=True))


def a_little_of_the_neighbour(f, t, x):
    return f.plain(t, x) + 1e-9 * x.roll(1, 0)


def a_little_of_another_time(f, t, x):
    return f.plain(torch.zeros(()), x) + 1e-9 * t.flatten()[0]


def batch_norm(f, t, x):
    return f.batch(f.plain(t, x))


def dropout(f, t, x):
    return f.dropout(f.plain(t, x))


def functional_dropout(f, t, x):
    return F.dropout(f.plain(t, x), training=f.training)


def noise(f, t, x):
    return f.plain(t, x) + torch.randn_like(x)


def kept_noise(f, t, x):
    f.kept = torch.randn_like(x) if f.kept is None else f.kept
    return f.plain(t, x) + f.kept


def kept_state(f, t, x):
    f.kept = x if f.kept is None else f.kept
    return f.plain(t, x) + f.kept


def kept_shape(f, t, x):
    f.kept = x.new_ones(len(x), 1, 1, 1) if f.kept is None else f.kept
    return f.plain(t, x) + f.kept


def last_state(f, t, x):
    """Kept for the user to look at, and not used."""
    f.kept = x.detach()
    return f.plain(t, x)


def by_number_of_calls(f, t, x):
    f.calls += 1
    return f.plain(t, x) * f.calls


def counted_in_a_buffer(f, t, x):
    f.count += 1
    return f.plain(t, x)


def features_of_a_batch(f, t, x):
    return f.plain(t, x) + torch.ones(6, 4, 6, 6)


def in_place(f, t, x):
    return f.plain(t, x.relu_())


def from_energy(f, t, x):
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        energy = f.plain(t, x).square().sum()
        return torch.autograd.grad(energy, x, create_graph=True)[0]


def one_column(f, t, x):
    return f.plain(t, x)[:, :1]


def a_row_without_batch(f, t, x):
    """Of the shape of one row, which torchdiffeq broadcasts to a batch of one."""
    return f.plain(t, x).mean(0)


def columns_in_a_row(f, t, x):
    return f.plain(t, x).flatten(1)


def other_dtype(f, t, x):
    return f.plain(t, x).double()


BROADCAST, VMAP, GROUPED, ONE_BY_ONE = Way
EXPECTED = {
    branch_on_parameter: BROADCAST,
    masked: BROADCAST,
    indexed_by_state: BROADCAST,
    without_time: BROADCAST,
    last_state: BROADCAST,
    counted_in_a_buffer: BROADCAST,
    from_energy: BROADCAST,
    batch_norm: BROADCAST,
    dropout: BROADCAST,
    functional_dropout: BROADCAST,
    other_dtype: BROADCAST,
    view_of_time: VMAP,
    kept_shape: ONE_BY_ONE,
    mean_of_batch: VMAP,
    a_little_of_the_neighbour: VMAP,
    full_of_time: GROUPED,
    branch_on_time: GROUPED,
    branch_on_all_times: GROUPED,
    sine_of_time: GROUPED,
    table_by_time: GROUPED,
    a_little_of_another_time: VMAP,
    branch_on_state: ONE_BY_ONE,
    branch_in_numpy: ONE_BY_ONE,
    branch_on_number_of_large_values: ONE_BY_ONE,
    branch_on_time_and_mean_of_batch: ONE_BY_ONE,
    noise: ONE_BY_ONE,
    kept_noise: ONE_BY_ONE,
    kept_state: ONE_BY_ONE,
    by_number_of_calls: ONE_BY_ONE,
    features_of_a_batch: ONE_BY_ONE,
    in_place: ONE_BY_ONE,
    one_column: ONE_BY_ONE,
    a_row_without_batch: VMAP,
    columns_in_a_row: BROADCAST,
}


def trial(dtype: torch.dtype = torch.float32, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    states = torch.randn(n, 4, 6, 6, generator=generator, dtype=dtype)
    return states, torch.linspace(0.1, 0.9, n, dtype=dtype)


def changed(change, dtype: torch.dtype = torch.float32, training: bool = False) -> Changed:
    torch.manual_seed(0)
    return Changed(change).to(dtype).train(training)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", EXPECTED, ids=lambda change: change.__name__)
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_the_way_of_a_function(change, dtype):
    if change is mean_of_batch and not rows_round_alike():
        pytest.skip("of one row that is the rounding of its mean, which a normalisation enlarges")
    choice = choose(changed(change, dtype), *trial(dtype))
    assert choice.way == EXPECTED[change]
    assert bool(choice.reason) == (choice.way != BROADCAST)
    assert "\n" not in choice.reason
    assert 0 <= choice.error <= (1e-4 if dtype == torch.float32 else 1e-12)


def test_reasons_are_given():
    reasons = {change: choose(changed(change), *trial()).reason for change in EXPECTED}
    assert "time as a number" in reasons[branch_on_time]
    assert "state as numbers" in reasons[branch_on_state]
    assert "rows depend on each other" in reasons[mean_of_batch]
    assert "writes into the state" in reasons[in_place]
    assert "remembers calls" in reasons[by_number_of_calls]
    assert "shape [(1, 1, 6, 6)] for a state of shape [(1, 4, 6, 6)]" in reasons[one_column]


@pytest.mark.parametrize(
    ("change", "way"),
    [
        (dropout, BROADCAST),
        (functional_dropout, BROADCAST),
        (batch_norm, ONE_BY_ONE),
        (batch_norm_and_dropout, ONE_BY_ONE),
    ],
)
def test_the_way_in_training(change, way):
    """Dropout is compared without its drops; batch statistics are those of one row."""
    assert choose(changed(change, training=True), *trial()).way == way


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("change", [batch_norm, dropout, counted_in_a_buffer, last_state, noise])
def test_choosing_leaves_no_trace(change, training):
    function = changed(change, training=training)
    before = {name: value.clone() for name, value in function.state_dict().items()}
    modes = [module.training for module in function.modules()]
    random = torch.get_rng_state()
    choose(function, *trial())
    assert function.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in function.state_dict().items())
    assert [module.training for module in function.modules()] == modes
    assert (function.nfe, function.calls, function.kept) == (0, 0, None)
    assert all(parameter.grad is None for parameter in function.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_choosing_leaves_no_trace_in_a_script_module():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(0.5)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, t: Tensor, y: Tensor) -> Tensor:
            self.calls = self.calls + 1
            return self.dropout(self.norm(y)) * t

    function = torch.jit.script(Counting())
    function.norm.eval()
    before = {name: value.clone() for name, value in function.state_dict().items()}
    choice = choose(function, torch.randn(6, 3), torch.linspace(0, 1, 6))
    assert choice.way == BROADCAST
    assert function.training
    assert not function.norm.training
    assert function.dropout.training
    assert all(torch.equal(value, before[name]) for name, value in function.state_dict().items())


def test_choosing_leaves_graphs_that_saved_a_buffer_alone():
    function = changed(batch_norm)
    x = trial()[0].requires_grad_()
    before = function(torch.tensor(0.5), x).square().sum()
    choose(function, *trial())
    before.backward()
    assert x.grad is not None


def test_dropout_differs_between_rows_in_every_way():
    function = changed(dropout, torch.float64, training=True)
    states = trial(torch.float64)[0][:1].repeat(6, 1, 1, 1)
    for way in (BROADCAST, VMAP):
        values = rowwise(function, way)(torch.full((6,), 0.3, dtype=torch.float64), states)
        assert 0.3 < (values == 0).double().mean() < 0.7
        assert not torch.equal(values[0] == 0, values[1] == 0)


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("way", Way)
def test_every_way_gives_each_row_its_own_time(way, rows):
    function = changed(Changed.plain, torch.float64)
    states, _ = trial(torch.float64, rows)
    times = torch.tensor([0.7, 0.2, 0.7, 0.9, 0.2, 0.1, 0.7, 0.3, 0.0]).double()[:rows]
    times.requires_grad_(), states.requires_grad_()
    found = rowwise(function, way)(times, states)
    expected = torch.cat([function(t, x[None]) for t, x in zip(times, states, strict=True)])
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(states)
    wanted = [states, *(p for p in function.parameters() if p.requires_grad)]
    products = [
        torch.autograd.grad((weights * value).sum(), wanted, allow_unused=True)
        for value in (found, expected)
    ]
    for one, other in zip(*products, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_bias_that_a_normalisation_removes_is_no_difference():
    """Of the product for it there is rounding alone, which is different in every way."""

    class OneChannelAGroup(Convolutions):
        def __init__(self) -> None:
            super().__init__()
            self.norm2 = nn.GroupNorm(4, 4)

    torch.manual_seed(0)
    assert choose(OneChannelAGroup(), *trial()).way == Way.BROADCAST


@pytest.mark.parametrize("way", Way)
def test_a_derivative_has_the_dtype_of_its_state(way):
    states, times = trial()
    assert rowwise(changed(other_dtype), way)(times, states).dtype == torch.float32


@pytest.mark.parametrize("way", [BROADCAST, VMAP, GROUPED])
def test_no_way_calls_the_function_with_fewer_rows_than_are_safe(way):
    seen = []

    def function(t: Tensor, x: Tensor) -> Tensor:
        seen.append(len(x))
        return t * x

    rowwise(function, way)(torch.tensor([0.1, 0.2]), torch.ones(2, 3, 1, 1))
    # Under vmap a function sees one row, and PyTorch the batch.
    assert set(seen) == {1 if way == VMAP else ROWS}


def in_parts(t: Tensor, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """A flow and its divergence, as in continuous normalising flows."""
    x, _ = parts
    return t * x.tanh(), -t * (1 - x.tanh().square()).sum(1, keepdim=True)


@pytest.mark.parametrize("way", Way)
def test_states_in_parts(way):
    state = torch.randn(5, 3).double(), torch.randn(5, 1).double()
    times = torch.tensor([0.1, 0.2, 0.1, 0.3, 0.4], dtype=torch.float64)
    found = rowwise(in_parts, way)(times, state)
    assert isinstance(found, tuple)
    expected = rowwise(in_parts, ONE_BY_ONE)(times, state)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)
    assert choose(in_parts, state, times + torch.arange(5)).way == BROADCAST


def test_parts_of_different_dimensions_are_not_broadcast():
    state = torch.randn(5, 3, 2), torch.randn(5)
    choice = choose(lambda t, s: (t * s[0], t * s[1]), state, torch.linspace(0, 1, 5))
    assert choice.way == VMAP
    assert "different numbers of dimensions" in choice.reason


def test_rows_that_are_numbers():
    assert choose(lambda t, y: -t * y, torch.randn(5), torch.linspace(0, 1, 5)).way == BROADCAST


def in_a_circle(module):
    def function(t: Tensor, x: Tensor) -> Tensor:
        return module(t, x) if t is not None else function(t, x)

    return function


@pytest.mark.parametrize(
    "holder", ["method", "partial", "closure", "attribute", "circle", "global"]
)
def test_modules_are_found_wherever_a_function_holds_them(holder):
    module = changed(by_number_of_calls)

    class Holder:
        def __init__(self) -> None:
            self.net = module
            self.own = self.f

        def f(self, t: Tensor, x: Tensor) -> Tensor:
            return self.net(t, x)

    script = {"net": module}
    exec("def f(t, x): return net(t, x)", script)
    function = {
        "method": module.forward,
        "partial": partial(lambda net, t, x: net(t, x), module),
        "closure": lambda t, x: module(t, x),
        "attribute": Holder().f,
        "circle": in_a_circle(module),
        "global": script["f"],
    }[holder]
    assert choose(function, *trial()).way == ONE_BY_ONE
    assert module.calls == 0
    assert len(parameters_of(function)) == len(list(module.parameters()))


@pytest.mark.parametrize("times", [[0.5], [0.1, 0.1, 0.2]])
def test_states_to_compare_at_must_be_several_at_different_times(times):
    with pytest.raises(ValueError, match="two or more, at different times"):
        choose(lambda t, y: -y, torch.ones(len(times), 2), torch.tensor(times))


STEPS = {
    "convolution": lambda f, t, x: f.conv2(torch.cat([x, x[:, :1]], 1)),
    "normalisation": lambda f, t, x: f.norm1(x),
    "batch normalisation": lambda f, t, x: f.batch(x),
    "in place": lambda f, t, x: (x + 0).relu_(),
    "plus time": lambda f, t, x: x + t,
    "times time": lambda f, t, x: x * (torch.ones_like(x) * t),
    "view of time": lambda f, t, x: x + t.view(1, 1, 1, 1).expand(len(x), 1, 1, 1),
    "number of time": lambda f, t, x: x * float(t),
    "branch on time": lambda f, t, x: x.sin() if t < 0.3 else x.cos(),
    "any of all times": lambda f, t, x: x if bool((t > 0.3).any()) else -x,
    "mask": lambda f, t, x: torch.where(x > 0, x, 0.1 * x),
    "write by mask": lambda f, t, x: x.clone().masked_fill_(x < -1, -1),
    "mean over batch": lambda f, t, x: x - 0.5 * x.mean(0, keepdim=True),
    "sum along batch": lambda f, t, x: x.cumsum(0),
    "neighbour": lambda f, t, x: x + 0.01 * x.flip(0),
    "sort in rows": lambda f, t, x: x.flatten(1).sort(1).values.view_as(x),
    "largest of all": lambda f, t, x: x / (1 + x.abs().max()),
    "number of state": lambda f, t, x: x * (1 + x.abs().max().item()),
    "first row": lambda f, t, x: x + x[0],
    "constant": lambda f, t, x: x + f.count,
    "without gradient": lambda f, t, x: x + x.detach().sin(),
}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5),
    n=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_the_way_is_right_for_other_states_and_times(steps, n, seed):
    """Whatever a function is made of: its values and products are those of the loop."""

    def change(f, t, x):
        for step in steps:
            x = STEPS[step](f, t, x)
        return x

    function = changed(change, torch.float64)
    way = choose(function, *trial(torch.float64)).way
    generator = torch.Generator().manual_seed(seed)
    states = 3 * torch.randn(n, 4, 6, 6, generator=generator, dtype=torch.float64)
    times = torch.randint(8, (n,), generator=generator).double() / 8
    cotangent = torch.randn(states.shape, generator=generator, dtype=torch.float64)
    found = []
    for each in (way, ONE_BY_ONE):
        x = states.clone().requires_grad_()
        values = rowwise(function, each)(times, x)
        found.append((values, *torch.autograd.grad(values, x, cotangent)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
