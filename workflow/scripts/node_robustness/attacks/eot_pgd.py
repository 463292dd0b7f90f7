"""Projected gradient descent by the mean gradient over drawn tolerances."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.expectation import expected_gradient, log_uniform
from node_robustness.attacks.method import Found
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.models.classifier import frozen
from node_robustness.models.network import Network
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class ExpectationOverTolerances(ProjectedGradientDescent):
    """PGD whose every step follows the mean gradient over new draws of the tolerance.

    The attacked model decides, at its one tolerance, whether an iterate is adversarial.

    Attributes:
        draws: tolerances over which the gradient of a step is averaged.
        source: the classifier whose gradients at drawn tolerances are followed; None for a model
            without a tolerance, whose own gradient is followed.
        low: smallest tolerance that is drawn; where there is a source.
        high: largest tolerance that is drawn; where there is a source.
    """

    draws: int = 5
    source: Network | None = None
    low: float | None = None
    high: float | None = None

    @property
    def passes(self) -> int:
        """See `Method.passes`; those of the source count too."""
        followed = 0 if self.source is None else self.draws
        return self.restarts * (self.iterations * (1 + followed) + 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        source = self.source
        if source is None or self.low is None or self.high is None:
            return super().search(model, images, labels, streams)
        draw = log_uniform(self.low, self.high)
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
