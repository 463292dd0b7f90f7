"""Where adversarial examples may lie: at most epsilon from the image, in [0, 1]."""

import torch
from torch import Tensor

from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.sizes import ROUNDING


def into_ball(images: Tensor, moved: Tensor, norm: Norm, epsilon: float) -> Tensor:
    """Bring moved images back into the ball around the images, then into [0, 1].

    Rounding a pixel to float32 can carry it further from its image than epsilon. Where that
    happens the pixel (in L2, every pixel) goes back by one unit in the last place.

    Args:
        images: centres of the balls, float [m, C, H, W] in [0, 1].
        moved: float [m, C, H, W].
        norm: in which epsilon is measured.
        epsilon: radius of the balls.
    """
    inside = (images + norm.project(moved - images, epsilon)).clamp(0, 1)
    change = inside - images
    over = change.abs() > epsilon if norm.name == "linf" else column(norm.size(change) > epsilon)
    return torch.where(over, torch.nextafter(inside, images), inside)


def is_inside(sizes: Tensor, epsilon: float) -> Tensor:
    """Whether perturbations of these norms [m] count as being of norm epsilon at most, bool [m]."""
    return sizes <= epsilon * (1 + ROUNDING)
