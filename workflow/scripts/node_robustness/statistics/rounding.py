"""What is a difference of two computed values, and what is only their rounding.

The same computation in another row of a batch, or by another kernel, may round differently. Ratios
of such differences look like measurements and say nothing.
"""

import torch
from torch import Tensor

_UNITS = 64
"""In units of the last place: values are computed in many steps, each of which rounds."""


def above_rounding(difference: Tensor, value: Tensor) -> Tensor:
    """Whether differences are larger than what rounding alone makes of equal values.

    Args:
        difference: absolute differences of two computed values, or norms of them; floating point.
        value: the size of these values, of a shape that broadcasts with `difference`.

    Returns:
        bool, of the shape of both; false where either is NaN.
    """
    return difference > _UNITS * torch.finfo(difference.dtype).eps * value
