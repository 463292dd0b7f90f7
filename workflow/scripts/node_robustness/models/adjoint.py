"""Gradients by solving the adjoint equation backwards, sample by sample.

Chen et al., Neural Ordinary Differential Equations, 2018, algorithm 1. The backward solve
integrates the state, its adjoint a (da/dt = -a df/dh) and the gradient for the time, as
torchdiffeq 0.2.5's `odeint_adjoint` does at batch 1. The paper's attacks also integrated the
gradients for all parameters. An attack does not use them, but they count in the error norm that
controls the steps; without them the norm is a seminorm (Kidger, Chen and Lyons, "Hey, that's not an
ODE": Faster ODE Adjoints via Seminorms, 2021). The parameters get no gradient here.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from node_robustness.models.ode_function import ODEFunction
from node_robustness.ode.parts import Parts
from node_robustness.ode.solve import Solution, solve_parts


@dataclass(frozen=True)
class AdjointSettings:
    """Settings of the backward solve; see `ode.solve.solve`.

    Attributes:
        tolerance: one number, or one for each sample, [n].
        method: a name in `ode.tableaus.TABLEAUS`.
        steps: number of equal steps; None for adaptive steps.
        max_steps: largest number of attempted steps.
        parameters_in_norm: whether the integrals for the parameters count in the error norm.
    """

    tolerance: float | Tensor
    method: str
    steps: int | None
    max_steps: int
    parameters_in_norm: bool


def with_adjoint_gradient(
    initial: Tensor,
    final: Tensor,
    function: ODEFunction,
    settings: AdjointSettings,
    note_evaluations: Callable[[Tensor], None],
) -> Tensor:
    """The state h(1) with a gradient for h(0).

    Args:
        initial: h(0), [n, C, H, W].
        final: the solved h(1), outside autograd's graph, [n, C, H, W].
        function: the dynamics.
        settings: of the backward solve.
        note_evaluations: called in each backward pass with the function evaluations of each
            sample, int32 [n]; zero where the incoming gradient is zero.

    Returns:
        h(1), [n, C, H, W].
    """
    attach: Callable[..., Tensor] = _Adjoint.apply
    return attach(initial, final, function, settings, note_evaluations)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        initial: Tensor,
        final: Tensor,
        function: ODEFunction,
        settings: AdjointSettings,
        note_evaluations: Callable[[Tensor], None],
    ) -> Tensor:
        ctx.function, ctx.settings, ctx.note = function, settings, note_evaluations
        ctx.save_for_backward(final)
        return final.view_as(final)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (final,) = ctx.saved_tensors
        # A failed forward solve has no gradient and must not stop the others. Where the incoming
        # gradient is zero (an attack has finished the image), there is nothing to solve.
        finite = (torch.isfinite(final) & torch.isfinite(gradient)).flatten(1).all(1)
        wanted = finite & (gradient != 0).flatten(1).any(1)
        result = torch.where(finite.view(-1, 1, 1, 1), torch.zeros_like(gradient), torch.nan)
        evaluations = torch.zeros(len(final), dtype=torch.int32, device=final.device)
        if bool(wanted.any()):
            settings = _of_samples(ctx.settings, wanted)
            solution = _solve_backwards(ctx.function, final[wanted], gradient[wanted], settings)
            result[wanted] = solution.parts[1][-1]
            evaluations[wanted] = solution.nfe.int()
        ctx.note(evaluations)
        return result, None, None, None, None


def _of_samples(settings: AdjointSettings, chosen: Tensor) -> AdjointSettings:
    """The settings of the samples in `chosen`, bool [n]."""
    if not isinstance(settings.tolerance, Tensor):
        return settings
    return replace(settings, tolerance=settings.tolerance[chosen.to(settings.tolerance.device)])


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
            t, state = t.detach().requires_grad_(), state.detach().requires_grad_()
            value = bound(t, state)
            for_state, for_time = torch.autograd.grad(value, (state, t), -adjoint)
        return value.detach(), for_state, for_time

    initial: Parts = (final, gradient, final.new_zeros(len(final)))
    if settings.parameters_in_norm:
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
            steps=settings.steps,
            max_steps=settings.max_steps,
            coupled=2,
        )
