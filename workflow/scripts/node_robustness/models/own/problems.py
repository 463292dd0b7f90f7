"""Initial value problems of a user's code, solved with separate steps for each image."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from node_robustness.models.ode_body import ODEBody, SolverSettings
from node_robustness.models.ode_function import RightHandSide
from node_robustness.models.own.interception import Call
from node_robustness.ode.adjoint import AdjointSettings, with_adjoint_gradient
from node_robustness.ode.options import ADAPTIVE, FIXED, fixed_grid, step_sizes
from node_robustness.ode.parts import Parts
from node_robustness.ode.parts import norm as largest_rms
from node_robustness.ode.products import Products, row_products
from node_robustness.ode.rows import State, Way, parts_of, rowwise
from node_robustness.ode.side_effects import parameters_of
from node_robustness.ode.solve import Dynamics, Solution, solve, solve_parts
from node_robustness.ode.step_control import StepSizes
from node_robustness.ode.tableaus import TABLEAUS

_FORMER_NAMES = {"fixed_adams": "implicit_adams"}
_OPTIONS = {*ADAPTIVE, *FIXED}


def obstacle(call: Call) -> str | None:
    """Why the batched solver cannot answer a call; None if it can."""
    arguments = call.arguments
    if call.name == "odeint_dense":
        return "it calls odeint_dense"
    if arguments["event_fn"] is not None:
        return "it ends at an event"
    if method_of(call) not in TABLEAUS:
        return f"it uses the method {arguments['method']}"
    others = sorted({*(arguments["options"] or {})} - _OPTIONS)
    if others:
        return f"it sets the option {others[0]}"
    if any(name.startswith("callback_") for name in dir(arguments["func"])):
        return "its right-hand side has callbacks"
    if any(size(arguments[name]) > 1 for name in ("rtol", "atol")):
        return "it has several tolerances"
    if TABLEAUS[method_of(call)].error and not any(
        _number(arguments[name]) > 0 for name in ("rtol", "atol")
    ):
        return "its tolerances are not positive"
    state = arguments["y0"]
    if any(part.ndim < 1 + isinstance(state, Tensor) for part in parts_of(state)):
        return "its state has no dimension for images, or no other"
    if not all(part.is_floating_point() for part in parts_of(arguments["y0"])):
        return "its state is not made of real numbers"
    return None


def method_of(call: Call) -> str:
    """The present name of the method; torchdiffeq's default is dopri5."""
    method: str = call.arguments["method"] or "dopri5"
    return _FORMER_NAMES.get(method, method)


def size(tolerance: Any) -> int:
    """How many tolerances there are."""
    return tolerance.numel() if isinstance(tolerance, Tensor) else np.size(tolerance)


@dataclass(frozen=True)
class Layout:
    """How the state of a user's code, of n images, is one tensor and back.

    Attributes:
        shapes: of the parts of a tuple, without the dimension of images; None for a tensor.
        shape: of the tensor, without the dimension of images.
    """

    shapes: tuple[tuple[int, ...], ...] | None
    shape: tuple[int, ...]

    @classmethod
    def of(cls, state: State) -> "Layout":
        """The layout of a state."""
        if isinstance(state, Tensor):
            return cls(None, tuple(state.shape[1:]))
        shapes = tuple(tuple(part.shape[1:]) for part in state)
        return cls(shapes, (sum(map(prod, shapes)),))

    def join(self, state: State) -> Tensor:
        """A state as one tensor [n, ...]."""
        if isinstance(state, Tensor):
            return state
        return torch.cat([part.reshape(len(part), -1) for part in state], dim=1)

    def join_times(self, parts: Parts) -> Tensor:
        """Parts [T, n, ...] as one tensor [T, n, ...]."""
        if self.shapes is None:
            return parts[0]
        return torch.cat([part.reshape(*part.shape[:2], -1) for part in parts], dim=2)

    def split(self, joined: Tensor) -> Any:
        """A tensor [..., *shape] as the state of the user's code, with the same leading sizes.

        Its parts are contiguous, as torchdiffeq's are for one image: code may call `view` on them.
        """
        if self.shapes is None:
            return joined
        parts = joined.split([prod(shape) for shape in self.shapes], dim=-1)
        return tuple(
            (part.unflatten(-1, shape) if shape else part.squeeze(-1)).contiguous()
            for part, shape in zip(parts, self.shapes, strict=True)
        )

    @property
    def norm(self) -> Callable[[Tensor], Tensor] | None:
        """The norm of torchdiffeq for a tuple, the largest RMS of its parts; None for a tensor."""
        if self.shapes is None:
            return None
        sizes = [prod(shape) for shape in self.shapes]
        return lambda errors: largest_rms(errors.split(sizes, dim=1))

    @cached_property
    def presented(self) -> tuple[int, int, int]:
        """The shape C, H, W in which states are shown to what measures them."""
        if self.shapes is None and len(self.shape) in (2, 3):
            channels, height, *width = self.shape
            return channels, height, width[0] if width else 1
        return prod(self.shape), 1, 1


@dataclass(frozen=True)
class Problem:
    """An initial value problem for n images; its time increases, and runs from `times[0]`.

    Where the author's time decreases it is the negative of that, as in torchdiffeq.

    Attributes:
        function: the author's right-hand side, of a scalar time and a state.
        layout: of the state.
        direction: 1 if the author's time increases, else -1.
        times: output times.
        time_dtype: of the author's times.
        method: a name in `ode.tableaus.TABLEAUS`.
        rtol: the author's relative tolerance.
        atol: the author's absolute tolerance.
        grid: from output times to the times between which a method of fixed steps steps; None for
            adaptive steps.
        way: how images at different times share an evaluation.
        parameters: of the right-hand side, in the author's adjoint equation.
        adjoint: the author's relative and absolute tolerance of that equation.
        sizes: how adaptive steps are sized.
    """

    function: Callable[[Tensor, Any], Any]
    layout: Layout
    direction: int
    times: tuple[float, ...]
    time_dtype: torch.dtype
    method: str
    rtol: float
    atol: float
    grid: Callable[[Tensor], Tensor] | None
    way: Way
    parameters: tuple[Tensor, ...]
    adjoint: tuple[float, float]
    sizes: StepSizes

    @classmethod
    def of(cls, call: Call, way: Way) -> "Problem":
        """The problem of a call without an `obstacle`."""
        arguments, method = call.arguments, method_of(call)
        initial, t = arguments["y0"], call.times
        direction = _direction(t)
        rtol, atol = (_number(arguments[name]) for name in ("rtol", "atol"))
        adjoint = (arguments.get(f"adjoint_{name}") for name in ("rtol", "atol"))
        backward = (
            _number(a) if a is not None else b for a, b in zip(adjoint, (rtol, atol), strict=True)
        )
        return cls(
            function=arguments["func"],
            layout=Layout.of(initial),
            direction=direction,
            times=tuple((direction * t).tolist()),
            time_dtype=t.dtype,
            method=method,
            rtol=rtol,
            atol=atol,
            grid=None if TABLEAUS[method].error else partial(grid, call),
            way=way,
            parameters=adjoint_parameters(call),
            adjoint=(next(backward), next(backward)),
            sizes=step_sizes(arguments["options"] or {}),
        )

    @property
    def tolerance(self) -> float:
        """The larger of both tolerances: the tau of the author."""
        return max(self.rtol, self.atol)

    def settings(self, max_steps: int, changes: dict[str, Any]) -> SolverSettings:
        """The author's settings with changes."""
        steps = None if self.grid is None else len(self.nodes(self.times)) - 1
        author = SolverSettings(self.method, self.tolerance, max_steps, steps)
        return replace(author, **changes)

    def nodes(self, times: Sequence[float]) -> Tensor:
        """The times between which fixed steps go, from the first to the last of some times."""
        assert self.grid is not None
        t = torch.tensor(times, dtype=self.time_dtype) * self.direction
        return self.grid(t).cpu().double() * self.direction

    @cached_property
    def dynamics(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The right-hand side for times [m] and joined states [m, ...]."""
        layout, rows, sign = self.layout, rowwise(self.function, self.way), self.direction
        if layout.shapes is None and sign == 1:
            return rows
        return lambda t, state: sign * layout.join(rows(sign * t, layout.split(state)))

    def products(self, parameters: Sequence[Tensor]) -> Products:
        """Vector-Jacobian products, also for these parameters, which may be frozen."""
        products = row_products(self.of_parts, self.way, parameters)

        def evaluate(t: Tensor, state: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
            frozen = [each for each in parameters if not each.requires_grad]
            for parameter in frozen:
                parameter.requires_grad_()
            try:
                return products.evaluate(t, state, cotangents)
            finally:
                for parameter in frozen:
                    parameter.requires_grad_(False)

        return Products(evaluate, products.sizes)

    def of_parts(self, t: Tensor, parts: Parts) -> Parts:
        """The right-hand side for a scalar time and the parts of a state."""
        sign = self.direction
        if self.layout.shapes is None:
            return (sign * self.function(sign * t, parts[0]),)
        return tuple(sign * part for part in self.function(sign * t, parts))


def ratio(rtol: float, atol: float) -> tuple[float, float]:
    """Both tolerances over the larger one; fixed steps may have tolerances of zero."""
    larger = max(rtol, atol)
    return (rtol / larger, atol / larger) if larger else (1.0, 1.0)


def _direction(t: Tensor) -> int:
    return -1 if len(t) > 1 and bool(t[0] > t[1]) else 1


def _number(tolerance: Any) -> float:
    return float(torch.as_tensor(tolerance, dtype=torch.float64))


def adjoint_parameters(call: Call) -> tuple[Tensor, ...]:
    """The parameters in the adjoint equation of a call: those named, or those of its module.

    Of a function that is no module, where torchdiffeq asks for names, those that are learned.
    """
    function, named = call.arguments["func"], call.arguments.get("adjoint_params")
    if named is not None:
        return tuple(named)
    if isinstance(function, nn.Module):
        return tuple(function.parameters())
    return tuple(parameters_of(function))


def grid(call: Call, t: Tensor) -> Tensor:
    """The times between which a method of fixed steps steps, as torchdiffeq computes them.

    Args:
        call: sets the steps.
        t: output times, [T].
    """
    arguments = call.arguments
    return fixed_grid(arguments["func"], arguments["y0"], t, arguments["options"] or {})


class OwnFunction(RightHandSide):
    """The dynamics of a problem, shown in states [n, C, H, W] and a time from 0 to 1."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def bind(self, like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """See `RightHandSide.bind`."""
        problem = self.problem
        first, last = problem.times[0], problem.times[-1]
        length, shape = last - first, problem.layout.shape

        def function(t: Tensor, h: Tensor) -> Tensor:
            time = first + length * t.expand(len(h))
            value = problem.dynamics(time, h.reshape(len(h), *shape)).view_as(h)
            return value if length == 1 else value * length

        return function


class OwnBody(ODEBody):
    """A solve of a user's code, as the body of a network.

    States are shown as [n, C, H, W] and times as 0 to 1; the solve itself has the author's times,
    tolerances and norm.

    Args:
        problem: what is solved.
        settings: how.
        as_written: whether fixed steps are the author's, and not as many equal ones.
    """

    function: OwnFunction

    def __init__(self, problem: Problem, settings: SolverSettings, as_written: bool) -> None:
        super().__init__(OwnFunction(problem), settings)
        self.problem = problem
        self.as_written = as_written

    def at(self, **changes: Any) -> "OwnBody":
        """See `ODEBody.at`."""
        view = super().at(**changes)
        view.as_written = self.as_written and not {"method", "steps"} & changes.keys()
        return view

    def solve(
        self,
        h: Tensor,
        times: tuple[float, ...] | Tensor,
        keep_nodes: bool = False,
        keep_node_states: bool = False,
        keep_work: bool = False,
        nodes: Sequence[Tensor] | None = None,
    ) -> Solution:
        """See `ODEBody.solve`."""
        inner = self._inner(torch.as_tensor(times, dtype=torch.float64))
        solution = self.solve_inner(
            h.reshape(len(h), *self.problem.layout.shape),
            inner if isinstance(times, Tensor) else tuple(inner.tolist()),
            nodes=None if nodes is None else [self._inner(own) for own in nodes],
            keep_nodes=keep_nodes,
            keep_node_states=keep_node_states,
            keep_work=keep_work,
        )
        shape = self.problem.layout.presented
        return replace(
            solution,
            parts=(solution.states.flatten(2).unflatten(2, shape),),
            nodes=[self._outer(own) for own in solution.nodes],
            node_states=[states.reshape(len(states), *shape) for states in solution.node_states],
        )

    def solve_inner(
        self, initial: Tensor, times: tuple[float, ...] | Tensor, **kept: Any
    ) -> Solution:
        """Solve in the problem's time and layout.

        Args:
            initial: joined states at the first time, [n, ...].
            times: increasing.
            **kept: see `ode.solve.solve`.
        """
        problem, settings = self.problem, self.settings
        if kept.get("nodes") is None and self._as_written:
            first = float(times[0, 0] if isinstance(times, Tensor) else times[0])
            nodes = problem.nodes(problem.times)
            # The solve may begin between two of the author's nodes.
            nodes = torch.cat([nodes.new_tensor([first]), nodes[nodes > first]])
            kept["nodes"] = [nodes] * len(initial)
        return solve(
            problem.dynamics,
            initial,
            times,
            tolerance=settings.tolerance,
            ratio=ratio(problem.rtol, problem.atol),
            norm=problem.layout.norm,
            sizes=problem.sizes,
            method=settings.method,
            steps=settings.steps,
            max_steps=settings.max_steps,
            checkpoint=settings.checkpoint,
            **kept,
        )

    def advance(self, initial: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states at the output times from joined initial states [n, ...], with a gradient.

        Returns:
            [T, n, ...], function evaluations int32 [n], and status int64 [n].
        """
        adjoint = self.settings.gradient == "adjoint" and torch.is_grad_enabled()
        with torch.no_grad() if adjoint else nullcontext():
            solution = self.solve_inner(initial, self.problem.times)
        states = self._with_adjoint(initial, solution.states) if adjoint else solution.states
        return states, solution.nfe.int(), solution.status

    def forward(self, h: Tensor) -> Tensor:
        """See `ODEBody.forward`."""
        states, self.nfe, self.status = self.advance(h.reshape(len(h), *self.problem.layout.shape))
        return states[-1].reshape(h.shape)

    def _with_adjoint(self, initial: Tensor, states: Tensor) -> Tensor:
        problem, settings, layout = self.problem, self.settings, self.problem.layout
        full = settings.adjoint_norm == "full"
        learned = tuple(each for each in problem.parameters if each.requires_grad)
        counted = learned or (problem.parameters if full else ())

        def note(evaluations: Tensor, _status: Tensor) -> None:
            self.nfe_backward = evaluations

        tolerance = settings.adjoint_tolerance
        if tolerance is None:
            tolerance = settings.tolerance
            if problem.tolerance:
                tolerance = tolerance * (max(problem.adjoint) / problem.tolerance)
        found = with_adjoint_gradient(
            parts_of(layout.split(initial)),
            parts_of(layout.split(states)),
            problem.times,
            problem.products(counted),
            AdjointSettings(
                tolerance=tolerance,
                method=settings.method,
                steps=settings.steps,
                max_steps=settings.max_steps,
                parameters_in_norm=full,
                ratio=ratio(*problem.adjoint),
                sizes=problem.sizes,
                nodes=self._nodes_between if self._as_written else None,
            ),
            note,
            learned,
        )
        return layout.join_times(found)

    @property
    def _as_written(self) -> bool:
        return self.as_written and self.problem.grid is not None

    def _nodes_between(self, first: float, last: float) -> Tensor:
        return self.problem.nodes((first, last))

    def of_samples(self, chosen: Tensor) -> "OwnBody":
        """The body of the images in `chosen`, bool [n]."""
        tolerance = self.settings.tolerance
        if not isinstance(tolerance, Tensor):
            return self
        return self.at(tolerance=tolerance[chosen.to(tolerance.device)])

    def integrate(self, dynamics: Dynamics, initial: Parts, times: Sequence[float]) -> Solution:
        """See `ODEBody.integrate`."""
        first, last = self.problem.times[0], self.problem.times[-1]
        length = last - first

        def inner(t: Tensor, parts: Parts) -> Parts:
            return tuple(part / length for part in dynamics((t - first) / length, parts))

        moments = self._inner(torch.tensor(times, dtype=torch.float64)).tolist()
        return solve_parts(
            dynamics if length == 1 and first == 0 else inner,
            initial,
            moments,
            tolerance=self.settings.tolerance,
            ratio=ratio(self.problem.rtol, self.problem.atol),
            method=self.settings.method,
            steps=self.settings.steps,
            max_steps=self.settings.max_steps,
        )

    def _inner(self, times: Tensor) -> Tensor:
        """Times from 0 to 1 in the problem's time; 1 is exactly the last output time."""
        first, last = self.problem.times[0], self.problem.times[-1]
        return torch.where(times == 1, last, first + (last - first) * times)

    def _outer(self, times: Tensor) -> Tensor:
        first, last = self.problem.times[0], self.problem.times[-1]
        return (times - first) / (last - first)
