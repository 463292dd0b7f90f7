"""torchdiffeq's `odeint` and `odeint_adjoint`, with separate steps for each sample of a batch.

Signatures, defaults and results are those of torchdiffeq 0.2.5. The first dimension of the state is
the batch, and a sample's result is what torchdiffeq computes for that sample alone. There are two
differences. Step sizes are constants to autograd, also the first one. And the right-hand side is
called in the way that `ode.rows.choose` finds, once for each function and shape of the state.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.ode.adjoint import AdjointSettings, with_adjoint_gradient
from node_robustness.ode.options import ADAPTIVE, FIXED, fixed_grid, step_sizes
from node_robustness.ode.parts import Parts
from node_robustness.ode.products import Agreement, row_products
from node_robustness.ode.rows import Function, State, Way, choose, parts_of, rowwise
from node_robustness.ode.side_effects import modules_of, outer_modules_of
from node_robustness.ode.solve import Status, solve_parts
from node_robustness.ode.step_control import StepSizes
from node_robustness.ode.tableaus import TABLEAUS


class SolveError(AssertionError):
    """A sample was not solved; torchdiffeq raises an `AssertionError` with these words, too."""


_WORDS = {
    Status.MAX_STEPS: "max_num_steps exceeded",
    Status.UNDERFLOW: "underflow in dt",
    Status.NONFINITE: "non-finite values in state `y`",
}


def odeint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    way: Way | None = None,
) -> Any:
    """Solve dy/dt = func(t, y) from y(t[0]) = y0, each sample with its own steps.

    Gradients, for `y0` and for all that `func` uses, pass through the steps.

    Args:
        func: takes a scalar time and a state, returns the derivative, like the state.
        y0: a tensor [N, ...] or a tuple of such tensors; the first dimension is the batch.
        t: output times, strictly increasing or strictly decreasing, [T].
        rtol: relative tolerance, a number.
        atol: absolute tolerance, a number.
        method: a name in `ode.tableaus.TABLEAUS`; None for dopri5.
        options: `first_step`, `safety`, `ifactor`, `dfactor` and `max_num_steps` of an adaptive
            method (the last one here on the average of the output times), `step_size` or
            `grid_constructor` of another.
        event_fn: not supported.
        way: how `func` is evaluated at a time for each sample; None to find out.

    Returns:
        The state at the output times, [T, N, ...], or a tuple of such tensors.

    Raises:
        UserError: an argument is wrong or not supported.
        SolveError: a sample was not solved.
    """
    problem = _Problem.of("odeint", func, y0, t, event_fn, way)
    solver = _Solver.of("odeint", rtol, atol, method, options)
    return problem.returned(problem.solve(solver))


def odeint_adjoint(
    func: Function,
    y0: State,
    t: Tensor,
    *,
    rtol: float | Tensor = 1e-7,
    atol: float | Tensor = 1e-9,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    event_fn: None = None,
    adjoint_rtol: float | Tensor | None = None,
    adjoint_atol: float | Tensor | None = None,
    adjoint_method: str | None = None,
    adjoint_options: Mapping[str, Any] | None = None,
    adjoint_params: Iterable[Tensor] | None = None,
    way: Way | None = None,
) -> Any:
    """The same as `odeint`, with gradients by solving the adjoint equation backwards.

    Args:
        func: see `odeint`; a module, unless `adjoint_params` are given.
        y0: see `odeint`.
        t: see `odeint`.
        rtol: see `odeint`.
        atol: see `odeint`.
        method: see `odeint`.
        options: see `odeint`.
        event_fn: not supported.
        adjoint_rtol: of the backward solve; None for `rtol`.
        adjoint_atol: of the backward solve; None for `atol`.
        adjoint_method: of the backward solve; None for `method`.
        adjoint_options: of the backward solve, with `norm` "seminorm" to leave the parameters out
            of the error norm; None for `options`.
        adjoint_params: tensors that get gradients; None for the parameters of `func`.
        way: see `odeint`.

    Returns:
        See `odeint`.

    Raises:
        UserError: an argument is wrong or not supported.
        SolveError: a sample was not solved, forwards or, in the backward pass, backwards.
    """
    name = "odeint_adjoint"
    if adjoint_params is None:
        if not isinstance(func, nn.Module):
            raise UserError(f"{name}: func is not a torch.nn.Module; give adjoint_params")
        adjoint_params = func.parameters()
    parameters = tuple(each for each in adjoint_params if each.requires_grad)
    if adjoint_options is None:
        if options and adjoint_method not in (None, method):
            raise UserError(f"{name}: adjoint_method differs from method; give adjoint_options")
        adjoint_options = {key: value for key, value in (options or {}).items() if key != "norm"}
    norm = adjoint_options.get("norm")
    if norm not in (None, "seminorm"):
        raise UserError(f"{name}: a norm in adjoint_options is not supported, except 'seminorm'")
    problem = _Problem.of(name, func, y0, t, event_fn, way)
    solver = _Solver.of(name, rtol, atol, method, options)
    backwards = _Solver.of(
        name,
        rtol if adjoint_rtol is None else adjoint_rtol,
        atol if adjoint_atol is None else adjoint_atol,
        method if adjoint_method is None else adjoint_method,
        {key: value for key, value in adjoint_options.items() if key != "norm"},
    )
    with torch.no_grad():
        solved = problem.solve(solver)
    if torch.is_grad_enabled():
        solved = problem.with_adjoint(solved, backwards, parameters, norm is None)
    return problem.returned(solved)


@dataclass(frozen=True)
class _Solver:
    """A method with its tolerances and options."""

    method: str
    rtol: float
    atol: float
    options: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        rtol: float | Tensor,
        atol: float | Tensor,
        method: str | None,
        options: Mapping[str, Any] | None,
    ) -> "_Solver":
        method, options = method or "dopri5", options or {}
        if method not in TABLEAUS:
            known = ", ".join(TABLEAUS)
            raise UserError(f"{name}: method {method!r} is not supported; use one of {known}")
        supported = ADAPTIVE if TABLEAUS[method].error else FIXED
        others = [key for key in options if key not in supported]
        if others:
            known = ", ".join(supported)
            raise UserError(
                f"{name}: option {others[0]!r} of {method} is not supported; use {known}"
            )
        if options.keys() >= set(FIXED):
            raise UserError(f"{name}: give step_size or grid_constructor, not both")
        return cls(method, _number(name, "rtol", rtol), _number(name, "atol", atol), options)

    @property
    def adaptive(self) -> bool:
        return bool(TABLEAUS[self.method].error)

    def max_steps(self, intervals: int) -> int:
        """As torchdiffeq counts the steps from each output time to the next."""
        return int(self.options.get("max_num_steps", 2**31 - 1)) * intervals

    @property
    def sizes(self) -> StepSizes:
        """How adaptive steps are sized."""
        return step_sizes(self.options)

    def nodes(self, func: Function, y0: State, t: Tensor) -> Tensor:
        """The times between which fixed steps lie, as in torchdiffeq, float64 on the CPU."""
        grid = fixed_grid(func, y0, t, self.options)
        if grid[0] != t[0] or grid[-1] != t[-1]:
            raise UserError("the steps of grid_constructor must begin at t[0] and end at t[-1]")
        nodes: Tensor = grid.detach().to("cpu", torch.float64).unique_consecutive()
        return nodes


def _number(name: str, key: str, value: float | Tensor) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name}: {key} must be one number for all parts of the state") from None


_CALLBACKS = [
    f"callback_{event}{which}"
    for event in ("step", "accept_step", "reject_step")
    for which in ("", "_adjoint")
]


@dataclass(frozen=True)
class _Problem:
    """An initial value problem of a batch."""

    name: str
    func: Function
    y0: State
    t: Tensor
    way: Way

    @classmethod
    def of(
        cls, name: str, func: Function, y0: State, t: Tensor, event_fn: object, way: Way | None
    ) -> "_Problem":
        callback = next((each for each in _CALLBACKS if hasattr(func, each)), None)
        if callback is not None:
            raise UserError(
                f"{name}: {callback} of func is not supported; use torchdiffeq's {name}"
            )
        if event_fn is not None:
            raise UserError(f"{name}: event_fn is not supported; use torchdiffeq's {name}")
        if not isinstance(t, Tensor) or t.ndim != 1 or not len(t) or not t.is_floating_point():
            raise UserError(f"{name}: t must be a tensor [T] of floating point numbers")
        gaps = t.diff()
        if not (bool((gaps > 0).all()) or bool((gaps < 0).all())):
            raise UserError(f"{name}: t must strictly increase or decrease")
        if t.requires_grad:
            raise UserError(f"{name}: a gradient for t is not supported; use torchdiffeq's {name}")
        if not isinstance(y0, Tensor | tuple):
            raise UserError(f"{name}: y0 must be a tensor or a tuple of tensors")
        sizes = {tuple(part.shape[:1]) for part in parts_of(y0)}
        if len(sizes) != 1 or sizes & {(), (0,)}:
            raise UserError(f"{name}: the first dimension of y0 must be the batch, in every part")
        if not all(part.is_floating_point() for part in parts_of(y0)):
            raise UserError(f"{name}: y0 must be of real floating point numbers")
        return cls(name, func, y0, t, way or (_way(func, y0, t) if len(t) > 1 else Way.ONE_BY_ONE))

    @property
    def times(self) -> tuple[float, ...]:
        return tuple(self.t.tolist())

    @property
    def of_parts(self) -> Function:
        """The right-hand side for a state in parts."""
        func = self.func  # in the closure, so that its modules are found
        return (lambda t, parts: (func(t, parts[0]),)) if isinstance(self.y0, Tensor) else func

    def solve(self, solver: _Solver) -> Parts:
        """The parts at the output times, each [T, N, ...]."""
        initial = parts_of(self.y0)
        if len(self.t) == 1:
            return tuple(part[None] for part in initial)
        nodes = None
        if not solver.adaptive:
            nodes = [solver.nodes(self.func, self.y0, self.t)] * len(initial[0])
        solution = solve_parts(
            rowwise(self.of_parts, self.way),
            initial,
            self.times,
            tolerance=1.0,
            ratio=(solver.rtol, solver.atol),
            method=solver.method,
            nodes=nodes,
            sizes=solver.sizes,
            max_steps=solver.max_steps(len(self.t) - 1),
        )
        if solver.adaptive:
            _check(solution.status, "")
        return solution.parts

    def with_adjoint(
        self, solved: Parts, solver: _Solver, parameters: Parts, in_norm: bool
    ) -> Parts:
        """The parts with gradients by a backward solve."""

        def nodes(first: float, last: float) -> Tensor:
            span = torch.tensor([first, last], dtype=self.t.dtype, device=self.t.device)
            return solver.nodes(self.func, self.y0, span)

        def note(_evaluations: Tensor, status: Tensor) -> None:
            if solver.adaptive:
                _check(status, " backwards")

        settings = AdjointSettings(
            tolerance=1.0,
            method=solver.method,
            steps=None,
            max_steps=solver.max_steps(1),
            parameters_in_norm=in_norm,
            ratio=(solver.rtol, solver.atol),
            nodes=None if solver.adaptive else nodes,
            sizes=solver.sizes,
        )
        agreement = _known(self.func, self.y0).agreement
        products = row_products(self.of_parts, self.way, parameters, agreement)
        initial = parts_of(self.y0)
        return with_adjoint_gradient(
            initial, solved, self.times, products, settings, note, parameters
        )

    def returned(self, parts: Parts) -> State:
        """The parts as the user gave the state."""
        return parts[0] if isinstance(self.y0, Tensor) else parts


def _check(status: Tensor, where: str) -> None:
    failed = status.nonzero().flatten().tolist()
    if failed:
        words = _WORDS[Status(int(status[failed[0]]))]
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        raise SolveError(f"{words}: sample {failed[0]}{more} of {len(status)} not solved{where}")


@dataclass
class _Known:
    """What was found out about a right-hand side."""

    agreement: Agreement = field(default_factory=Agreement)
    way: Way | None = None


_known_functions: WeakKeyDictionary[Any, dict[Any, _Known]] = WeakKeyDictionary()


def _known(func: Function, y0: State) -> _Known:
    """What is known for the shape of a state; forgotten with the module that the function calls."""
    owner = next(outer_modules_of(func), getattr(func, "__self__", func))
    key = (
        getattr(func, "__code__", type(func)),
        tuple(module.training for module in modules_of(func)),
        tuple((part.shape[1:], part.dtype, part.device) for part in parts_of(y0)),
    )
    try:
        return _known_functions.setdefault(owner, {}).setdefault(key, _Known())
    except TypeError:  # nothing is kept for an object that is not hashable
        return _Known()


def _way(func: Function, y0: State, t: Tensor) -> Way:
    """How to evaluate a function at a time for each sample."""
    known = _known(func, y0)
    if known.way is None:
        choice = choose(func, *_trial(y0, t))
        known.way = choice.way
        if choice.way == Way.ONE_BY_ONE:
            reason = f"func is called for one sample at a time: {choice.reason}"
            warnings.warn(reason, stacklevel=4)
    return known.way


def _trial(y0: State, t: Tensor, rows: int = 6) -> tuple[State, Tensor]:
    """States and times to compare ways at: samples of the batch, each a little larger."""
    parts = tuple(part.detach() for part in parts_of(y0))
    index = torch.arange(rows, device=parts[0].device)
    factors = [1 + 0.05 * index.to(part.dtype).view(-1, *[1] * (part.ndim - 1)) for part in parts]
    states = tuple(
        part[index % len(part)] * factor for part, factor in zip(parts, factors, strict=True)
    )
    shares = torch.linspace(0, 1, rows + 2, dtype=torch.float64)[1:-1]
    times = (t[0] + (t[-1] - t[0]) * shares.to(t.device)).to(parts[0])
    return states[0] if isinstance(y0, Tensor) else states, times
