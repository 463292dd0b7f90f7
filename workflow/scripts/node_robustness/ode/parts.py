"""States in several parts, and the operations of a Runge-Kutta method on them, sample by sample."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Parts = tuple[Tensor, ...]
"""A state in parts, each [N, ...]; its norm is the largest of the parts' RMS norms."""


def norm(parts: Sequence[Tensor]) -> Tensor:
    """The largest root mean square of the parts, for each sample, [N]."""
    norms = []
    for part in parts:
        flat = part.flatten(1) if part.ndim > 1 else part[:, None]
        norms.append(torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5)
    return torch.stack(norms).amax(0)


def rows(parts: Parts, index: Tensor) -> Parts:
    """The samples at `index`, int64 [m] on the parts' device."""
    return tuple(part.index_select(0, index) for part in parts)


def choose(mask: Tensor, yes: Parts, no: Parts) -> Parts:
    """`yes` for the samples in `mask`, bool [N] on the CPU, and `no` for the others.

    If all samples choose the same, the other parts are left out of autograd's graph.
    """
    if bool(mask.all()):
        return yes
    if not bool(mask.any()):
        return no
    return tuple(
        torch.where(spread(mask.to(a.device, non_blocking=True), a), a, b)
        for a, b in zip(yes, no, strict=True)
    )


def combine(base: Parts | None, weights: Tensor, terms: Sequence[Parts]) -> Parts:
    """`base + sum_j weights[j] * terms[j]`, part by part.

    Args:
        base: the parts to add to; None for zero.
        weights: [number of terms, N], constants to autograd.
        terms: at least one, each like `base`.
    """
    columns = zip(*terms, strict=True)
    bases: Sequence[Tensor | None] = base if base is not None else [None] * len(terms[0])
    # The function costs as much as a small combination, and only autograd needs it.
    sum_up = _Combination.apply if torch.is_grad_enabled() else _combination
    return tuple(
        sum_up(part, weights, *column) for part, column in zip(bases, columns, strict=True)
    )


Sum = tuple[Sequence[int], Tensor]
"""Which terms are summed, and with what weights, [number of them, N]."""


def combinations(sums: Sequence[Sum], terms: Sequence[Parts]) -> list[Parts]:
    """Weighted sums of terms, each as in `combine`."""
    return [combine(None, weights, [terms[term] for term in used]) for used, weights in sums]


def spread(values: Tensor, like: Tensor) -> Tensor:
    """Values [N] as [N, 1, ...], with as many dimensions as `like`."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _combination(base: Tensor | None, weights: Tensor, *terms: Tensor) -> Tensor:
    scales = _spread_rows(weights, terms[0])
    first = terms[0]
    total = first * scales[0] if base is None else torch.addcmul(base, first, scales[0])
    for term, scale in zip(terms[1:], scales[1:], strict=True):
        total.addcmul_(term, scale)
    return total


def _spread_rows(weights: Tensor, like: Tensor) -> tuple[Tensor, ...]:
    """Each row of weights [number of terms, N] as `spread`, in one view."""
    ones = [1] * (like.ndim - 1)
    return weights.view(weights.shape[0], weights.shape[1], *ones).unbind(0)


class _Combination(torch.autograd.Function):
    """A combination that stores only the weights for autograd, not the terms."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, weights: Tensor, *terms: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return _combination(base, weights, *terms)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        needed = zip(ctx.needs_input_grad[2:], _spread_rows(weights, gradient), strict=True)
        products = (gradient * scale if need else None for need, scale in needed)
        return gradient if ctx.needs_input_grad[0] else None, None, *products
