"""The norms of perturbations: what a step, a projection and a size mean in each.

`linf` and `l2` are the usual ones. `l2_rms` is the paper's (and foolbox 2's) L2: the root mean
square over channels and pixels, which is the usual L2 divided by sqrt(C * H * W). Perturbations
are tensors [n, C, H, W] for images in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-12  # guards the division by a zero perturbation, as foolbox 2 does


@dataclass(frozen=True)
class Norm:
    """A norm on perturbations; `name` is `linf`, `l2` or `l2_rms`."""

    name: str

    def size(self, perturbation: Tensor) -> Tensor:
        """The norm of each perturbation, [n]."""
        flat = perturbation.flatten(1)
        if self.name == "linf":
            return flat.abs().amax(1)
        euclidean: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return euclidean / math.sqrt(flat.shape[1]) if self.name == "l2_rms" else euclidean

    def direction(self, gradient: Tensor) -> Tensor:
        """The step of norm one along which the loss rises fastest, [n, C, H, W].

        Zero where the gradient is zero or, because a solve failed, not finite.
        """
        finite = torch.isfinite(gradient).flatten(1).all(1)
        gradient = torch.where(column(finite), gradient, 0.0)
        if self.name == "linf":
            return gradient.sign()
        # A confident model has gradients so small that their squares vanish, and attacks that
        # guard the division with an absolute constant stall there.
        largest = gradient.flatten(1).abs().amax(1).clamp(min=torch.finfo(gradient.dtype).tiny)
        relative = gradient / column(largest)
        unit: Tensor = relative / column(self.size(relative).clamp(min=_TINY))
        return unit

    def project(self, perturbation: Tensor, epsilon: float | Tensor) -> Tensor:
        """The nearest perturbation of norm epsilon at most, [n, C, H, W].

        Args:
            perturbation: [n, C, H, W].
            epsilon: one for all, or [n].
        """
        if self.name == "linf":
            if isinstance(epsilon, Tensor):
                return perturbation.clamp(-column(epsilon), column(epsilon))
            return perturbation.clamp(-epsilon, epsilon)
        factor = epsilon / self.size(perturbation).clamp(min=_TINY)
        return perturbation * column(factor.clamp(max=1.0))


def column(values: Tensor) -> Tensor:
    """One value an image, [n], shaped to meet images, [n, 1, 1, 1]."""
    return values.view(-1, 1, 1, 1)
