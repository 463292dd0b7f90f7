"""The fast gradient sign method."""

from dataclasses import dataclass

from torch import Tensor, nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class FastGradientSign:
    """One step as long as epsilon: the sign of the gradient, or its direction in L2.

    Goodfellow et al., Explaining and harnessing adversarial examples, 2015.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: norm of the perturbation before it is clipped to [0, 1].
    """

    norm: Norm
    epsilon: float

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self._iterative.passes

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        return self._iterative.search(model, images, labels, streams)

    def search_from(self, model: nn.Module, clean: Pass, labels: Tensor, streams: Streams) -> Found:
        """See `StartsAtImages.search_from`."""
        return self._iterative.search_from(model, clean, labels, streams)

    @property
    def _iterative(self) -> BasicIterativeMethod:
        return BasicIterativeMethod(self.norm, self.epsilon, step=self.epsilon, iterations=1)
