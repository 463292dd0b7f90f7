"""Gradients by solving the adjoint equation backwards, sample by sample.

Chen et al., Neural Ordinary Differential Equations, 2018, algorithm 1. The backward solve
integrates the state, its adjoint a (da/dt = -a df/dh) and the gradients for time and parameters, as
torchdiffeq 0.2.5's `odeint_adjoint` does at batch 1: from each output time to the one before, where
the state is put back to that of the forward solve. All of these integrals count in the error norm
that controls the steps. Without the parameters the norm is a seminorm (Kidger, Chen and Lyons,
"Hey, that's not an ODE": Faster ODE Adjoints via Seminorms, 2021).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from node_robustness.ode.parts import Parts, Sum, combinations, rows
from node_robustness.ode.parts import norm as largest_rms
from node_robustness.ode.products import Products
from node_robustness.ode.solve import DEFAULT_SIZES, Solution, Status, solve_parts
from node_robustness.ode.step_control import StepSizes


@dataclass(frozen=True)
class AdjointSettings:
    """Settings of the backward solve; see `ode.solve.solve`.

    Attributes:
        tolerance: one number, or one for each sample, [n].
        method: a name in `ode.tableaus.TABLEAUS`.
        steps: number of equal steps between output times; None for adaptive steps, or for `nodes`.
        max_steps: largest number of attempted steps between output times.
        parameters_in_norm: whether the integrals for the parameters count in the error norm.
        ratio: the relative and the absolute tolerance, each over the tolerance.
        norm: of the parts of the state, and of those of its adjoint; to [n].
        nodes: from the first and the last time of a backward solve to the times between which all
            samples step.
        sizes: how adaptive steps are sized.
    """

    tolerance: float | Tensor | None
    method: str
    steps: int | None
    max_steps: int
    parameters_in_norm: bool
    ratio: tuple[float, float] = (1.0, 1.0)
    norm: Callable[[Parts], Tensor] = largest_rms
    nodes: Callable[[float, float], Tensor] | None = None
    sizes: StepSizes = DEFAULT_SIZES


Note = Callable[[Tensor, Tensor], None]
"""Takes the function evaluations, int32 [n], and the `ode.solve.Status`, int64 [n], of the backward
solve of each sample."""


def with_adjoint_gradient(
    initial: Parts,
    solved: Parts,
    times: Sequence[float],
    products: Products,
    settings: AdjointSettings,
    note: Note,
    parameters: Sequence[Tensor] = (),
) -> Parts:
    """The solved states with a gradient for the initial state and for parameters.

    Args:
        initial: the parts of the state at `times[0]`, each [n, ...].
        solved: the parts at all times, outside autograd's graph, each [T, n, ...].
        times: the T output times.
        products: of the dynamics.
        settings: of the backward solve.
        note: called in each backward pass. A sample without evaluations had no gradient to solve
            for: the incoming one is zero, or the forward solve failed.
        parameters: those that get gradients; either all of `products` or none.

    Returns:
        The parts at all times, each [T, n, ...].
    """
    attach: Callable[..., Parts] = _Adjoint.apply
    # Integrals that no one reads serve as a part of the error norm only.
    read = bool(parameters) or len(times) > 2
    problem = _Backward(tuple(times), products, settings, note, read)
    return attach(problem, len(initial), *initial, *solved, *parameters)


class _Adjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, backward: "_Backward", count: int, *tensors: Tensor) -> Parts:
        solved, parameters = tensors[count : 2 * count], tensors[2 * count :]
        ctx.solve_backwards, ctx.shapes = backward, [each.shape for each in parameters]
        ctx.save_for_backward(*solved)
        return tuple(part.view_as(part) for part in solved)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        adjoint, integrals = ctx.solve_backwards(ctx.saved_tensors, gradients)
        for_parameters = (
            integral.sum(0).view(shape)
            for integral, shape in zip(integrals, ctx.shapes, strict=False)
        )
        return None, None, *adjoint, *[None] * len(gradients), *for_parameters


@dataclass(frozen=True)
class _Backward:
    times: tuple[float, ...]
    products: Products
    settings: AdjointSettings
    note: Note
    keep_integrals: bool

    def __call__(self, solved: Parts, gradients: Parts) -> tuple[Parts, Parts]:
        """The gradients for the initial state and, sample by sample, for the parameters."""
        incoming = _by_sample(gradients)
        # A failed forward solve has no gradient and must not stop the others. Where the incoming
        # gradient is zero (an attack has finished the image), there is nothing to solve.
        finite = (torch.isfinite(_by_sample(solved)) & torch.isfinite(incoming)).all(1)
        going = finite & (incoming != 0).any(1)
        count, samples = len(solved), len(finite)
        adjoint = tuple(part[-1].clone() for part in gradients)
        integrals = tuple(
            incoming.new_zeros(samples if self.keep_integrals else 1, size).expand(samples, size)
            for size in self.products.sizes
        )
        carried = (*adjoint, incoming.new_zeros(samples), *integrals)
        status = torch.zeros(samples, dtype=torch.int64, device=finite.device)
        evaluations = torch.zeros_like(status, dtype=torch.int32)
        for end, start in pairwise(reversed(range(len(self.times)))):
            index = going.nonzero().flatten()
            if not len(index):
                break
            states = tuple(part[end] for part in solved)
            span = self.times[end], self.times[start]
            found = self._solve(rows((*states, *carried), index), count, span, index)
            for whole, part in zip(carried, found.parts[count:], strict=self.keep_integrals):
                whole[index] = part[-1]
            for part, gradient in zip(adjoint, gradients, strict=True):
                part += gradient[start]
            evaluations[index] += found.nfe.int()
            status[index] = found.status
            going[index] = found.status == Status.SUCCESS
        for part in (*adjoint, *(integrals if self.keep_integrals else ())):
            part[~finite | (status != Status.SUCCESS)] = torch.nan
        self.note(evaluations, status)
        return adjoint, integrals

    def _solve(
        self, parts: Parts, count: int, span: tuple[float, float], index: Tensor
    ) -> Solution:
        """Solve from one output time to the one before.

        Args:
            parts: those of state and adjoint, `count` each, the time's integral and the others'.
            count: see `parts`.
            span: both times.
            index: positions of the samples in the batch.
        """
        settings, samples = self.settings, len(index)

        def dynamics(t: Tensor, coupled: Parts) -> Parts:
            state, adjoint = coupled[:count], coupled[count:]
            values, products = self.products.evaluate(t, state, tuple(-part for part in adjoint))
            return *values, *products

        def total(sums: Sequence[Sum], terms: Sequence[Parts]) -> list[Parts]:
            of_time = combinations(sums, [term[:1] for term in terms])
            others = self.products.total(sums, [term[1:] for term in terms])
            return [(*time, *other) for time, other in zip(of_time, others, strict=True)]

        def norm(errors: Sequence[Tensor]) -> Tensor:
            state, adjoint, others = errors[:count], errors[count : 2 * count], errors[2 * count :]
            counted = others if settings.parameters_in_norm else others[:1]
            norms = (
                settings.norm(tuple(state)),
                settings.norm(tuple(adjoint)),
                largest_rms(counted),
            )
            return torch.stack(norms).amax(0)

        tolerance, nodes = settings.tolerance, None
        if isinstance(tolerance, Tensor):
            tolerance = tolerance[index.to(tolerance.device)]
        if settings.nodes is not None:
            nodes = [settings.nodes(*span)] * samples
        with torch.no_grad():
            return solve_parts(
                dynamics,
                parts,
                span,
                tolerance=tolerance,
                ratio=settings.ratio,
                norm=norm,
                method=settings.method,
                steps=settings.steps,
                nodes=nodes,
                sizes=settings.sizes,
                max_steps=settings.max_steps,
                coupled=2 * count,
                total=total,
                keep_integrals=self.keep_integrals,
            )


def _by_sample(parts: Parts) -> Tensor:
    """Parts [T, n, ...] as rows [n, all values]."""
    return torch.cat([part.movedim(1, 0).flatten(1) for part in parts], dim=1)
