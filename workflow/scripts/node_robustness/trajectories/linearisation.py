"""The derivative of a map of states, as products with vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.models.ode_function import ODEFunction

Map = Callable[[Tensor], Tensor]
"""A map of states [n, C, H, W], sample by sample."""


@dataclass(frozen=True)
class Linearisation:
    """A map of states near some states.

    Attributes:
        value: of the map there.
        push: v to J v, J the Jacobian (forward differentiation, jvp).
        pull: w to J^T w (backward differentiation, vjp).
    """

    value: Tensor
    push: Map
    pull: Map


def linearise(function: nn.Module, t: Tensor, h: Tensor) -> Linearisation:
    """The right-hand side of an ODE as a function of its states, at times [n] and states."""
    if isinstance(function, ODEFunction):
        return Linearisation(*function.linearise(t, h))
    return by_autograd(lambda state: function(t, state), h)


def by_autograd(function: Map, at: Tensor) -> Linearisation:
    """Any map that can be differentiated twice.

    The product J^T w is linear in w, so that its own derivative gives J v. (Forward mode takes
    three times as long for the layers used here, and imports a compiler first.)
    """
    with torch.enable_grad():
        asking = at.detach().requires_grad_()
        value = function(asking)
        cotangent = torch.zeros_like(value, requires_grad=True)
        (pulled,) = torch.autograd.grad(value, asking, cotangent, create_graph=True)

    def push(v: Tensor) -> Tensor:
        product: Tensor = torch.autograd.grad(pulled, cotangent, v, retain_graph=True)[0]
        return product

    def pull(w: Tensor) -> Tensor:
        product: Tensor = torch.autograd.grad(value, asking, w, retain_graph=True)[0]
        return product

    return Linearisation(value.detach(), push, pull)
