"""Adversarial examples of full strength, from what an attack ended with.

An attack that stops at its first success, or that looks for the smallest perturbation, returns
images at the decision boundary, where almost any change restores the decision. From there the
search goes on inside the ball of the attack, down the margin, and keeps the lowest margin that it
meets. Its gradient is the direct one of the network, whatever gradient the attack followed: an
attack whose gradient is masked says little about where a decision is lost.

The first step is twice the radius, as in Auto-PGD, and steps fall linearly to zero. On the digits
(100 images, 10 steps of an attack along the direct gradient, epsilon 0.1 in linf) the mean margin
of OON at tau = 10 falls from 0.22 to -1.87, -2.13, -2.24 and -2.33 with 10, 20, 40 and 100 steps.
Steps of a quarter of the radius reach -1.69 in 40.
"""

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Pass
from node_robustness.models.classifier import frozen
from node_robustness.models.network import Network
from node_robustness.models.predictions import NO_CLASS, classes
from node_robustness.perturbations.ball import into_ball, is_inside
from node_robustness.perturbations.norms import Norm, column

_FIRST_STEP = 2.0  # in units of epsilon


@dataclass(frozen=True)
class Strengthened:
    """What the search found for n images.

    Attributes:
        images: those with the lowest margin, float32 [n, C, H, W] in [0, 1].
        success: whether the network decides differently from the clean run, bool [n].
        margin: logit of the clean run's class minus the largest other; NaN where every solve
            failed, [n].
        linf: largest change of a pixel, [n].
        l2: Euclidean norm of the change, [n].
    """

    images: Tensor
    success: Tensor
    margin: Tensor
    linf: Tensor
    l2: Tensor

    @classmethod
    def joined(cls, parts: "list[Self]") -> Self:
        """The results of several batches, at least one, in their order."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def strengthen(
    model: Network,
    images: Tensor,
    attacked: Tensor,
    decided: Tensor,
    norm: Norm,
    epsilon: float,
    *,
    steps: int,
    batch_size: int,
) -> Strengthened:
    """Search for the lowest margin in the balls around images.

    What the attack ended with is one of the candidates; where it lies outside the ball, as the
    result of an attack that looks for the smallest perturbation may, its projection is.

    Args:
        model: at the tolerance of the attack.
        images: clean, float [n, C, H, W] in [0, 1], n >= 1.
        attacked: what the attack ended with, in the same form.
        decided: the class of the clean run, int64 [n].
        norm: in which epsilon is measured.
        epsilon: radius of the balls.
        steps: gradient steps, at least 0.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    outside = column(~is_inside(norm.size(attacked - images), epsilon))
    start = torch.where(outside, into_ball(images, attacked, norm, epsilon), attacked)
    with frozen(model):
        network = model.at(gradient="direct")
        return Strengthened.joined(
            [
                _search(network, images[rows], start[rows], decided[rows], norm, epsilon, steps)
                for rows in torch.arange(len(images)).split(batch_size)
            ]
        )


def _search(
    model: Network,
    images: Tensor,
    start: Tensor,
    decided: Tensor,
    norm: Norm,
    epsilon: float,
    steps: int,
) -> Strengthened:
    current = strongest = start
    success = torch.ones_like(decided, dtype=torch.bool)  # as long as every solve has failed
    lowest = torch.full_like(images[:, 0, 0, 0], torch.inf)
    for left in reversed(range(steps + 1)):
        passed = Pass.over(model, current, differentiable=left > 0)
        losses, predicted = margin(passed.logits, decided), classes(passed.logits.detach())
        failed = predicted == NO_CLASS
        margins = torch.where(failed, torch.inf, -losses.detach())
        better = margins < lowest
        strongest = torch.where(column(better), current, strongest)
        success = torch.where(better, predicted != decided, success)
        lowest = torch.where(better, margins, lowest)
        if left:
            step = _FIRST_STEP * epsilon * left / steps
            moved = current + step * norm.direction(passed.gradient(losses))
            # A failed solve has no gradient: the search begins again at the clean image.
            current = into_ball(images, torch.where(column(failed), images, moved), norm, epsilon)
    change = (strongest - images).flatten(1)
    return Strengthened(
        strongest,
        success,
        torch.where(torch.isinf(lowest), torch.nan, lowest),
        change.abs().amax(1),
        torch.linalg.vector_norm(change, dim=1),
    )
