"""Checks of the attacks themselves: what must hold if they and the model work as they should.

Carlini et al., On Evaluating Adversarial Robustness, 2019, section 5: more iterations, larger
perturbations and iteration at all may only help. Pintor et al., Indicators of Attack Failure, 2022:
predictions and losses must be stable around an image, and a perturbation without a bound must break
every image.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.logits import margin
from node_robustness.models.predictions import classes
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

NEIGHBOURS = 10
"""How many random neighbours of an image are classified."""

NEAR = 1 / 255
"""How far from it they lie at most, by the largest change of a pixel: one level of 8 bits."""

LARGE = 0.5
"""A change of a pixel at which every image can be made the same grey."""

STEP = 0.25
"""The step of the basic iterative method, as a share of epsilon; the paper's attack has it too."""


@dataclass(frozen=True)
class Neighbours:
    """How much a model varies around n images.

    Attributes:
        changed: share of the neighbours with another prediction than the image's, float32 [n].
        variation: mean change of the margin to its absolute value at the image, float32 [n]; NaN
            where a solve failed.
    """

    changed: Tensor
    variation: Tensor


@dataclass(frozen=True)
class AttackChecks:
    """Which of n images fall to which attack; all are direct and stop at the first adversarial.

    Attributes:
        iterations_success: the basic iterative method, bool [n].
        single_step_success: one step of size epsilon (fast gradient sign method), bool [n].
    """

    iterations_success: Tensor
    single_step_success: Tensor


@torch.no_grad()
def neighbours(
    model: nn.Module, images: Tensor, labels: Tensor, streams: Streams, *, batch_size: int
) -> Neighbours:
    """Classify `NEIGHBOURS` random neighbours of every image.

    The margin stands for the loss. The cross-entropy of a confident prediction is so small that its
    relative change says nothing.
    """
    changed, variation = [images.new_zeros(0)], [images.new_zeros(0)]
    for rows in torch.split(torch.arange(len(images)), max(1, batch_size // NEIGHBOURS)):
        batch, answers = images[rows], labels[rows]
        change = NEAR * (2 * streams[rows].uniform((NEIGHBOURS, *batch.shape[1:]), batch) - 1)
        near = model((batch[:, None] + change).clamp(0, 1).flatten(0, 1))
        own = model(batch)
        predictions = classes(near).view(len(rows), NEIGHBOURS)
        changed.append((predictions != classes(own)[:, None]).float().mean(1))
        at = margin(own, answers)[:, None]
        around = margin(near, answers.repeat_interleave(NEIGHBOURS)).view(len(rows), NEIGHBOURS)
        variation.append(((around - at).abs().mean(1) / at.abs().squeeze(1)).float())
    return Neighbours(torch.cat(changed), torch.cat(variation))


def check_attacks(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    norm: str,
    epsilon: float,
    iterations: int,
    batch_size: int,
) -> AttackChecks:
    """Attack images with attacks of which it is known which must be the stronger one.

    Args:
        model: its solver set to the tolerance in question and to direct gradients.
        images: float [n, C, H, W] in [0, 1].
        labels: int64 [n].
        norm: of the perturbations, see `norms.Norm`.
        epsilon: their largest norm.
        iterations: of the basic iterative method.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    several = iterative(norm, epsilon, iterations)
    single = replace(several, step=epsilon, iterations=1)
    return AttackChecks(
        *(
            attack(model, images, labels, method, batch_size=batch_size).success
            for method in (several, single)
        )
    )


def broken_at_large_epsilon(
    model: nn.Module, images: Tensor, labels: Tensor, *, iterations: int, batch_size: int
) -> Tensor:
    """Which images fall to a perturbation of `LARGE` in L-infinity, bool [n].

    Args:
        model: with the gradients that the basic iterative method is to follow.
        images: float [n, C, H, W] in [0, 1].
        labels: int64 [n].
        iterations: of the attack.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    method = iterative("linf", LARGE, iterations)
    return attack(model, images, labels, method, batch_size=batch_size).success


def iterative(norm: str, epsilon: float, iterations: int) -> BasicIterativeMethod:
    """The basic iterative method with steps of a quarter of epsilon."""
    return BasicIterativeMethod(Norm(norm), epsilon, STEP * epsilon, iterations)
