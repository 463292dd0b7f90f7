"""Gradients of functions that may not depend on all of their inputs, as a user's network may not.

`torch.autograd.grad` refuses such a function; its gradient is zero.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def gradient(values: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of the sum of values, like the inputs."""
    return gradients(values.sum(), [inputs])[0]


def gradients(
    value: Tensor,
    inputs: Sequence[Tensor],
    cotangent: Tensor | None = None,
    *,
    keep: bool = False,
    differentiable: bool = False,
) -> tuple[Tensor, ...]:
    """Products of a cotangent with the Jacobian of a value, each like its input.

    Args:
        value: a tensor.
        inputs: tensors that require gradients.
        cotangent: like the value; None for one, where the value is a number.
        keep: whether the graph is needed again.
        differentiable: whether the products are to be differentiated; implies `keep`.
    """
    if not value.requires_grad:
        return tuple(torch.zeros_like(each) for each in inputs)
    return torch.autograd.grad(
        value,
        inputs,
        cotangent,
        retain_graph=keep or differentiable,
        create_graph=differentiable,
        allow_unused=True,
        materialize_grads=True,
    )
