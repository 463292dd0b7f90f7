"""The basic iterative method, the paper's attack."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.descent import Descent, Record
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class BasicIterativeMethod:
    """The basic iterative method as the paper used it (foolbox 2: no random start).

    Kurakin et al., Adversarial examples in the physical world, 2017; Carrara et al. 2019.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation.
        step: norm of one step.
        iterations: gradient steps at most.
        early_stop: end an image at its first adversarial iterate. Otherwise all steps are taken
            and, of the adversarial iterates, the one with the largest loss is kept.
    """

    norm: Norm
    epsilon: float
    step: float
    iterations: int
    early_stop: bool = True

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self.iterations + 1

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        clean = Pass.over(model, images, differentiable=True)
        return self.search_from(model, clean, labels, streams)

    def search_from(self, model: nn.Module, clean: Pass, labels: Tensor, streams: Streams) -> Found:
        """See `StartsAtImages.search_from`."""
        record = Record(clean.images, labels)
        descent = Descent(
            self.norm, self.epsilon, self.step, self.iterations, early_stop=self.early_stop
        )
        descent.follow(model, clean, record, torch.arange(len(labels), device=labels.device))
        return record.found()
