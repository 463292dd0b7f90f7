"""Forward passes of a user's module in which calls of torchdiffeq are answered otherwise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.models.differentiation import gradients
from node_robustness.models.ode_body import FAILURES, uniform_grid
from node_robustness.models.own.interception import Call, intercepting
from node_robustness.models.own.modules import copied
from node_robustness.models.own.problems import OwnBody, Problem, adjoint_parameters, method_of
from node_robustness.ode.parts import spread
from node_robustness.ode.rows import Way
from node_robustness.ode.solve import Solution, Status
from node_robustness.ode.tableaus import TABLEAUS

Changes = Mapping[str, Any]
"""Fields of `SolverSettings` that differ from the author's."""


class BatchedPass:
    """Answers the solves of a pass over n images with separate steps for each.

    Args:
        ways: of the solves, in order.
        max_steps: see `SolverSettings`.
        changes: to the author's settings.
        training: whether a failed solve is an error, as the loss would be lost.

    Attributes:
        nfe: function evaluations of each image, int32 [n], for each solve so far.
        status: the `ode.solve.Status` of each image in each solve so far, int64 [n].
    """

    def __init__(
        self, ways: Sequence[Way], max_steps: int, changes: Changes, training: bool = False
    ) -> None:
        self._ways = ways
        self._max_steps = max_steps
        self._changes = dict(changes)
        self._training = training
        self._count = 0
        self.nfe: list[Tensor] = []
        self.status: list[Tensor] = []

    def __call__(self, call: Call) -> Any:
        """The states at the output times, as the user's code expects them."""
        number, self._count = self._count, self._count + 1
        if number >= len(self._ways):
            raise UserError(
                f"the network solves more than the {len(self._ways)} ODEs that were found in it: "
                "the number of solves must not depend on the images"
            )
        return self.answer(number, call)

    def answer(self, number: int, call: Call) -> Any:
        """The answer to a solve, by its number in the pass."""
        body = self.body(number, call)
        initial = body.problem.layout.join(call.arguments["y0"])
        return body.problem.layout.split(self._states(body, initial))

    def body(self, number: int, call: Call) -> OwnBody:
        """What solves a call."""
        problem = Problem.of(call, self._ways[number])
        settings = problem.settings(self._max_steps, self._changes)
        return OwnBody(problem, settings, as_written=not {"method", "steps"} & {*self._changes})

    def _states(self, body: OwnBody, initial: Tensor) -> Tensor:
        """The states at the output times, [T, n, ...]; NaN where a solve has failed."""
        finite = torch.isfinite(initial.detach()).flatten(1).all(1)
        if self._training or bool(finite.all()):
            states, nfe, status = body.advance(initial)
        else:
            states = (initial * torch.nan).expand(len(body.problem.times), *initial.shape)
            nfe = torch.zeros(len(initial), dtype=torch.int32, device=initial.device)
            status = torch.full_like(nfe, Status.NONFINITE, dtype=torch.int64)
            if bool(finite.any()):
                solved, nfe[finite], status[finite] = body.of_samples(finite).advance(
                    initial[finite]
                )
                states = states.index_copy(1, finite.nonzero().flatten(), solved)
        self.nfe.append(nfe)
        self.status.append(status)
        return states


class SteppingPass(BatchedPass):
    """Notes the steps of all solves, or takes those of other images.

    Attributes:
        solutions: of the solves so far, with nodes unless they were given.
        spans: the first and the last time of each.
    """

    def __init__(self, nodes: Sequence[Sequence[Tensor]] | None, *rest: Any) -> None:
        super().__init__(*rest)
        self._nodes = nodes
        self.solutions: list[Solution] = []
        self.spans: list[tuple[float, float]] = []

    def answer(self, number: int, call: Call) -> Any:
        """See `BatchedPass.answer`."""
        body = self.body(number, call)
        problem = body.problem
        initial = problem.layout.join(call.arguments["y0"])
        lost = ~torch.isfinite(initial.detach()).flatten(1).all(1)
        nodes = None if self._nodes is None else self._nodes[number]
        solution = body.solve_inner(
            torch.where(spread(lost, initial), 0, initial),
            problem.times,
            nodes=nodes,
            keep_nodes=nodes is None,
        )
        status = solution.status.masked_fill(lost, Status.NONFINITE)
        self.solutions.append(replace(solution, status=status))
        self.spans.append((problem.times[0], problem.times[-1]))
        states = solution.states.masked_fill(spread(lost, initial), torch.nan)
        return problem.layout.split(states)


class _ReachedError(BaseException):
    """Ends a pass at a solve; no `except Exception` of a user's code stops it."""

    def __init__(self, body: OwnBody, initial: Tensor) -> None:
        super().__init__()
        self.body = body
        self.initial = initial


class ReachingPass(BatchedPass):
    """Ends a pass at a solve; earlier ones are solved."""

    def __init__(self, number: int, *rest: Any) -> None:
        super().__init__(*rest)
        self._number = number

    def answer(self, number: int, call: Call) -> Any:
        """See `BatchedPass.answer`."""
        if number < self._number:
            return super().answer(number, call)
        body = self.body(number, call)
        raise _ReachedError(body, body.problem.layout.join(call.arguments["y0"]))


class ResumingPass(BatchedPass):
    """Gives a solve its final state; earlier ones do not move, later ones are solved."""

    def __init__(self, number: int, final: Tensor, *rest: Any) -> None:
        super().__init__(*rest)
        self._number = number
        self._final = final

    def answer(self, number: int, call: Call) -> Any:
        """See `BatchedPass.answer`."""
        if number > self._number:
            return super().answer(number, call)
        layout = self.body(number, call).problem.layout
        state = layout.join(call.arguments["y0"])
        if number == self._number:
            state = self._final.reshape(len(self._final), *layout.shape)
        return layout.split(state.expand(len(call.arguments["t"]), *state.shape))


def applied(module: nn.Module, images: Tensor) -> Any:
    """What a module returns for a copy of images: its code may write into what it is given."""
    return module(images.clone())


def reach(module: nn.Module, images: Tensor, handler: ReachingPass) -> tuple[OwnBody, Tensor]:
    """The body at which a pass ends, and its initial states as they are shown, [n, C, H, W]."""
    try:
        with intercepting(handler):
            applied(module, images)
    except _ReachedError as reached:
        shape = reached.body.problem.layout.presented
        return reached.body, reached.initial.reshape(len(images), *shape)
    raise UserError("the network did not reach the solve that is to be followed")


class TorchdiffeqPass:
    """Answers the solves of a pass by torchdiffeq itself, at other settings, and counts.

    Args:
        changes: to the author's settings.
        max_steps: for adaptive methods without `max_num_steps`.

    Attributes:
        calls: the calls, in order; those inside another one's dynamics are not here.
        evaluations: for each call the number of its evaluations.
        ends: for each call its result at the last time.
        nested: whether dynamics called torchdiffeq.
    """

    def __init__(self, changes: Changes, max_steps: int) -> None:
        self._changes = dict(changes)
        self._max_steps = max_steps
        self._depth = 0
        self.calls: list[Call] = []
        self.evaluations: list[int] = []
        self.ends: list[Any] = []
        self.nested = False

    def __call__(self, call: Call) -> Any:
        """What torchdiffeq returns."""
        inner = self._depth > 0
        self.nested |= inner
        number = None if inner else len(self.calls)
        if number is not None:
            self.calls.append(call)
            self.evaluations.append(0)
        changed = self._changed(call)
        changed["func"] = _Watched(changed.get("func", call.arguments["func"]), self, number)
        result = call.by_torchdiffeq(changed.pop("name", None), **changed)
        if number is not None:
            self.ends.append(result)
        return result

    @contextmanager
    def inside(self, number: int | None) -> Iterator[None]:
        """One evaluation of the dynamics of a call."""
        if number is not None:
            self.evaluations[number] += 1
        self._depth += 1
        try:
            with intercepting(self):
                yield
        finally:
            self._depth -= 1

    def _changed(self, call: Call) -> dict[str, Any]:
        """The arguments that differ from the author's."""
        arguments, changes = call.arguments, self._changes
        changed = _scaled(arguments, ("rtol", "atol"), changes.get("tolerance"))
        if call.name == "odeint_dense" or arguments["event_fn"] is not None:
            return changed
        method = changes.get("method") or method_of(call)
        options = dict(arguments["options"] or {})
        if {"method", "steps"} & changes.keys():
            steps = changes.get("steps")
            options = {} if steps is None else {"grid_constructor": partial(uniform_grid, steps)}
            changed["method"] = method
        if method == "dopri8" or (method in TABLEAUS and TABLEAUS[method].error):
            options.setdefault("max_num_steps", self._max_steps)
        gradient = changes.get("gradient")
        if gradient == "direct" and call.name == "odeint_adjoint":
            changed["name"] = "odeint"
        elif gradient == "adjoint":
            changed |= self._adjoint(call, options)
        return {**changed, "options": options or None}

    def _adjoint(self, call: Call, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `odeint_adjoint`."""
        arguments, changes = call.arguments, self._changes
        changed: dict[str, Any] = {"name": "odeint_adjoint"}
        function = arguments["func"]
        if not isinstance(function, nn.Module):
            changed["adjoint_params"] = adjoint_parameters(call)
        elif changes.get("adjoint_norm", "full") == "full" and torch.is_grad_enabled():
            frozen = not any(parameter.requires_grad for parameter in function.parameters())
            # torchdiffeq leaves frozen parameters out of the norm that controls the steps.
            changed["func"] = copied(function).requires_grad_() if frozen else function
        tolerance = changes.get("adjoint_tolerance") or changes.get("tolerance")
        own = ("adjoint_rtol", "adjoint_atol")
        if arguments.get(own[0]) is None or arguments.get(own[1]) is None:
            scaled = _scaled(arguments, ("rtol", "atol"), tolerance)
            pairs = zip(own, ("rtol", "atol"), strict=True)
            changed |= {name: scaled.get(of, arguments[of]) for name, of in pairs}
        else:
            changed |= _scaled(arguments, own, tolerance)
        if "adjoint_norm" in changes:
            norm = {} if changes["adjoint_norm"] == "full" else {"norm": "seminorm"}
            changed["adjoint_options"] = {**options, **norm}
        return changed


def _scaled(
    arguments: Mapping[str, Any], names: tuple[str, str], tolerance: float | None
) -> dict[str, Any]:
    """Both tolerances, times what makes the larger one `tolerance`."""
    if tolerance is None:
        return {}
    values = [torch.as_tensor(arguments[name], dtype=torch.float64) for name in names]
    largest = max(value.max().item() for value in values)
    if not largest > 0:
        return {}
    scaled = [value * (tolerance / largest) for value in values]
    return {
        name: value.item() if value.ndim == 0 else value
        for name, value in zip(names, scaled, strict=True)
    }


class _Watched(nn.Module):
    """The dynamics of a call, whose evaluations are counted."""

    def __init__(self, function: Any, handler: TorchdiffeqPass, number: int | None) -> None:
        super().__init__()
        self.function = function
        self._handler = handler
        self._number = number
        for name in dir(function):
            if name.startswith("callback_"):
                setattr(self, name, getattr(function, name))

    def forward(self, t: Tensor, state: Any) -> Any:
        with self._handler.inside(self._number):
            return self.function(t, state)


def failure(error: Exception) -> Status | None:
    """How torchdiffeq's solve failed, if that is what the error says."""
    return next((kind for words, kind in FAILURES.items() if words in str(error)), None)


def with_guarded_gradient(images: Tensor, leaf: Tensor, logits: Tensor) -> Tensor:
    """Logits whose gradient for the images is that for a leaf, NaN where a backward solve fails.

    Args:
        images: that the gradient is for.
        leaf: equal to the images, without a graph.
        logits: of the leaf.
    """
    attach: Callable[..., Tensor] = _Guarded.apply
    return attach(images, (leaf, logits))


class _Guarded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, inside: tuple[Tensor, Tensor]) -> Tensor:
        ctx.inside = inside
        return inside[1].detach().clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        leaf, logits = ctx.inside
        try:
            return gradients(logits, [leaf], cotangents[0], keep=True)[0], None
        except AssertionError as error:
            if failure(error) is None:
                raise
            return torch.full_like(leaf, torch.nan), None
