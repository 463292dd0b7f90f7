"""The mean gradient over drawn tolerances.

Expectation over transformation (Athalye, Engstrom, Ilyas and Kwok, Synthesizing Robust Adversarial
Examples, ICML 2018; against randomised defences: Athalye, Carlini and Wagner, Obfuscated Gradients
Give a False Sense of Security, ICML 2018, section 4.2). What is random is the solver's tolerance.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from node_robustness.attacks.descent import LOSSES
from node_robustness.models.differentiation import gradient
from node_robustness.models.network import Network
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


def expected_gradient(
    model: Network, images: Tensor, labels: Tensor, tolerances: Tensor, loss: str = "ce"
) -> tuple[Tensor, Tensor]:
    """The mean over tolerances [n, k] of a loss, [n], and of its gradient, [n, C, H, W].

    A solve that fails has an infinite loss and no gradient.

    Args:
        model: frozen, with an ODE whose steps the tolerance bounds.
        images: float [n, C, H, W] in [0, 1].
        labels: int64 [n].
        tolerances: k for each image, positive, [n, k].
        loss: a name in `descent.LOSSES`.
    """
    count = tolerances.shape[1]
    at = images.repeat_interleave(count, 0).requires_grad_()
    with torch.enable_grad():
        logits = model.at(tolerance=tolerances.flatten())(at)
        losses = LOSSES[loss](logits, labels.repeat_interleave(count))
        uphill = gradient(losses, at)
    losses = losses.detach().nan_to_num(nan=torch.inf).view(-1, count)
    uphill = torch.where(torch.isfinite(uphill), uphill, 0.0)
    return losses.mean(1), uphill.unflatten(0, (-1, count)).mean(1)
