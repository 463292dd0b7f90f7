"""Distances between states."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Distances:
    """Distances between the states of n images at T times.

    Attributes:
        l2: Euclidean norm of the difference, [n, T].
        relative_l2: `l2` over the norm of the clean state, [n, T].
        cosine: of the angle between the states, [n, T] in [-1, 1].
    """

    l2: Tensor
    relative_l2: Tensor
    cosine: Tensor


def distances(clean: Tensor, perturbed: Tensor) -> Distances:
    """The distances between states, both [T, n, C, H, W]; NaN where a solve failed."""
    before, after = clean.flatten(2), perturbed.flatten(2)
    l2 = torch.linalg.vector_norm(after - before, dim=2)
    relative = l2 / torch.linalg.vector_norm(before, dim=2)
    # Rounding may exceed 1, where the angle is not a number.
    cosine = F.cosine_similarity(before, after, dim=2).clamp(-1, 1)
    return Distances(l2.T, relative.T, cosine.T)
