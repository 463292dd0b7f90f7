"""Random perturbations: the control that no attack may fall short of."""

from dataclasses import dataclass

from torch import Tensor, nn

from node_robustness.attacks.descent import Record
from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.noise import random_directions
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class Noise:
    """Random perturbations of size epsilon, before they are clipped to [0, 1].

    Random signs in linf, a Gaussian direction in L2. An image ends at the first draw that the
    model misclassifies.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: norm of every perturbation.
        draws: perturbations of an image at most.
    """

    norm: Norm
    epsilon: float
    draws: int

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self.draws

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        record = Record(images, labels)
        for draw in range(1, self.draws + 1):
            rows = (~record.success).nonzero().flatten()
            if not len(rows):
                break
            noisy = self._noisy(images[rows], streams[rows])
            passed = Pass.over(model, noisy, differentiable=False)
            record.consider(draw, rows, passed, margin(passed.logits, labels[rows]))
        return record.found()

    def _noisy(self, images: Tensor, streams: Streams) -> Tensor:
        direction = random_directions(self.norm, images, streams)
        return into_ball(images, images + self.epsilon * direction, self.norm, self.epsilon)
