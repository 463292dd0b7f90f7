"""Checks of the attacks themselves: what must hold if they and the model work as they should.

Carlini et al., On Evaluating Adversarial Robustness, 2019, section 5: more iterations, larger
perturbations and iteration at all may only help; and the code that fails to break a model must
break one that is weak for certain. And what this project promises of its solver: a prediction does
not depend on the other images of the batch.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.models.classifier import Classifier, frozen
from node_robustness.models.evaluation import evaluate
from node_robustness.models.predictions import classes
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

NEIGHBOURS = 10
"""How many random neighbours of an image are classified."""

NEAR = 1 / 255
"""How far from it they lie at most, by the largest change of a pixel: one level of 8 bits."""

LARGE = 0.5
"""A change of a pixel at which every image can be made the same grey."""

_STEP = 0.25  # of an attack, as a share of epsilon


@dataclass(frozen=True)
class BatchInvariance:
    """How n images fare alone and in a shuffled batch.

    Attributes:
        logit_difference: the largest difference of a logit, float32 [n].
        prediction_differs: bool [n].
        nfe_differs: whether the number of function evaluations does, bool [n].
    """

    logit_difference: Tensor
    prediction_differs: Tensor
    nfe_differs: Tensor


@dataclass(frozen=True)
class AttackChecks:
    """Which of n images fall to which attack; all are direct and stop at the first adversarial.

    Attributes:
        correct: whether the clean prediction is right; only those images are attacked, bool [n].
        iterations_success: the basic iterative method with N and with 2 N iterations, bool [n, 2].
        single_step_success: one step of size epsilon (fast gradient sign method), bool [n].
        large_epsilon_success: 2 N iterations with `LARGE`, L-infinity, bool [n].
        planted_success: the same with epsilon 1 on a linear model of two classes, for which it
            must succeed, bool [n].
    """

    correct: Tensor
    iterations_success: Tensor
    single_step_success: Tensor
    large_epsilon_success: Tensor
    planted_success: Tensor


@torch.no_grad()
def batch_invariance(
    model: Classifier, images: Tensor, *, seed: int, batch_size: int
) -> BatchInvariance:
    """Classify images [n, C, H, W] one by one, and in batches whose order is shuffled."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    back = torch.argsort(order)
    together = evaluate(model, images[order], batch_size=batch_size)
    alone = evaluate(model, images, batch_size=1)
    nfe_differs = torch.zeros(len(images), dtype=torch.bool)
    if alone.nfe is not None and together.nfe is not None:
        nfe_differs = alone.nfe != together.nfe[back]
    return BatchInvariance(
        logit_difference=(alone.logits - together.logits[back]).abs().amax(1),
        prediction_differs=alone.predictions != together.predictions[back],
        nfe_differs=nfe_differs,
    )


@torch.no_grad()
def neighbours_changed(
    model: nn.Module, images: Tensor, streams: Streams, *, batch_size: int
) -> Tensor:
    """The share of `NEIGHBOURS` random neighbours with another prediction than the image's, [n]."""
    found = []
    for rows in torch.split(torch.arange(len(images)), max(1, batch_size // NEIGHBOURS)):
        batch = images[rows]
        change = NEAR * (2 * streams[rows].uniform((NEIGHBOURS, *batch.shape[1:]), batch) - 1)
        neighbours = (batch[:, None] + change).clamp(0, 1).flatten(0, 1)
        predictions = classes(model(neighbours)).view(len(rows), NEIGHBOURS)
        found.append((predictions != classes(model(batch))[:, None]).float().mean(1))
    return torch.cat(found)


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
        iterations: N.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    twice = BasicIterativeMethod(Norm(norm), epsilon, _STEP * epsilon, 2 * iterations)
    once = replace(twice, step=epsilon, iterations=1)
    large = replace(twice, norm=Norm("linf"), epsilon=LARGE, step=_STEP * LARGE)
    found = attack(model, images, labels, twice, batch_size=batch_size)
    # The attack has no chance in it: its first half is the one with N iterations.
    half = found.success & (found.iterations <= iterations)
    return AttackChecks(
        correct=found.attacked,
        iterations_success=torch.stack([half, found.success], dim=1),
        single_step_success=attack(model, images, labels, once, batch_size=batch_size).success,
        large_epsilon_success=attack(model, images, labels, large, batch_size=batch_size).success,
        planted_success=_break_planted(images, replace(large, epsilon=1.0, step=_STEP), batch_size),
    )


def _break_planted(images: Tensor, method: BasicIterativeMethod, batch_size: int) -> Tensor:
    planted = Planted(images)
    with torch.no_grad(), frozen(planted):
        labels = classes(planted(images))
    return attack(planted, images, labels, method, batch_size=batch_size).success


class Planted(nn.Module):
    """A weak model: two classes, by a sum of pixels with signs like a chessboard's.

    The sign of its gradient is the same everywhere, and its threshold lies strictly between the
    sums that images in [0, 1] can have, so that an attack which may change every pixel by one
    succeeds for certain.
    """

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        pixels = images[0].numel()
        signs = 1 - 2 * (torch.arange(pixels, device=images.device) % 2)
        self.weight = (signs / pixels).to(images.dtype)
        # Next to the median, so that no image lies on it, and pulled towards the middle.
        self.threshold = 0.99 * self._sum(images).median() + 1e-3

    def _sum(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, C, H, W] to logits [n, 2]."""
        margin = self._sum(images) - self.threshold
        return torch.stack([-margin, margin], dim=1)
