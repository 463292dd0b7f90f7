"""The loop that all gradient attacks of fixed steps share, and what it finds.

The forward pass that yields the gradient at an iterate also evaluates that iterate. The last
iterate is evaluated without a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.models.predictions import NO_CLASS, classes
from node_robustness.perturbations.norms import Norm, column


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each row of logits [m, K], [m]."""
    return F.cross_entropy(logits, labels, reduction="none")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "margin": margin}
"""The losses that an attack raises, by their names in the configuration."""


Gradient = Callable[[Tensor, Tensor], Tensor]
"""For rows [k] and iterates of the images there, [k, C, H, W]: the loss's gradients at these."""


class Record:
    """The best that is known of each of m images so far.

    Of adversarial iterates that is the one with the largest loss, else the last iterate.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels
        self.success = torch.zeros_like(labels, dtype=torch.bool)
        self._adversarials = images.clone()
        self._predictions = torch.full_like(labels, NO_CLASS)
        self._iterations = torch.zeros_like(labels)
        self._loss = torch.full(labels.shape, -torch.inf, dtype=images.dtype, device=images.device)
        self._nfe: Tensor | None = None

    def consider(self, iteration: int, rows: Tensor, passed: Pass, losses: Tensor) -> None:
        """Take note of a pass over iterates of the images at `rows`, [k], and their losses, [k]."""
        predictions = classes(passed.logits.detach())
        wrong = predictions != self.labels[rows]
        self._iterations[rows] = torch.where(self.success[rows], self._iterations[rows], iteration)
        # A failed solve has no loss; as an adversarial it counts as the worst there is.
        losses = losses.nan_to_num(nan=torch.inf).to(self._loss.dtype)
        first = ~self.success[rows]
        better = torch.where(wrong, first | (losses > self._loss[rows]), first)
        kept = rows[better]
        self._adversarials[kept] = passed.images[better]
        self._predictions[kept] = predictions[better]
        self._loss[kept] = torch.where(wrong, losses, -torch.inf)[better]
        if passed.nfe is not None:
            if self._nfe is None:
                self._nfe = torch.zeros(len(self.labels), dtype=passed.nfe.dtype).to(passed.nfe)
            self._nfe[kept] = passed.nfe[better]
        self.success[rows[wrong]] = True

    def found(self) -> Found:
        """The outcome of the search."""
        return Found(
            self._adversarials, self.success, self._iterations, self._predictions, self._nfe
        )


@dataclass(frozen=True)
class Descent:
    """Steps of one length down the model's confidence (up a loss), projected onto a ball.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation, for all images or for each of them, [m].
        step: norm of one step, for all images or for each of them, [m].
        iterations: gradient steps at most.
        loss: a name in `LOSSES`.
        early_stop: end an image at its first adversarial iterate. Otherwise all steps are taken.
    """

    norm: Norm
    epsilon: float | Tensor
    step: float | Tensor
    iterations: int
    loss: str = "ce"
    early_stop: bool = True

    def follow(
        self,
        model: nn.Module,
        start: Pass,
        record: Record,
        rows: Tensor,
        before: int = 0,
        gradient: Gradient | None = None,
    ) -> None:
        """Step on from a pass and note every iterate.

        Args:
            model: images to logits.
            start: a pass over starting points of the images at `rows`; differentiable unless
                gradients come from elsewhere.
            record: holds all m images, and takes note.
            rows: which of them to attack, int64 [k].
            before: gradient steps that were taken earlier.
            gradient: where gradients come from; from the passes themselves if None.
        """
        passed = start
        for iteration in range(self.iterations + 1):
            losses = LOSSES[self.loss](passed.logits, record.labels[rows])
            record.consider(before + iteration, rows, passed, losses.detach())
            stay = ~record.success[rows] if self.early_stop else torch.ones_like(rows).bool()
            if iteration == self.iterations or not bool(stay.any()):
                break
            passed, rows, losses = passed[stay], rows[stay], losses[stay]
            uphill = passed.gradient(losses) if gradient is None else gradient(rows, passed.images)
            current = self._step(record.images[rows], passed.images, uphill, rows)
            more = iteration + 1 < self.iterations
            passed = Pass.over(model, current, differentiable=more and gradient is None)

    def _step(self, images: Tensor, current: Tensor, gradient: Tensor, rows: Tensor) -> Tensor:
        """One step up the loss, back into the ball around the image, back into [0, 1]."""
        step, epsilon = (
            value[rows] if isinstance(value, Tensor) else value
            for value in (self.step, self.epsilon)
        )
        if isinstance(step, Tensor):
            step = column(step)
        moved = current + step * self.norm.direction(gradient)
        return (images + self.norm.project(moved - images, epsilon)).clamp(0, 1)
