"""How long the steps are: as an error estimate allows, or as they are given.

Times, step sizes and error ratios are float64 tensors on the CPU, one number for each sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from node_robustness.ode.parts import Parts, combine, norm, spread

_SAFETY, _LARGEST_GROWTH, _LARGEST_SHRINKAGE = 0.9, 10.0, 0.2


@dataclass(frozen=True)
class StepAttempt:
    """A step of m samples that may be accepted.

    Attributes:
        samples: which they are of the N in the batch, int64 [m] on the CPU.
        before: the state at its start.
        after: the state at its end.
        error_weights: of the stages in the error estimate, the step size included, [k, m].
        error_stages: these stages.
    """

    samples: Tensor
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

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Where the next step leads and its size, both [m].

        Args:
            samples: which they are of the N in the batch, int64 [m].
            time: where it starts, [m].
            step: the size that `first_step` and `growth` make for it, [m].
        """
        ...

    def error_ratio(self, attempt: StepAttempt) -> Tensor:
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
        tolerance: tau, relative and absolute; one number, or float64 [N] on the CPU with one for
            each sample.
    """

    order: int
    tolerance: float | Tensor
    evaluations: int = 1

    @torch.no_grad()
    def first_step(
        self, time: Tensor, state: Parts, slope: Parts, after: Callable[[Tensor], Parts]
    ) -> Tensor:
        """See Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4."""
        everyone = torch.arange(len(time))
        taus = [self._tolerance(everyone, part) for part in state]
        scale = [tau + part.abs() * tau for tau, part in zip(taus, state, strict=True)]
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

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """A step leads as far as it is long."""
        return time + step, step

    @torch.no_grad()
    def error_ratio(self, attempt: StepAttempt) -> Tensor:
        """RMS of the estimated error over tau (1 + the larger of the states), in its dtype."""
        error = combine(None, attempt.error_weights, attempt.error_stages)
        relative = []
        for estimate, before, after in zip(error, attempt.before, attempt.after, strict=True):
            tolerated = torch.maximum(before.abs(), after.abs())
            tau = self._tolerance(attempt.samples, before)
            relative.append(estimate.div_(tolerated.mul_(tau).add_(tau)))
        return norm(relative)

    def growth(self, ratio: Tensor) -> Tensor:
        """Towards the largest step that would be accepted, within bounds."""
        lower = torch.where(ratio < 1, 1.0, _LARGEST_SHRINKAGE)
        factor = torch.maximum(_SAFETY / _root(ratio, self.order), lower)
        return torch.where(ratio == 0, _LARGEST_GROWTH, factor.clamp(max=_LARGEST_GROWTH))

    def _tolerance(self, samples: Tensor, like: Tensor) -> float | Tensor:
        """Of these samples; numbers of their own are spread over a part of the state."""
        if not isinstance(self.tolerance, Tensor):
            return self.tolerance
        chosen = spread(self.tolerance[samples], like)
        return chosen.to(like.dtype).to(like.device, non_blocking=True)


@dataclass(frozen=True)
class Given:
    """Steps between nodes that are known beforehand.

    Attributes:
        nodes: float64 [1, T] for all samples or [N, T] for each, increasing, the start included;
            infinity stands behind the last one of a sample that has fewer.
    """

    nodes: Tensor
    evaluations: int = 0

    def first_step(
        self, time: Tensor, state: Parts, slope: Parts, after: Callable[[Tensor], Parts]
    ) -> Tensor:
        """Zero: the nodes say it."""
        return torch.zeros_like(time)

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """To the next node: a sum of step sizes would miss the last one by rounding."""
        nodes = self.nodes.expand(len(samples), -1) if len(self.nodes) == 1 else self.nodes[samples]
        following = torch.searchsorted(nodes.contiguous(), time[:, None], right=True)
        end = nodes.gather(1, following).squeeze(1)
        return end, end - time

    @torch.no_grad()
    def error_ratio(self, attempt: StepAttempt) -> Tensor:
        """Zero: there is nothing to reject but what is not finite."""
        return 0 * norm(attempt.after)

    def growth(self, ratio: Tensor) -> Tensor:
        """None."""
        return torch.ones_like(ratio)
