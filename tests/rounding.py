"""A processor that rounds otherwise, for tests that must pass on any.

Which kernel computes a row of a batch, and so how its last bits are rounded, differs between
processors, and on some between the rows of one batch. On the machine at hand that cannot be seen.
`OtherRounding` makes it visible: what convolutions, normalisations, products and sums give is moved
by one unit in the last place in every third row of a batch.
"""

import functools
import warnings
from typing import Any

import torch
from torch import Tensor

BY_KERNELS = (
    "addmm",
    "bmm",
    "convolution",
    "convolution_backward",
    "mean.dim",
    "mm",
    "native_group_norm",
    "sum.dim_IntList",
)
"""What kernels compute in their own order; elementwise arithmetic is exact everywhere."""


class OtherRounding:
    """Rounds the results of `BY_KERNELS` otherwise in every third row.

    It registers kernels of its own for these operators, so that all others cost what they always
    cost; a `TorchDispatchMode` would delay each of them.
    """

    def __enter__(self) -> None:
        self._library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings(action="ignore"):  # that kernels are replaced is intended
            for name in BY_KERNELS:
                kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
                rounded = functools.partial(_rounded, kernel)
                self._library.impl(name, rounded, "CPU", with_keyset=True)

    def __exit__(self, *_: object) -> None:
        self._library._destroy()


def _rounded(kernel: Any, *args: Any, **kwargs: Any) -> Any:
    result = kernel.call_boxed(*args, **kwargs)
    # Of several results the first has a row for each sample; the others are sums over samples.
    first, *others = result if isinstance(result, tuple) else (result,)
    moved = first if first is None else _moved(first)
    return (moved, *others) if isinstance(result, tuple) else moved


def _moved(values: Tensor) -> Tensor:
    if not values.is_floating_point() or not values.ndim:
        return values
    values[1::3].mul_(1 + torch.finfo(values.dtype).eps)
    return values


def rows_round_alike() -> bool:
    """Whether the same values in another row of a batch have the same bits here.

    What does not depend on the batch down to the bits where they do, does to rounding elsewhere.
    Products of matrices are not asked: the models have none, as they differ on every processor.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    images, kernel = draw(1, 4, 8, 8).repeat(16, 1, 1, 1), draw(8, 4, 3, 3)
    for dtype in (torch.float32, torch.float64):
        maps = torch.conv2d(images.to(dtype), kernel.to(dtype), padding=1)
        rows = torch.group_norm(maps, 4).flatten(1)
        for result in (maps, rows, rows.sum(1)):
            if not torch.equal(result, result[:1].expand_as(result)):
                return False
    return True


def dtype_and_margin() -> tuple[torch.dtype, float]:
    """What to compute in, and how far apart results of one image in two batches may then be.

    Where rows round differently nothing can be said of float32: rounding moves some value across
    the edge of a ReLU, where a gradient jumps. In float64 none is that close to an edge.
    """
    return (torch.float32, 0.0) if rows_round_alike() else (torch.float64, 1e-6)
