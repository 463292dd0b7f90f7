"""Same bits for an image whether it is computed alone or in a batch.

For a single row, convolutions use another kernel, which rounds differently (oneDNN on x86; from two
rows on, all results are equal bit by bit, see docs/reproducibility.md). Small batches are therefore
padded with copies of their first row, which are dropped from the result.
"""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 4
"""Smallest number of rows passed to a layer.

Two were enough wherever it was measured. Four leave a margin for other kernels and cost little: a
large batch shrinks to so few rows only at its end.
"""


def filled_up(tensor: Tensor, rows: int = ROWS) -> Tensor:
    """A tensor [n, ...], n >= 1, padded with copies of its first row to `rows` rows or more."""
    missing = rows - len(tensor)
    if missing <= 0:
        return tensor
    copies = tensor[:1].detach().expand(missing, *tensor.shape[1:])
    return torch.cat([tensor, copies])


def at_least_some_rows(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply a function of tensors [n, ...] to [n, ...] to at least `ROWS` rows.

    Args:
        function: works row by row.
        *tensors: its arguments, each [n, ...], n >= 1.
    """
    rows = len(tensors[0])
    result = function(*map(filled_up, tensors))
    return result if len(result) == rows else result[:rows]
