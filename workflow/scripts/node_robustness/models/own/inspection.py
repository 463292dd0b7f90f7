"""What a user's module does, found by running it on real images."""

from collections.abc import Mapping
from functools import cached_property
from inspect import currentframe
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.config.values import FIXED
from node_robustness.errors import UserError
from node_robustness.models.own.interception import Call, intercepting
from node_robustness.models.own.modules import copied, isolated, one_line
from node_robustness.models.own.passes import (
    BatchedPass,
    ReachingPass,
    ResumingPass,
    TorchdiffeqPass,
    applied,
    failure,
    reach,
)
from node_robustness.models.own.problems import Layout, grid, method_of, obstacle
from node_robustness.models.own.spec import Inspection, OwnSolve
from node_robustness.ode.rows import Choice, Way, choose, parts_of
from node_robustness.ode.side_effects import modules_of
from node_robustness.ode.small_batches import filled_up
from node_robustness.ode.solve import Status

IMAGES = 8
"""How many images are enough for an inspection."""

_STATES = 8  # at which ways are compared
_SAME = 1e-3  # logits that differ by less than this share of the largest one are the same
_CLOSE = 1e-4  # the same where nothing is solved twice


_LOOK = "look at the weights and at the range of the images"
_REMEDIES = {
    Status.MAX_STEPS: "raise max_steps of the model, or these tolerances",
    Status.UNDERFLOW: f"its steps become too small; raise these tolerances, or {_LOOK}",
    Status.NONFINITE: f"its state is not finite; {_LOOK}",
}
"""By how a solve failed, what can be done."""


def logits_of(result: Any, output: int | str) -> Tensor:
    """The logits [n, K] in what a module returns.

    Raises:
        UserError: there are none.
    """
    found = result
    if isinstance(result, Tensor):
        if output != 0:
            raise UserError(
                f"the network returns one tensor, without an element {output!r}: leave `output` out"
            )
    else:
        try:
            found = result[output]
        except (KeyError, IndexError, TypeError):
            raise UserError(
                f"the network returns an object of type {type(result).__name__} without an "
                f"element {output!r}: set `output` to the logits' place in it"
            ) from None
    if not isinstance(found, Tensor) or found.ndim != 2 or not found.is_floating_point():
        what = (
            f"{found.dtype} of shape {list(found.shape)}"
            if isinstance(found, Tensor)
            else f"of type {type(found).__name__}"
        )
        raise UserError(
            f"the network's output is {what}, not logits of n images and K classes: set `output` "
            "to the logits' place, or return them from the module"
        )
    return found


def rounded(images: Tensor) -> list[Tensor]:
    """The same images, but for rounding."""
    eps = torch.finfo(images.dtype).eps
    return [images * (1 + share * eps) for share in (-32, 8, 32)]


@torch.no_grad()
def inspect_module(
    module: nn.Module,
    images: Tensor,
    *,
    output: int | str = 0,
    solve: int | str | None = None,
    max_steps: int = 1000,
) -> Inspection:
    """Find the solves of a module, how each can be answered, and which one is the body.

    Args:
        module: in evaluation mode.
        images: real images, different ones, float [n, C, H, W] in [0, 1], n >= 2.
        output: which element is the logits, if the module returns several.
        solve: the solve that is followed, by module or number; None for the first.
        max_steps: largest number of attempted steps of a solve.

    Raises:
        UserError: the module does not map the images to logits, or has no such solve.
    """
    with isolated():
        return _Inspector(module, images[:IMAGES], output, solve, max_steps).inspect()


class _Inspector:
    def __init__(
        self,
        module: nn.Module,
        images: Tensor,
        output: int | str,
        solve: int | str | None,
        max_steps: int,
    ) -> None:
        self.module = module
        self.images = images
        self.output = output
        self.wanted = solve
        self.max_steps = max_steps

    def inspect(self) -> Inspection:
        seen = _Observed(self.module, self.max_steps)
        try:
            with one_line("the network fails on images of the dataset"), intercepting(seen):
                logits = logits_of(applied(self.module, self.images), self.output)
        except UserError as error:
            status = failure(error)
            if status is None:
                raise
            raise UserError(
                f"a solve of the network fails with the tolerances in its file ({status.name}): "
                f"{_REMEDIES[status]}"
            ) from None
        if len(logits) != len(self.images):
            raise UserError(
                f"the network gives {len(logits)} rows of logits for {len(self.images)} images: "
                "its forward must treat the first dimension as images"
            )
        _, channels, height, width = self.images.shape
        found: dict[str, Any] = {
            "channels": channels,
            "height": height,
            "width": width,
            "classes": logits.shape[1],
            "double": self._runs_in_double(),
        }
        if not seen.calls:
            setter = callable(getattr(self.module, "set_tolerance", None))
            return Inspection(**found, setter=setter)
        choices, reason = self._ways(seen)
        found["solves"] = tuple(map(_described, seen.calls, seen.names, choices))
        number = self._number(seen.names)
        reason = reason or self._differs([choice.way for choice in choices], found["double"])
        found["trained_jointly"] = reason or _joint(seen.calls)
        if reason is not None:
            return Inspection(
                **found, one_by_one=reason, not_followed="no image has steps that can be followed"
            )
        why_not = self._cannot_follow(number, [choice.way for choice in choices])
        return Inspection(
            **found, followed=None if why_not else number, not_followed=why_not or None
        )

    def _number(self, names: list[str]) -> int:
        """The solve that is followed."""
        wanted = 0 if self.wanted is None else self.wanted
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            return wanted
        inside = [n for n, name in enumerate(names) if f"{name}.".startswith(f"{wanted}.")]
        if isinstance(wanted, str) and inside:
            return inside[0]
        there = ", ".join(
            f"{number} in {name or 'the network'}" for number, name in enumerate(names)
        )
        raise UserError(f"solve: {wanted!r} is no ODE solve of the network (there are: {there})")

    def _ways(self, seen: "_Observed") -> tuple[list[Choice], str | None]:
        """How each solve can be answered, and why one cannot."""
        if seen.nested:
            reason: str | None = "the dynamics of a solve solve another ODE"
        else:
            reason = next(filter(None, map(obstacle, seen.calls)), None)
        if reason is None:
            reason = _other_rows(seen.calls, len(self.images)) or self._changes_with_images(seen)
        if reason is not None:
            return [Choice(Way.ONE_BY_ONE, float("nan"), "")] * len(seen.calls), reason
        choices = [_choice(call, end) for call, end in zip(seen.calls, seen.ends, strict=True)]
        slow = [choice.reason for choice in choices if choice.way is Way.ONE_BY_ONE]
        return choices, f"of its dynamics: {slow[0]}" if slow else None

    def _changes_with_images(self, seen: "_Observed") -> str | None:
        """Whether other images have other solves, or other times."""
        again = _Observed(self.module, self.max_steps)
        others = self.images.flip(0)[: len(self.images) // 2 + 1]
        with intercepting(again):
            applied(self.module, others)
        if len(again.calls) != len(seen.calls):
            return "the number of solves depends on the images"
        if reason := _other_rows(again.calls, len(others)):
            return reason
        for one, other in zip(seen.calls, again.calls, strict=True):
            for name in ("t", "rtol", "atol"):
                values = (torch.as_tensor(call.arguments[name]).double() for call in (one, other))
                if not torch.equal(*values):
                    return f"the argument {name} of a solve depends on the images"
        return None

    def _differs(self, ways: list[Way], double: bool) -> str | None:
        """Why the batched solver does not give what torchdiffeq gives image by image.

        Single precision shows less: a step size, and with it the whole solve, may depend on the
        rounding of a batch.
        """
        if Way.ONE_BY_ONE in ways or self._is_random:
            return None
        module, images = self.module, self.images
        if double:
            module, images = copied(module).double(), images.double()
        handler = BatchedPass(ways, self.max_steps, {})
        try:
            with intercepting(handler):
                logits = logits_of(applied(module, filled_up(images)), self.output)
        except Exception as error:
            words = " ".join(str(error).split())
            return f"separate steps for each image fail ({type(error).__name__}: {words})"
        same = 0
        for number, image in enumerate(images.split(1)):
            nfe = [int(column[number]) for column in handler.nfe]
            expected, evaluations = self._alone(module, image)
            # Where rounding decides on the steps of torchdiffeq, too, they cannot be compared.
            steps = nfe == evaluations or any(
                self._alone(module, moved)[1] != evaluations for moved in rounded(image)
            )
            same += steps and _equal(logits[number], expected[0], _SAME)
        # A step may be on the border of being accepted.
        if same >= len(images) - 1:
            return None
        return (
            f"separate steps for each image give other logits or evaluations than torchdiffeq for "
            f"{len(images) - same} of {len(images)} images"
        )

    def _alone(self, module: nn.Module, image: Tensor) -> tuple[Tensor, list[int]]:
        """Logits and the evaluations of each solve by torchdiffeq."""
        alone = TorchdiffeqPass({}, self.max_steps)
        with intercepting(alone):
            return logits_of(applied(module, image), self.output), alone.evaluations

    @cached_property
    def _is_random(self) -> bool:
        """Whether a second pass gives other logits; then nothing can be compared."""
        passes = []
        for _ in range(2):
            with intercepting(TorchdiffeqPass({}, self.max_steps)):
                passes.append(logits_of(applied(self.module, self.images), self.output))
        return not _equal(passes[0], passes[1], _CLOSE)

    def _cannot_follow(self, number: int, ways: list[Way]) -> str:
        """Why a solve cannot be the body; empty if it can."""
        if self._is_random:
            return "a second pass gives other logits"
        images = self.images
        rest: tuple[list[Way], int, dict[str, Any]] = (ways, self.max_steps, {})
        blank = torch.zeros_like(images)
        try:
            with intercepting(BatchedPass(*rest)):
                expected = logits_of(applied(self.module, images), self.output)
            body, start = reach(self.module, images, ReachingPass(number, *rest))
            elsewhere, _ = reach(self.module, blank, ReachingPass(number, *rest))
            t = torch.full((len(images),), 0.3, dtype=start.dtype, device=start.device)
            if not _equal(body.function(t, start), elsewhere.function(t, start), _CLOSE):
                return "its dynamics depend on more of the images than the state"
            final = body.solve(start, (0.0, 1.0)).states[-1]
            with intercepting(ResumingPass(number, final, *rest)):
                logits = logits_of(applied(self.module, blank), self.output)
        except Exception as error:
            words = " ".join(str(error).split())
            return f"its parts do not run by themselves ({type(error).__name__}: {words})"
        if not _equal(logits, expected, _CLOSE):
            return "the logits depend on more than its state at the end"
        return ""

    def _runs_in_double(self) -> bool:
        try:
            result = copied(self.module).double()(self.images[:2].double())
            return logits_of(result, self.output).dtype == torch.float64
        except Exception:
            return False


class _Observed(TorchdiffeqPass):
    """A pass by torchdiffeq as the author wrote it that also notes where each solve is called."""

    def __init__(self, module: nn.Module, max_steps: int) -> None:
        super().__init__({}, max_steps)
        self._names = {id(part): name for name, part in module.named_modules()}
        self.names: list[str] = []

    def __call__(self, call: Call) -> Any:
        if not self._depth:
            self.names.append(self._name())
        return super().__call__(call)

    def _name(self) -> str:
        """The innermost module in whose method the call happens."""
        frame = currentframe()
        while frame is not None:
            name: str | None = self._names.get(id(frame.f_locals.get("self")))
            if name is not None:
                return name
            frame = frame.f_back
        return ""


def _choice(call: Call, end: Any) -> Choice:
    """How the images of a solve share an evaluation."""
    initial, t = call.arguments["y0"], call.times
    last = end[-1] if isinstance(end, Tensor) else tuple(part[-1] for part in end)
    pairs = zip(parts_of(initial), parts_of(last), strict=True)
    states = tuple(torch.cat([a, b])[:: max(1, len(a) * 2 // _STATES)] for a, b in pairs)
    share = torch.linspace(0.1, 0.9, len(states[0]), dtype=states[0].dtype, device=t.device)
    times = (t[0] + (t[-1] - t[0]) * share).to(states[0])
    with torch.enable_grad():
        return choose(
            call.arguments["func"],
            states[0] if isinstance(initial, Tensor) else states,
            times,
        )


def _other_rows(calls: list[Call], images: int) -> str | None:
    """Whether a state has other rows than images."""
    sizes = (len(part) for call in calls for part in parts_of(call.arguments["y0"]))
    other = next((size for size in sizes if size != images), None)
    return None if other is None else f"a state has {other} rows for {images} images"


def _joint(calls: list[Call]) -> str | None:
    """Why gradients for parameters need a batch as one equation."""
    if any(call.arguments["t"].requires_grad for call in calls):
        return "the times of a solve are learned"
    for call in calls:
        for module in modules_of(call.arguments["func"]):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                return "the dynamics normalise batches"
    return None


def _described(call: Call, name: str, choice: Choice) -> OwnSolve:
    arguments, initial = call.arguments, call.arguments["y0"]
    layout, method, t = Layout.of(initial), method_of(call), call.times
    return OwnSolve(
        name=name,
        adjoint=call.name == "odeint_adjoint",
        method=method,
        rtol=_largest(arguments["rtol"]),
        atol=_largest(arguments["atol"]),
        start=float(t[0]),
        end=float(t[-1]),
        outputs=len(t),
        steps=len(grid(call, t)) - 1 if method in FIXED else None,
        shape=layout.shapes or layout.shape,
        way=choice.way,
        error=choice.error,
        backward=_backward(arguments, method),
    )


def _backward(arguments: Mapping[str, Any], method: str) -> tuple[str, ...]:
    """The settings of a backward solve that differ from what gradients by the adjoint have."""
    said = []
    if arguments.get("adjoint_method") not in (None, method):
        said.append(f"adjoint_method {arguments['adjoint_method']}")
    if arguments.get("adjoint_options"):
        said.append(f"adjoint_options {', '.join(sorted(arguments['adjoint_options']))}")
    return tuple(said)


def _equal(values: Tensor, expected: Tensor, share: float) -> bool:
    return bool((values - expected).abs().max() <= share * expected.abs().max())


def _largest(tolerance: Any) -> float:
    return float(torch.as_tensor(tolerance, dtype=torch.float64).max())
