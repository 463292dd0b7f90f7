"""What the decisions of an adaptive solver have to do with adversarial examples.

A solver that accepts or rejects steps makes the network discontinuous: where a decision changes
along the path from an image to its adversarial example, the logits jump. If that were what fools
the network, an adversarial example would be harmless to a solver that takes the steps of the clean
image, and gradients, which hold the steps constant, could not find it.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from node_robustness.attacks.logits import margin
from node_robustness.models.network import Network, StepsTaken
from node_robustness.models.predictions import classes
from node_robustness.perturbations.norms import column

_PARTS = 8
"""Into how many parts a path is cut, and the part with the first change of steps again."""

_CUTS = 5
"""How often: the two sides of a jump are 8^-5 = 3e-5 of the path apart."""


@dataclass(frozen=True)
class HeldSteps:
    """A network that solves its ODEs with the steps that it took for n images.

    Attributes:
        model: whose images have separate steps.
        steps: those of the images.
    """

    model: Network
    steps: StepsTaken

    @classmethod
    def of(cls, model: Network, images: Tensor) -> Self:
        """With the steps for images [n, C, H, W]."""
        return cls(model, model.logits_and_steps(images)[1])

    def logits(self, moved: Tensor) -> Tensor:
        """The logits of other images, once or k times over, [k n, K]; NaN where a solve failed."""
        steps = self.steps.repeated(len(moved) // len(self.steps.failed))
        failed = steps.failed.to(moved.device)
        return self.model.by_steps(moved, steps).masked_fill(failed[:, None], torch.nan)


@dataclass(frozen=True)
class StepDecisions:
    """What became of n adversarial examples.

    Attributes:
        survives: whether it is misclassified with the solver's steps for the clean image, bool [n].
        crosses: whether the number of accepted or of rejected steps changes on the way from the
            image to it, bool [n].
        jump: by how much the margin changes at the first such change, in logits, float32 [n]; NaN
            where there is none or it was not located.
        change: of the margin from the image to the adversarial example, float32 [n].
    """

    survives: Tensor
    crosses: Tensor
    jump: Tensor
    change: Tensor


@torch.no_grad()
def step_decisions(
    model: Network,
    images: Tensor,
    adversarials: Tensor,
    labels: Tensor,
    *,
    located: int,
    batch_size: int,
) -> StepDecisions:
    """Say what the solver's decisions have to do with adversarial examples.

    Args:
        model: in evaluation mode; its images have separate steps.
        images: float [n, C, H, W] in [0, 1].
        adversarials: of these images, [n, C, H, W].
        labels: int64 [n].
        located: for how many of the first images a change of steps is located.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    survives = torch.zeros_like(labels, dtype=torch.bool)
    start = images.new_zeros(len(images))
    if not len(images):
        return StepDecisions(survives, survives, start, start)
    for rows in torch.split(torch.arange(len(images), device=labels.device), batch_size):
        logits = HeldSteps.of(model, images[rows]).logits(adversarials[rows])
        survives[rows] = classes(logits) != labels[rows]
    paths = _Paths(model, images, adversarials - images, labels)
    margins, first, width = paths.cut(start, 1.0, batch_size)
    crosses = first >= 0
    jump = torch.full_like(start, torch.nan)
    rows = crosses.nonzero().flatten()[:located]
    if len(rows):
        few = paths.only(rows)
        start, around = start[rows], first[rows]
        for _ in range(_CUTS - 1):
            start = start + width * around
            sides, around, width = few.cut(start, width, batch_size)
            # A change that rounding hides from the finer grid lies in no part of it.
            around = around.clamp(min=0)
        ahead, behind = (sides.gather(1, around[:, None] + side) for side in (1, 0))
        jump[rows] = (ahead - behind).abs().squeeze(1)
    return StepDecisions(survives, crosses, jump, margins[:, -1] - margins[:, 0])


@dataclass(frozen=True)
class _Paths:
    """Straight lines from images [n, C, H, W] in some directions."""

    model: Network
    images: Tensor
    directions: Tensor
    labels: Tensor

    def only(self, rows: Tensor) -> "_Paths":
        """Some of them."""
        return _Paths(self.model, self.images[rows], self.directions[rows], self.labels[rows])

    def cut(self, start: Tensor, length: float, batch_size: int) -> tuple[Tensor, Tensor, float]:
        """Solve at equal distances.

        Args:
            start: where on each path, as a share of it, [n].
            length: how much of it, as a share.
            batch_size: images at a time.

        Returns:
            The margins at all points, [n, parts + 1]; the first part at whose ends the numbers of
            steps differ, int64 [n], -1 if none; and the length of a part.
        """
        width, found = length / _PARTS, []
        points = start[:, None] + width * torch.arange(_PARTS + 1, device=start.device)
        for rows in torch.split(torch.arange(len(start)), max(1, batch_size // (_PARTS + 1))):
            moved = torch.cat(
                [
                    self.images[rows] + column(at) * self.directions[rows]
                    for at in points[rows].unbind(1)
                ]
            )
            logits, steps = self.model.logits_and_steps(moved)
            answers = self.labels[rows].repeat(_PARTS + 1)
            taken = steps.taken.to(logits.device).unflatten(0, (_PARTS + 1, -1))
            found.append(
                (
                    margin(logits, answers).view(_PARTS + 1, -1).T,
                    (taken.diff(dim=0) != 0).any(2).T,
                )
            )
        margins, changes = (torch.cat(parts) for parts in zip(*found, strict=True))
        first = torch.where(changes.any(1), changes.int().argmax(1), -1)
        return margins, first, width
