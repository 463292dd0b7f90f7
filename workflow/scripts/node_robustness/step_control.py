"""How long the steps are: as an error estimate allows, or all the same.

Times, step sizes and error ratios are float64 tensors on the CPU, one number for each sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node_robustness.parts import Parts, combine, norm

_SAFETY, _LARGEST_GROWTH, _LARGEST_SHRINKAGE = 0.9, 10.0, 0.2


@dataclass(frozen=True)
class Attempt:
    """A step of m samples that may be accepted.

    Attributes:
        before: the state at its start.
        after: the state at its end.
        error_weights: of the stages in the error estimate, the step size included, [k, m].
        error_stages: these stages.
    """

    before: Parts
    after: Parts
    error_weights: Tensor
    error_stages: list[Parts]


class StepControl(Protocol):
    """Chooses the steps of every sample; time runs forward."""

    @property
    def evaluations(self) -> int:
        """How many times the first step size needs the dynamics (beside the initial slope)."""
        ...

    def first_step(
        self, time: Tensor, state: Parts, slope: Parts, after: Callable[[Tensor], Parts]
    ) -> Tensor:
        """The size of the first step, [m].

        Args:
            time: where it starts, [m].
            state: the initial state.
            slope: its derivative; empty if the method does not know it yet.
            after: the derivative after one step of Euler's method with these sizes, [m].
        """
        ...

    def end(self, time: Tensor, step: Tensor) -> Tensor:
        """Where a step leads, [m]."""
        ...

    def error_ratio(self, attempt: Attempt) -> Tensor:
        """The estimated error over the tolerated one, [m] on the state's device.

        A step is accepted where this is at most one; it is not finite where the state is not.
        """
        ...

    def growth(self, ratio: Tensor) -> Tensor:
        """By which factor the next step is longer, [m]."""
        ...


def _root(values: Tensor, order: int) -> Tensor:
    """The root of each of the values [m].

    Number by number: a tensor's power rounds differently at the end of a batch than inside it.
    """
    exponent = 1.0 / order
    return torch.tensor(
        [value**exponent for value in values.tolist()], dtype=values.dtype, device=values.device
    )


@dataclass(frozen=True)
class Adaptive:
    """Steps as in torchdiffeq 0.2.5 at batch 1.

    Attributes:
        order: order of the method.
        tolerance: tau, relative and absolute.
    """

    order: int
    tolerance: float
    evaluations: int = 1

    @torch.no_grad()
    def first_step(
        self, time: Tensor, state: Parts, slope: Parts, after: Callable[[Tensor], Parts]
    ) -> Tensor:
        """See Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4."""
        scale = [self.tolerance + part.abs() * self.tolerance for part in state]
        d0 = norm([part / s for part, s in zip(state, scale, strict=True)])
        d1 = norm([part / s for part, s in zip(slope, scale, strict=True)])
        small = (d0 < 1e-5) | (d1 < 1e-5)
        h0 = torch.where(small, torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
        change = [(later - now) / s for now, later, s in zip(slope, after(h0), scale, strict=True)]
        d2 = norm(change) / h0
        flat = (d1 <= 1e-15) & (d2 <= 1e-15)
        h1 = torch.where(
            flat,
            torch.clamp(h0 * 1e-3, min=1e-6),
            _root(0.01 / torch.maximum(d1, d2), self.order),
        )
        return torch.minimum(100 * h0, h1).cpu().double()

    def end(self, time: Tensor, step: Tensor) -> Tensor:
        """A step leads as far as it is long."""
        return time + step

    @torch.no_grad()
    def error_ratio(self, attempt: Attempt) -> Tensor:
        """RMS of the estimated error over tau (1 + the larger of the states), in its dtype."""
        error = combine(None, attempt.error_weights, attempt.error_stages)
        relative = []
        for estimate, before, after in zip(error, attempt.before, attempt.after, strict=True):
            tolerated = torch.maximum(before.abs(), after.abs())
            relative.append(estimate.div_(tolerated.mul_(self.tolerance).add_(self.tolerance)))
        return norm(relative)

    def growth(self, ratio: Tensor) -> Tensor:
        """Towards the largest step that would be accepted, within bounds."""
        lower = torch.where(ratio < 1, 1.0, _LARGEST_SHRINKAGE)
        factor = torch.maximum(_SAFETY / _root(ratio, self.order), lower)
        return torch.where(ratio == 0, _LARGEST_GROWTH, factor.clamp(max=_LARGEST_GROWTH))


@dataclass(frozen=True)
class Constant:
    """Steps between the nodes of a uniform grid.

    Attributes:
        nodes: the grid, its last node included.
    """

    nodes: Tensor
    evaluations: int = 0

    def first_step(
        self, time: Tensor, state: Parts, slope: Parts, after: Callable[[Tensor], Parts]
    ) -> Tensor:
        """The size of all steps."""
        size = (self.nodes[-1] - self.nodes[0]) / (len(self.nodes) - 1)
        return size.expand(len(time))

    def end(self, time: Tensor, step: Tensor) -> Tensor:
        """The next node: a sum of step sizes would miss the last one by rounding."""
        return self.nodes[torch.searchsorted(self.nodes, time, right=True)]

    @torch.no_grad()
    def error_ratio(self, attempt: Attempt) -> Tensor:
        """Zero: there is nothing to reject but what is not finite."""
        return 0 * norm(attempt.after)

    def growth(self, ratio: Tensor) -> Tensor:
        """None."""
        return torch.ones_like(ratio)
