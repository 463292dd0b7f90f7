"""The derivative of a map of states, as Jacobian-vector products."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.models.differentiation import gradients
from node_robustness.models.ode_function import ODEFunction

Map = Callable[[Tensor], Tensor]
"""A map of states [n, C, H, W], sample by sample."""


_SAME = 1e-3
"""How far <w, J v> and <J^T w, v> may differ by rounding, relative to the norms they consist of."""


@dataclass(frozen=True)
class Linearisation:
    """A map of states, linearised at some states.

    Attributes:
        value: of the map at these states.
        push: v to J v, with the Jacobian J (jvp).
        pull: w to J^T w (vjp).
    """

    value: Tensor
    push: Map
    pull: Map


def linearise(function: nn.Module, t: Tensor, h: Tensor) -> Linearisation:
    """Linearise the right-hand side of an ODE at times t [n] and states h [n, C, H, W]."""
    if isinstance(function, ODEFunction):
        return Linearisation(*function.linearise(t, h))
    return by_autograd(lambda state: function(t, state), h)


def why_not(function: nn.Module, t: Tensor, h: Tensor) -> str:
    """Why a right-hand side cannot be linearised, one line; empty if it can.

    Args:
        function: see `linearise`.
        t: times, [n].
        h: states, [n, C, H, W], n >= 1.
    """
    state = h[:1]
    generator = torch.Generator().manual_seed(0)
    v, w = (torch.randn(state.shape, generator=generator).to(state) for _ in range(2))
    try:
        near = linearise(function, t[:1], state)
        pushed, pulled = near.push(v), near.pull(w)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        return str(error).splitlines()[0]
    # Autograd leaves out, without a word, what is marked as differentiable once.
    gap = ((w * pushed).sum() - (pulled * v).sum()).abs()
    if gap > _SAME * (w.norm() * pushed.norm() + pulled.norm() * v.norm()):
        return "a second derivative lacks a part that the first one has"
    return ""


def by_autograd(function: Map, at: Tensor) -> Linearisation:
    """Linearise any map that can be differentiated twice.

    The product J^T w is linear in w, so that its derivative gives J v. Forward mode takes three
    times as long for the layers used here, and imports a compiler.

    Args:
        function: the map.
        at: states [n, C, H, W].
    """
    with torch.enable_grad():
        inputs = at.detach().requires_grad_()
        value = function(inputs)
        cotangent = torch.zeros_like(value, requires_grad=True)
        (pulled,) = gradients(value, [inputs], cotangent, differentiable=True)

    def push(v: Tensor) -> Tensor:
        return gradients(pulled, [cotangent], v, keep=True)[0]

    def pull(w: Tensor) -> Tensor:
        return gradients(value, [inputs], w, keep=True)[0]

    return Linearisation(value.detach(), push, pull)
