"""Gradients by solving the adjoint equation backwards, sample by sample.

Chen et al., Neural Ordinary Differential Equations, 2018, algorithm 1. With
`parameters_in_norm` the augmented state also holds the integrals of the gradients for the time
and for every parameter, and with it the error norm that steers the steps, as in torchdiffeq
0.2.5's `odeint_adjoint` at batch 1 (whose time always requires a gradient inside the backward
solve): these are the gradients that the paper attacked with. The parameters themselves get no
gradient here.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from node_robustness.ode_function import ODEFunction
from node_robustness.parts import Parts
from node_robustness.solvers import Solution, solve, solve_parts


@dataclass
class AdjointSettings:
    """How both solves are done, and what the backward one cost."""

    tolerance: float
    method: str
    max_steps: int
    parameters_in_norm: bool = True
    forward: Solution | None = None
    backward: Solution | None = None


def solve_adjoint(function: ODEFunction, initial: Tensor, settings: AdjointSettings) -> Tensor:
    """h(1) from h(0), [n, C, H, W], differentiable with respect to h(0) alone.

    `settings.forward` and, after the backward pass, `settings.backward` are set to the solutions.
    """
    result: Tensor = _Adjoint.apply(initial, function, settings)
    return result


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, initial: Tensor, function: ODEFunction, settings: AdjointSettings
    ) -> Tensor:
        ctx.function, ctx.settings = function, settings
        settings.forward = solve(
            function.bind(initial),
            initial,
            (0.0, 1.0),
            tolerance=settings.tolerance,
            method=settings.method,
            max_steps=settings.max_steps,
        )
        final = settings.forward.states[-1]
        ctx.save_for_backward(final)
        return final

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (final,) = ctx.saved_tensors
        # A failed forward solve has no gradient, and must not stop the others; where the loss does
        # not ask for a gradient (an attack that is done with an image), there is nothing to solve.
        finite = (torch.isfinite(final) & torch.isfinite(gradient)).flatten(1).all(1)
        wanted = finite & (gradient != 0).flatten(1).any(1)
        result = torch.where(finite.view(-1, 1, 1, 1), torch.zeros_like(gradient), torch.nan)
        if bool(wanted.any()):
            solution = _solve_backwards(ctx.function, final[wanted], gradient[wanted], ctx.settings)
            ctx.settings.backward = solution
            result[wanted] = solution.parts[1][-1]
        return result, None, None


def _solve_backwards(
    function: ODEFunction, final: Tensor, gradient: Tensor, settings: AdjointSettings
) -> Solution:
    bound = function.bind(final)

    def dynamics(t: Tensor, parts: Parts) -> Parts:
        state, adjoint = parts
        if settings.parameters_in_norm:
            value, products = function.vjp_with_parameters(t, state, -adjoint)
            return value, *products
        with torch.enable_grad():
            state = state.detach().requires_grad_()
            value = bound(t, state)
            (product,) = torch.autograd.grad(value, state, -adjoint)
        return value.detach(), product

    initial: Parts = (final, gradient)
    if settings.parameters_in_norm:
        initial += (final.new_zeros(len(final)),)
        initial += tuple(
            final.new_zeros(len(final), parameter.numel()) for parameter in function.parameters()
        )
    with torch.no_grad():
        return solve_parts(
            dynamics,
            initial,
            (1.0, 0.0),
            tolerance=settings.tolerance,
            method=settings.method,
            max_steps=settings.max_steps,
            coupled=2,
        )
