"""The predicted class of an image."""

import torch
from torch import Tensor

NO_CLASS = -1
"""The prediction where logits are not finite, because the solve failed."""


def classes(logits: Tensor) -> Tensor:
    """The predicted class of each row of logits [n, K]; `NO_CLASS` where they are not finite."""
    return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), NO_CLASS)
