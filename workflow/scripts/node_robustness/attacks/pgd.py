"""Projected gradient descent: the basic iterative method from random points."""

from dataclasses import dataclass

from torch import Tensor, nn

from node_robustness.attacks.descent import Descent, Gradient, Record
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class ProjectedGradientDescent:
    """BIM from random points of the ball, with restarts for images that still stand.

    Madry et al., Towards deep learning models resistant to adversarial attacks, 2018.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation.
        step: norm of one step.
        iterations: gradient steps of one run.
        restarts: runs at most.
        loss: `ce` (cross-entropy) or `margin`, see `descent.LOSSES`.
        early_stop: end an image at its first adversarial iterate. Otherwise all steps of the run
            are taken and, of the adversarial iterates, the one with the largest loss is kept.
    """

    norm: Norm
    epsilon: float
    step: float
    iterations: int
    restarts: int = 1
    loss: str = "ce"
    early_stop: bool = True

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self.restarts * (self.iterations + 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        return self.follow(None, model, images, labels, streams)

    def follow(
        self,
        gradient: Gradient | None,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        streams: Streams,
    ) -> Found:
        """Search along gradients from elsewhere, or along the model's own if None."""
        record = Record(images, labels)
        descent = Descent(
            self.norm, self.epsilon, self.step, self.iterations, self.loss, self.early_stop
        )
        for restart in range(self.restarts):
            rows = (~record.success).nonzero().flatten()
            if not len(rows):
                break
            points = self._random_points(images[rows], streams[rows])
            start = Pass.over(model, points, differentiable=gradient is None)
            before = restart * self.iterations
            descent.follow(model, start, record, rows, before, gradient)
        return record.found()

    def _random_points(self, images: Tensor, streams: Streams) -> Tensor:
        """Points of the ball: uniform in linf, of uniform direction and distance in L2."""
        shape = images.shape[1:]
        if self.norm.name == "linf":
            change = self.epsilon * (2 * streams.uniform(shape, images) - 1)
        else:
            direction = self.norm.direction(streams.normal(shape, images))
            change = self.epsilon * streams.uniform((1, 1, 1), images) * direction
        return into_ball(images, images + change, self.norm, self.epsilon)
