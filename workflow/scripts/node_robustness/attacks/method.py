"""What every attack method is: a frozen dataclass of its parameters with a function `search`."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from node_robustness.attacks.streams import Streams
from node_robustness.norms import Norm


@dataclass(frozen=True)
class Found:
    """What a search returned for m images, all of them classified correctly at its start.

    Attributes:
        adversarials: where found, an adversarial of norm epsilon at most; else the last or best
            iterate, float [m, C, H, W] in [0, 1].
        success: whether the model as attacked misclassifies `adversarials`, bool [m].
        iterations: gradient steps (queries of an attack without gradients) up to the adversarial
            that is returned, all of them where there is none, int64 [m].
        predictions: the prediction for `adversarials`, int64 [m].
        nfe: function evaluations for `adversarials`, int32 [m]; None without an ODE.
    """

    adversarials: Tensor
    success: Tensor
    iterations: Tensor
    predictions: Tensor
    nfe: Tensor | None


class Method(Protocol):
    """An attack with its parameters."""

    @property
    def norm(self) -> Norm:
        """In which epsilon is measured."""

    @property
    def epsilon(self) -> float:
        """Largest norm of a perturbation."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """Look for an adversarial of every image.

        Images that are done leave the batch. A prediction that failed is misclassified.

        Args:
            model: frozen; images to logits [m, K]; its attribute `nfe`, where it has one, is read
                after a forward pass as the function evaluations of each image.
            images: float [m, C, H, W] in [0, 1], all of them classified correctly.
            labels: int64 [m].
            streams: the only source of random numbers, one an image.
        """
