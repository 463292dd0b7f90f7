"""The smallest perturbation that a gradient attack finds, by bisection of epsilon."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.descent import Descent, Record
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class Bisection:
    """BIM at a separate epsilon for every image, by bisection between failure and success.

    Epsilon is first that of the attack; an image that stands there is done. Success does not
    strictly grow with epsilon, so the size that is found is an upper bound of the smallest.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: largest norm of a perturbation.
        relative_step: norm of one step as a share of the epsilon that is tried.
        iterations: gradient steps of one trial.
        halvings: trials after the first.
        loss: a name in `descent.LOSSES`.
    """

    norm: Norm
    epsilon: float
    relative_step: float
    iterations: int
    halvings: int
    loss: str = "ce"

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return (1 + self.halvings) * (self.iterations + 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        best = self._trial(model, images, labels, torch.full_like(images[:, 0, 0, 0], self.epsilon))
        rows = best.success.nonzero().flatten()
        if not len(rows):
            return best
        images, labels, spent = images[rows], labels[rows], best.iterations[rows]
        largest = self.norm.size(best.adversarials[rows] - images)
        smallest = torch.zeros_like(largest)
        for _ in range(self.halvings):
            epsilons = (smallest + largest) / 2
            found = self._trial(model, images, labels, epsilons)
            spent = spent + found.iterations
            hit = found.success
            sizes = self.norm.size(found.adversarials - images)
            largest = torch.where(hit, torch.minimum(sizes, largest), largest)
            smallest = torch.where(hit, smallest, epsilons)
            _keep(best, rows, found, hit, spent)
        return best

    def _trial(self, model: nn.Module, images: Tensor, labels: Tensor, epsilons: Tensor) -> Found:
        record = Record(images, labels)
        descent = Descent(
            self.norm, epsilons, self.relative_step * epsilons, self.iterations, self.loss
        )
        start = Pass.over(model, images, differentiable=True)
        descent.follow(model, start, record, torch.arange(len(labels), device=labels.device))
        return record.found()


def _keep(best: Found, rows: Tensor, found: Found, hit: Tensor, spent: Tensor) -> None:
    """Replace larger adversarial examples by the new ones."""
    best.adversarials[rows[hit]] = found.adversarials[hit]
    best.predictions[rows[hit]] = found.predictions[hit]
    best.iterations[rows[hit]] = spent[hit]
    if best.nfe is not None and found.nfe is not None:
        best.nfe[rows[hit]] = found.nfe[hit]
