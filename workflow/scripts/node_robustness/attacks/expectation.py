"""Projected gradient descent by the mean gradient over drawn tolerances.

Expectation over transformation (Athalye, Engstrom, Ilyas and Kwok, Synthesizing Robust Adversarial
Examples, ICML 2018; against randomised defences: Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security, ICML 2018, section 4.2). What is random is the solver's tolerance.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.attacks.descent import LOSSES
from node_robustness.attacks.method import Found
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.models.classifier import Classifier, frozen, solving
from node_robustness.perturbations.streams import Streams

Draw = Callable[[Streams, int], Tensor]
"""Tolerances for the images of some streams, k for each: float64 [n, k] on the CPU."""


def log_uniform(low: float, high: float) -> Draw:
    """Tolerances whose logarithms are uniformly distributed between two bounds."""
    start, length = math.log(low), math.log(high) - math.log(low)

    def draw(streams: Streams, count: int) -> Tensor:
        like = torch.empty((), dtype=torch.float64)
        return torch.exp(start + length * streams.uniform((count,), like))

    return draw


class AtTolerances(nn.Module):
    """A classifier that solves every image at a tolerance of its own.

    Args:
        model: with an ODE whose steps the tolerance bounds.
        **changes: further fields of `ode_body.SolverSettings`.
    """

    def __init__(self, model: Classifier, **changes: Any) -> None:
        super().__init__()
        self.model = model
        self.changes = changes

    def forward(self, images: Tensor, tolerances: Tensor) -> Tensor:
        """Logits [n, K] of images [n, C, H, W] at tolerances [n]."""
        with solving(self.model, tolerance=tolerances, **self.changes):
            logits: Tensor = self.model(images)
        return logits


def expected_gradient(
    model: AtTolerances, images: Tensor, labels: Tensor, tolerances: Tensor, loss: str = "ce"
) -> tuple[Tensor, Tensor]:
    """The mean over tolerances [n, k] of a loss, [n], and of its gradient, [n, C, H, W].

    A solve that fails has an infinite loss and no gradient.

    Args:
        model: its parameters frozen.
        images: float [n, C, H, W] in [0, 1].
        labels: int64 [n].
        tolerances: k for each image.
        loss: a name in `descent.LOSSES`.
    """
    count = tolerances.shape[1]
    at = images.repeat_interleave(count, 0).requires_grad_()
    with torch.enable_grad():
        losses = LOSSES[loss](model(at, tolerances.flatten()), labels.repeat_interleave(count))
        (gradient,) = torch.autograd.grad(losses.sum(), at)
    losses = losses.detach().nan_to_num(nan=torch.inf).view(-1, count)
    gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
    return losses.mean(1), gradient.unflatten(0, (-1, count)).mean(1)


@dataclass(frozen=True)
class ExpectationOverTolerances(ProjectedGradientDescent):
    """PGD whose every step follows the mean gradient over new draws of the tolerance.

    Iterates are judged by the model that is attacked, at its one tolerance.

    Attributes:
        draws: tolerances over which the gradient of a step is averaged.
        source: gives the gradients; None for a model without a tolerance, whose own is followed.
        draw: the distribution of the tolerances; where there is a source.
    """

    draws: int = 5
    source: AtTolerances | None = None
    draw: Draw | None = None

    @property
    def passes(self) -> int:
        """See `Method.passes`; those of the source count too."""
        followed = 0 if self.source is None else self.draws
        return self.restarts * (self.iterations * (1 + followed) + 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        source, draw = self.source, self.draw
        if source is None or draw is None:
            return super().search(model, images, labels, streams)
        # Hardly more rows in a pass than there are images, for which there is memory.
        at_once = math.ceil(len(images) / self.draws)

        def gradient(rows: Tensor, current: Tensor) -> Tensor:
            means = []
            for own, points in zip(rows.split(at_once), current.split(at_once), strict=True):
                tolerances = draw(streams[own], self.draws)
                mean = expected_gradient(source, points, labels[own], tolerances, self.loss)[1]
                means.append(mean)
            return torch.cat(means)

        with frozen(source):
            return self.follow(gradient, model, images, labels, streams)
