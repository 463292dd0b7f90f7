"""Functions of a scalar time and a batch, evaluated at a time for each row.

torchdiffeq calls a right-hand side with one time for the whole batch, and that is how functions are
written. The solver has a time for each sample. There are several ways to get there; which of them
is right depends on the function, and `choose` finds out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from node_robustness.ode.parts import Parts, rows, spread
from node_robustness.ode.reads import noted_reads
from node_robustness.ode.side_effects import parameters_of, stop_dropout, undone
from node_robustness.ode.small_batches import ROWS, filled_up

State = Tensor | Parts
"""One tensor [n, ...], or several."""

Function = Callable[[Tensor, Any], Any]
"""A right-hand side: a time and a `State` to its derivative, like the state.

The time is a scalar in what a user writes and [n] in what `rowwise` returns.
"""


class Way(StrEnum):
    """How a function of a scalar time is evaluated at a time for each row."""

    BROADCAST = "broadcast"  # called with times [n, 1, 1, ...]
    VMAP = "vmap"  # vectorised over its rows by torch.func
    GROUPED = "grouped"  # called once for all rows that share a time
    ONE_BY_ONE = "one_by_one"  # called for each row


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        way: the fastest one that is right.
        error: its largest difference from the loop over rows, relative to the size of the values;
            zero for the loop itself.
        reason: why no faster way is right, one line; empty if there is none.
    """

    way: Way
    error: float
    reason: str


def rowwise(function: Function, way: Way) -> Function:
    """The function with times [n] in place of a scalar.

    Small batches are padded, except in the loop over rows.

    Raises:
        ValueError: (in a call) the function does not return a derivative for each row.
    """

    def evaluate(t: Tensor, state: State) -> State:
        def of_parts(t: Tensor, parts: Parts) -> Parts:
            if isinstance(state, Tensor):
                return derivative_like((function(t, parts[0]),), parts)
            return derivative_like(function(t, parts), parts)

        value = _EVALUATE[way](of_parts, t, parts_of(state))
        return value[0] if isinstance(state, Tensor) else value

    return evaluate


def parts_of(state: State) -> Parts:
    """The parts of a state; a tensor is one part."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


_OfParts = Callable[[Tensor, Parts], Parts]


def derivative_like(derivative: Sequence[Tensor], parts: Parts) -> Parts:
    """The derivative in the dtype and the shape of its state, as torchdiffeq takes it, too.

    Raises:
        ValueError: it has another number of parts or elements.
    """
    if [part.numel() for part in derivative] != [part.numel() for part in parts]:
        found, expected = ([tuple(part.shape) for part in each] for each in (derivative, parts))
        raise ValueError(f"a derivative of shape {found} for a state of shape {expected}")
    return tuple(
        value.to(part.dtype).reshape(part.shape)
        for value, part in zip(derivative, parts, strict=True)
    )


def _broadcast(function: _OfParts, t: Tensor, parts: Parts) -> Parts:
    if len({part.ndim for part in parts}) > 1:
        raise ValueError("the parts of the state have different numbers of dimensions")
    filled = tuple(map(filled_up, parts))
    return _first(len(t), function(spread(filled_up(t), filled[0]), filled))


def _vmapped(function: _OfParts, t: Tensor, parts: Parts) -> Parts:
    def of_row(t: Tensor, row: Parts) -> Parts:
        return tuple(part[0] for part in function(t, tuple(part[None] for part in row)))

    vectorised: _OfParts = torch.func.vmap(of_row, randomness="different")
    return _first(len(t), vectorised(filled_up(t), tuple(map(filled_up, parts))))


def _grouped(function: _OfParts, t: Tensor, parts: Parts) -> Parts:
    _, group = t.detach().unique(return_inverse=True)
    members = [(group == number).nonzero().flatten() for number in range(int(group.max()) + 1)]
    found = []
    for index in members:
        filled = tuple(map(filled_up, rows(parts, index)))
        found.append(_first(len(index), function(t[index[0]], filled)))
    return rows(_joined(found), torch.argsort(torch.cat(members)))


def _one_by_one(function: _OfParts, t: Tensor, parts: Parts) -> Parts:
    return _joined(
        [function(t[row], tuple(part[row : row + 1] for part in parts)) for row in range(len(t))]
    )


_EVALUATE: dict[Way, Callable[[_OfParts, Tensor, Parts], Parts]] = {
    Way.BROADCAST: _broadcast,
    Way.VMAP: _vmapped,
    Way.GROUPED: _grouped,
    Way.ONE_BY_ONE: _one_by_one,
}


def _first(n: int, parts: Parts) -> Parts:
    return tuple(part[:n] for part in parts)


def _joined(batches: Sequence[Parts]) -> Parts:
    return tuple(torch.cat(column) for column in zip(*batches, strict=True))


def choose(function: Function, states: State, times: Tensor) -> Choice:
    """The fastest right way to evaluate a function at a time for each row.

    A way is right if its values and its vector-Jacobian products (for state, time and parameters)
    are those of the loop over rows, if its rows are exactly independent, and if no value that
    differs between its rows is read as a number. The function's modules and the random state are
    afterwards as they were. Dropout is left out of the comparison.

    Args:
        function: of a scalar time and a batch.
        states: some to compare at, such as occur in a solve, [n, ...], n >= 2.
        times: of these states, all different, [n].

    Raises:
        ValueError: there are too few states, or times are not all different.
    """
    if len(times) < 2 or len(times.unique()) < len(times):
        raise ValueError(f"states must be two or more, at different times, not {times.tolist()}")
    with undone(function), torch.inference_mode(False):
        comparison = _Comparison(function, states, times)
        try:
            reads, unfit = comparison.reads()
        except Exception as error:  # whatever a user's function raises
            reads, unfit = set(), f"it does not take one row: {_line(error)}"
        if unfit:
            return Choice(Way.ONE_BY_ONE, 0.0, unfit)
        by_time = "time" in reads
        reasons = ["it reads the time as a number"] if by_time else []
        for way in (Way.GROUPED,) if by_time else (Way.BROADCAST, Way.VMAP, Way.GROUPED):
            try:
                gap = comparison.gap(way)
            except Exception as error:  # whatever a user's function raises
                reasons.append(f"{way}: {_line(error)}")
                continue
            if gap <= largest_rounding(parts_of(states)[0].dtype):
                return Choice(way, gap, "; ".join(reasons))
            mixed = gap == torch.inf
            what = "rows depend on each other" if mixed else f"a difference of {gap:.1g}"
            reasons.append(f"{way}: {what}")
    return Choice(Way.ONE_BY_ONE, 0.0, "; ".join(reasons))


_ATTEMPTS = 3
"""A way may differ at some states for rounding alone: next to a kink, products jump."""


class _Comparison:
    """Ways to evaluate a function, compared with the loop over rows."""

    def __init__(self, function: Function, states: State, times: Tensor) -> None:
        self._function = function
        self._single = isinstance(states, Tensor)
        # Copies, as tensors of inference mode take no part in products.
        self._parts = tuple(part.detach().clone() for part in parts_of(states))
        self._times = times.detach().clone()
        self._bound = largest_rounding(self._parts[0].dtype)

    def reads(self) -> tuple[set[str], str]:
        """What is read as a number, and why only the loop will do (empty if other ways may)."""
        given = rows(self._parts, self._everyone)
        arguments = {"time": (self._times,), "state": given}
        with undone(self._function), torch.no_grad(), noted_reads(arguments) as reads:
            self._evaluate(Way.ONE_BY_ONE, self._times, given)
        if not all(map(torch.equal, given, self._parts)):
            return reads, "it writes into the state that it is given"
        if "state" in reads:
            return reads, "it reads values of the state as numbers, for instance to branch on them"
        if not self._repeats():
            stop_dropout(self._function)
            if not self._repeats():
                return reads, "a second call gives other values: it is random, or remembers calls"
        return reads, ""

    def gap(self, way: Way) -> float:
        """The largest difference from the loop; infinite if rows depend on each other."""
        smallest = torch.inf
        for attempt in range(_ATTEMPTS):
            parts = tuple(part + 0.1 * attempt * (part.roll(1, 0) - part) for part in self._parts)
            found, independent = self._results(way, parts)
            if not independent:
                return torch.inf
            expected, _ = self._results(Way.ONE_BY_ONE, parts, like=way)
            smallest = min(smallest, difference(found, expected))
            if smallest <= self._bound:
                break
        # A larger batch, after the first: a function may remember the size of that one.
        with undone(self._function):
            first = self._values(way, self._everyone)
            more = self._everyone.repeat(ROWS + 1)
            return max(smallest, difference(self._values(way, more), rows(first, more)))

    @property
    def _everyone(self) -> Tensor:
        return torch.arange(len(self._times), device=self._times.device)

    def _repeats(self) -> bool:
        """Whether the order of the rows makes no difference."""
        backwards = self._everyone.flip(0)
        found = []
        for order in (self._everyone, backwards):
            with undone(self._function):
                found.append(self._values(Way.ONE_BY_ONE, order))
        return difference(rows(found[1], backwards), found[0]) <= self._bound

    @torch.no_grad()
    def _values(self, way: Way, order: Tensor) -> Parts:
        return self._evaluate(way, self._times[order], rows(self._parts, order))

    def _evaluate(self, way: Way, times: Tensor, parts: Parts) -> Parts:
        return parts_of(rowwise(self._function, way)(times, parts[0] if self._single else parts))

    def _results(self, way: Way, parts: Parts, like: Way | None = None) -> tuple[Parts, bool]:
        """Values and products of a way, each [rows, ...], and whether rows are independent.

        The times, and whether they have products, are as the way `like` needs them (`way` itself).
        The products for all parameters are one row: of a bias before a normalisation that removes
        it there is rounding alone.
        """
        times, with_times = self._times, True
        if (like or way) == Way.GROUPED:
            # Rows in pairs at one time, which has one product for both.
            times, with_times = times[self._everyone // 2], False
        generator = torch.Generator().manual_seed(0)
        cotangents = tuple(
            torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device)
            for part in parts
        )
        with undone(self._function), torch.enable_grad():
            time = times.clone().requires_grad_(with_times)
            leaves = tuple(part.clone().requires_grad_() for part in parts)
            values = self._evaluate(way, time.clone(), tuple(leaf.clone() for leaf in leaves))
            wanted = (time, *leaves) if with_times else leaves
            products = vector_jacobian_products(
                values, (*wanted, *parameters_of(self._function)), cotangents
            )
            for cotangent in cotangents:
                cotangent[1::2] = 0
            of_even_rows = vector_jacobian_products(values, wanted, cotangents)
        by_rows, of_parameters = products[: len(wanted)], products[len(wanted) :]
        flat = [values[0].new_zeros(0), *(product.flatten() for product in of_parameters)]
        compared = (*values, *by_rows, torch.cat(flat)[None])
        return compared, not any(bool(product[1::2].any()) for product in of_even_rows)


def vector_jacobian_products(values: Parts, wanted: Parts, cotangents: Parts) -> Parts:
    """Vector-Jacobian products; zero where there is no dependence."""
    pairs = [pair for pair in zip(values, cotangents, strict=True) if pair[0].requires_grad]
    if not pairs:
        return tuple(map(torch.zeros_like, wanted))
    outputs, along = zip(*pairs, strict=True)
    return torch.autograd.grad(
        outputs, wanted, along, retain_graph=True, allow_unused=True, materialize_grads=True
    )


def largest_rounding(dtype: torch.dtype) -> float:
    """The largest `difference` that rounding explains."""
    return min(1000 * torch.finfo(dtype).eps, 0.01)


def difference(found: Parts, expected: Parts) -> float:
    """The largest difference of tensors [rows, ...].

    It is relative to the largest value of its row, or a thousandth of the largest of all rows.
    """
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if not other.numel():
            continue
        one, other = (values.detach().reshape(len(values), -1) for values in (one, other))
        size = other.abs().amax(1)
        size = torch.maximum(size, 1e-3 * size.max())
        distance = (one - other).abs().amax(1)
        relative = torch.where(distance == 0, 0.0, distance / size)
        worst = max(worst, float(relative.nan_to_num(torch.inf).max()))
    return worst


def _line(error: Exception) -> str:
    """The first line of an error, cut to a readable length."""
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line[:150]}"
