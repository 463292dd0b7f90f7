"""The control: random noise of the size of a perturbation."""

import torch
from torch import Tensor

from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams


def noise_like(norm: Norm, images: Tensor, perturbed: Tensor, streams: Streams) -> Tensor:
    """Images with random noise that is, before it is clipped to [0, 1], as large as theirs.

    As in `attacks.noise`: random signs in linf, a Gaussian direction in L2.

    Args:
        norm: in which the size counts.
        images: [n, C, H, W] in [0, 1].
        perturbed: the perturbed images, in the same form.
        streams: of the images.
    """
    size = column(norm.size(perturbed - images))
    return (images + size * random_directions(norm, images, streams)).clamp(0, 1)


def random_directions(norm: Norm, images: Tensor, streams: Streams) -> Tensor:
    """Random steps of norm one, like the images: signs in linf, Gaussian directions in L2."""
    shape = images.shape[1:]
    if norm.name == "linf":
        return torch.where(streams.uniform(shape, images) < 0.5, -1.0, 1.0).to(images)
    return norm.direction(streams.normal(shape, images))
