"""What every attack method is: a frozen dataclass of its parameters with a function `search`."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from node_robustness.models.differentiation import gradient
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class Found:
    """What a search returned for m images, all of them classified correctly at its start.

    Attributes:
        adversarials: where found, an adversarial example of norm epsilon at most; else the last or
            best iterate, float [m, C, H, W] in [0, 1].
        success: whether the model as attacked misclassifies `adversarials`, bool [m].
        iterations: gradient steps (queries of an attack without gradients) up to the adversarial
            example that is returned, all of them where there is none, int64 [m].
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

    @property
    def passes(self) -> int:
        """Forward passes that a search makes at most, each over all images that are left."""

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """Look for an adversarial example of every image.

        Images that are done leave the batch. A prediction that failed is misclassified.

        Args:
            model: frozen; images to logits [m, K]; its attribute `nfe`, where it has one, is read
                after a forward pass as the function evaluations of each image.
            images: float [m, C, H, W] in [0, 1], all of them classified correctly.
            labels: int64 [m].
            streams: the only source of random numbers, one an image.
        """


@dataclass(frozen=True)
class Pass:
    """A forward pass that gave m rows of logits, and the way back from them to the images.

    Attributes:
        inputs: all images of the pass, [n, C, H, W].
        rows: which of them these m are, int64 [m].
        logits: [m, K].
        nfe: function evaluations, int32 [m]; None without an ODE.
    """

    inputs: Tensor
    rows: Tensor
    logits: Tensor
    nfe: Tensor | None

    @classmethod
    def over(cls, model: nn.Module, images: Tensor, *, differentiable: bool) -> "Pass":
        """Pass images [m, C, H, W] through a model."""
        with torch.set_grad_enabled(differentiable):
            inputs = images.detach().requires_grad_(differentiable)
            logits = model(inputs)
        rows = torch.arange(len(images), device=images.device)
        return cls(inputs, rows, logits, getattr(model, "nfe", None))

    @property
    def images(self) -> Tensor:
        """The m images, [m, C, H, W]."""
        return self.inputs.detach()[self.rows]

    def __getitem__(self, chosen: Tensor) -> "Pass":
        """Some of the rows, by bool mask [m] or by positions."""
        nfe = None if self.nfe is None else self.nfe[chosen]
        return Pass(self.inputs, self.rows[chosen], self.logits[chosen], nfe)

    def gradient(self, losses: Tensor) -> Tensor:
        """Gradients of losses [m] of these logits for the m images; may be asked for once."""
        return gradient(losses, self.inputs)[self.rows]


@runtime_checkable
class StartsAtImages(Method, Protocol):
    """A method whose first gradient is that at the images: the clean pass can serve for it."""

    def search_from(self, model: nn.Module, clean: Pass, labels: Tensor, streams: Streams) -> Found:
        """Go on from a differentiable pass over the images; otherwise as `search`."""


@runtime_checkable
class BoundsBatches(Method, Protocol):
    """A method for which the engine makes the batches no larger than so many images."""

    @property
    def largest_batch(self) -> int:
        """Images at a time, at most."""


@runtime_checkable
class MadeOnAnother(Method, Protocol):
    """A method that makes its adversarial examples on another model."""

    @property
    def source(self) -> nn.Module:
        """The other model."""

    @property
    def by(self) -> Method:
        """The attack on it."""
