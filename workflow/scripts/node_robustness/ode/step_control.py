"""Step size control: adaptive steps, or steps that are given.

Times, step sizes and error ratios are float64 tensors on the CPU, one number for each sample.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from node_robustness.ode.parts import Parts, norm, spread


@dataclass(frozen=True)
class StepSizes:
    """How adaptive steps are sized; the defaults are torchdiffeq's, in brackets their names there.

    Attributes:
        first: size of the first step (first_step); None to estimate it.
        safety: the next step over the one that would just be accepted (safety).
        growth: the largest factor from one step to the next (ifactor).
        shrinkage: the smallest one (dfactor).
    """

    first: float | None = None
    safety: float = 0.9
    growth: float = 10.0
    shrinkage: float = 0.2


@dataclass(frozen=True)
class StepAttempt:
    """A step of m samples, before it is accepted or rejected.

    Attributes:
        samples: positions in the batch of N, int64 [m] on the CPU.
        before: the state at the start of the step.
        after: the state at the end of the step.
        error: the estimated error; empty if the method has no estimate.
    """

    samples: Tensor
    before: Parts
    after: Parts
    error: Parts


class StepControl(Protocol):
    """Chooses the steps of each sample; time increases."""

    @property
    def first(self) -> float | None:
        """The size of the first step; None to find it, see `Adaptive.trial_step`."""
        ...

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The end and the size of the next step, both [m].

        Args:
            samples: positions in the batch of N, int64 [m].
            time: at the start of the step, [m].
            step: the size from `first` and `growth`, [m].
        """
        ...

    def error_ratio(self, attempt: StepAttempt) -> Tensor:
        """The estimated error over the tolerated error, [m] on the state's device.

        A step is accepted where the ratio is at most one. It is not finite where the state is not.
        """
        ...

    def growth(self, ratio: Tensor) -> Tensor:
        """The next step size over the present one, [m]."""
        ...


def _root(values: Tensor, order: int) -> Tensor:
    """The root of each of the values [m].

    Computed number by number, because the power of a tensor rounds differently at its end.
    """
    exponent = 1.0 / order
    return torch.tensor(
        [value**exponent for value in values.tolist()], dtype=values.dtype, device=values.device
    )


@dataclass(frozen=True)
class Adaptive:
    """Adaptive steps as in torchdiffeq 0.2.5 at batch 1.

    Attributes:
        order: of the method.
        tolerance: tau: one number, or one for each sample, float64 [N] on the CPU.
        ratio: the relative and the absolute tolerance, each over tau.
        norm: of parts [m, ...], [m].
        sizes: of the steps.
    """

    order: int
    tolerance: float | Tensor
    ratio: tuple[float, float] = (1.0, 1.0)
    norm: Callable[[Sequence[Tensor]], Tensor] = field(default_factory=lambda: norm)
    sizes: StepSizes = StepSizes()

    @property
    def first(self) -> float | None:
        """See `StepControl.first`."""
        return self.sizes.first

    @torch.no_grad()
    def trial_step(self, samples: Tensor, state: Parts, slope: Parts) -> tuple[Tensor, Tensor]:
        """A step of Euler's method, before the size of the first step is known.

        By Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.

        Args:
            samples: positions in the batch of N, int64 [m].
            state: the initial state.
            slope: its derivative.

        Returns:
            The size of the step, and the norm of the slope, both [m].
        """
        scale = self._scale(samples, state)
        d0, d1 = (
            self.norm([part / s for part, s in zip(parts, scale, strict=True)])
            for parts in (state, slope)
        )
        small = (d0 < 1e-5) | (d1 < 1e-5)
        return torch.where(small, torch.full_like(d0, 1e-6), 0.01 * d0 / d1), d1

    @torch.no_grad()
    def first_step(
        self, samples: Tensor, state: Parts, change: Parts, trial: tuple[Tensor, Tensor]
    ) -> Tensor:
        """The size of the first step, [m].

        Args:
            samples: positions in the batch of N, int64 [m].
            state: the initial state.
            change: of the slope in the trial step.
            trial: what `trial_step` returned.
        """
        (h0, d1), scale = trial, self._scale(samples, state)
        d2 = self.norm([part / s for part, s in zip(change, scale, strict=True)]) / h0
        flat = (d1 <= 1e-15) & (d2 <= 1e-15)
        h1 = torch.where(
            flat,
            torch.clamp(h0 * 1e-3, min=1e-6),
            _root(0.01 / torch.maximum(d1, d2), self.order),
        )
        return torch.minimum(100 * h0, h1).cpu().double()

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """The end is the start plus the size."""
        return time + step, step

    def error_ratio(self, attempt: StepAttempt) -> Tensor:
        """Norm of the estimated error over rtol times the larger of both states plus atol."""
        ratios = []
        for estimate, before, after in zip(
            attempt.error, attempt.before, attempt.after, strict=True
        ):
            tolerated = torch.maximum(before.abs(), after.abs())
            relative, absolute = self._tolerances(attempt.samples, before)
            ratios.append(estimate.div_(tolerated.mul_(relative).add_(absolute)))
        return self.norm(ratios)

    def growth(self, ratio: Tensor) -> Tensor:
        """Towards the largest step that would be accepted, within bounds, [m]."""
        sizes = self.sizes
        lower = torch.where(ratio < 1, 1.0, sizes.shrinkage)
        factor = torch.maximum(sizes.safety / _root(ratio, self.order), lower)
        return torch.where(ratio == 0, sizes.growth, factor.clamp(max=sizes.growth))

    def _scale(self, samples: Tensor, state: Parts) -> list[Tensor]:
        """What is tolerated at a state."""
        scale = []
        for part in state:
            relative, absolute = self._tolerances(samples, part)
            scale.append(absolute + part.abs() * relative)
        return scale

    def _tolerances(
        self, samples: Tensor, like: Tensor
    ) -> tuple[float, float] | tuple[Tensor, Tensor]:
        """The relative and the absolute tolerance of these samples, for a part of the state."""
        relative, absolute = self.ratio
        if not isinstance(self.tolerance, Tensor):
            return relative * self.tolerance, absolute * self.tolerance
        chosen = spread(self.tolerance[samples], like)

        def on_device(tolerance: Tensor) -> Tensor:
            return tolerance.to(like.dtype).to(like.device, non_blocking=True)

        return on_device(relative * chosen), on_device(absolute * chosen)


@dataclass(frozen=True)
class Given:
    """Steps between given nodes.

    Attributes:
        nodes: increasing times with the start, float64 [1, T] for all samples or [N, T], padded
            with infinity.
        first: zero, as `advance` takes the size from the nodes.
    """

    nodes: Tensor
    first: float | None = 0.0

    def advance(self, samples: Tensor, time: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """To the next node; a sum of step sizes would miss the last node by rounding."""
        nodes = self.nodes.expand(len(samples), -1) if len(self.nodes) == 1 else self.nodes[samples]
        following = torch.searchsorted(nodes.contiguous(), time[:, None], right=True)
        end = nodes.gather(1, following).squeeze(1)
        return end, end - time

    def error_ratio(self, attempt: StepAttempt) -> Tensor:
        """Zero, or NaN where the state is not finite."""
        return 0 * norm(attempt.after)

    def growth(self, ratio: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(ratio)
