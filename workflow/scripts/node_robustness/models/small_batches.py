"""The same bits for an image whether it is computed alone or among others.

A convolution of a single row is computed by another kernel, which rounds differently (oneDNN on
x86; from two rows on all results are equal bit by bit, docs/reproducibility.md). So no convolution
gets so few rows: copies of the first are added, and dropped afterwards.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 4
"""Fewest rows that a layer is given.

Two were enough wherever it was measured; four are a margin for kernels that were not, and cost
little, because a large batch comes down to so few only at its end.
"""


def filled_up(tensor: Tensor) -> Tensor:
    """The tensor [n, ...], n >= 1, with copies of its first row up to `ROWS` rows."""
    missing = ROWS - len(tensor)
    if missing <= 0:
        return tensor
    copies = tensor[:1].detach().expand(missing, *tensor.shape[1:])
    return torch.cat([tensor, copies])


def at_least_some_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A function of tensors [n, ...] to [n, ...], row by row, given `ROWS` rows or more."""
    rows = len(tensors[0])
    result = function(*map(filled_up, tensors))
    return result if len(result) == rows else result[:rows]
