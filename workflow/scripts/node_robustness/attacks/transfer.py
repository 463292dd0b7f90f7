"""Adversarial examples made on another model."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.descent import Record
from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Method, Pass
from node_robustness.models.classifier import frozen
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class Transfer:
    """An attack on a source model, evaluated on the target.

    Papernot et al., Transferability in machine learning, 2016. It needs no gradient of the target,
    so that a target with masked gradients cannot hide from it.

    Attributes:
        source: images to logits; for an ODE network with its own solver settings.
        by: the attack on it. It should not stop at the first adversarial iterate: what only just
            fools the source seldom fools the target. `iterations` are its gradient steps.
    """

    source: nn.Module
    by: Method

    @property
    def norm(self) -> Norm:
        """In which epsilon is measured."""
        return self.by.norm

    @property
    def epsilon(self) -> float:
        """Largest norm of a perturbation."""
        return self.by.epsilon

    @property
    def passes(self) -> int:
        """See `Method.passes`; those of the source count too."""
        return self.by.passes + 1

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method.search`."""
        with frozen(self.source):
            made = self.by.search(self.source, images, labels, streams)
        passed = Pass.over(model, made.adversarials, differentiable=False)
        record = Record(images, labels)
        rows = torch.arange(len(labels), device=labels.device)
        record.consider(0, rows, passed, margin(passed.logits, labels))
        found = record.found()
        found.iterations.copy_(made.iterations)
        return found
