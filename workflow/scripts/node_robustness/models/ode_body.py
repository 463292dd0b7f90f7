"""The ODE body of a classifier: a neural ODE, solved sample by sample."""

from collections.abc import Sequence
from contextlib import nullcontext
from copy import copy, deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from node_robustness.models.ode_function import RightHandSide
from node_robustness.ode.adjoint import AdjointSettings, with_adjoint_gradient
from node_robustness.ode.parts import Parts, spread
from node_robustness.ode.solve import Dynamics, Solution, Status, solve, solve_parts


@dataclass(frozen=True)
class SolverSettings:
    """How an ODE body is solved.

    Attributes:
        method: a name in `ode.tableaus.TABLEAUS`; with the backend `torchdiffeq` any of its
            methods.
        tolerance: tau > 0, relative and absolute; no effect if `steps` is given. The batched
            backend also takes a tensor [n] with one tolerance for each image of a batch.
        max_steps: largest number of attempted steps; no effect if `steps` is given.
        steps: number of equal steps; None for adaptive steps.
        backend: `batched` (each image has its own steps) or `torchdiffeq` (a batch is one
            equation).
        gradient: `direct` (backpropagation through the steps) or `adjoint` (a backward solve).
        adjoint_tolerance: tau of the backward solve; None for the tolerance of the forward solve.
        adjoint_norm: the error norm of the backward solve: `full`, the paper's (state, adjoint,
            and the integrals of the gradients for time and parameters), or `seminorm` (without
            the parameters).
        batch_size: with torchdiffeq, the largest number of images in one equation, except in
            training; None for the whole batch.
        checkpoint: whether direct gradients of the batched backend recompute each step in the
            backward pass instead of storing its intermediate results.
    """

    method: str
    tolerance: float | Tensor
    max_steps: int
    steps: int | None = None
    backend: Literal["batched", "torchdiffeq"] = "batched"
    gradient: Literal["direct", "adjoint"] = "direct"
    adjoint_tolerance: float | Tensor | None = None
    adjoint_norm: Literal["full", "seminorm"] = "full"
    batch_size: int | None = None
    checkpoint: bool = False


class ODEBody(nn.Module):
    """Maps h(0) to h(1) by solving dh/dt = f(t, h).

    Args:
        function: the dynamics f.
        settings: of the solver; `at` returns a view with other settings.

    Attributes:
        nfe: function evaluations of each image in the last forward solve, int32 [n].
        nfe_backward: the same of its backward solve, int32 [n]; None before the backward pass,
            with direct gradients and with torchdiffeq. One evaluation includes the derivatives.
        status: the `ode.solve.Status` of each image in the last forward solve, int64 [n].
    """

    def __init__(self, function: RightHandSide, settings: SolverSettings) -> None:
        super().__init__()
        self.function = function
        self.settings = settings
        self.nfe: Tensor | None = None
        self.nfe_backward: Tensor | None = None
        self.status: Tensor | None = None

    def at(self, **changes: Any) -> Self:
        """A view of the same dynamics that is solved with other settings; see `Classifier.at`.

        Args:
            **changes: fields of `SolverSettings`; a `tolerance` of None keeps this body's.

        Raises:
            TypeError: `SolverSettings` has no such field.
        """
        if changes.get("tolerance", 0) is None:
            del changes["tolerance"]
        view = copy(self)
        view.settings = replace(self.settings, **changes)
        view.nfe = view.nfe_backward = view.status = None
        return view

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C, H, W]."""
        self.nfe_backward = None
        if self.settings.backend == "torchdiffeq":
            return self._torchdiffeq(h)
        adjoint = self.settings.gradient == "adjoint" and torch.is_grad_enabled()
        with torch.no_grad() if adjoint else nullcontext():
            solution = self.solve(h, (0.0, 1.0))
        self.nfe, self.status = solution.nfe.int(), solution.status
        states = self._with_adjoint(h, solution.states) if adjoint else solution.states
        return states[-1]

    @property
    def _in_training(self) -> bool:
        # A view shares the function, and with it the mode.
        return self.function.training

    def _with_adjoint(self, h: Tensor, states: Tensor) -> Tensor:
        def note(evaluations: Tensor, _status: Tensor) -> None:
            self.nfe_backward = evaluations

        full = self.settings.adjoint_norm == "full"
        settings = AdjointSettings(
            tolerance=self._adjoint_tolerance,
            method=self.settings.method,
            steps=self.settings.steps,
            max_steps=self.settings.max_steps,
            parameters_in_norm=full,
        )
        products = self.function.products(h, full)
        (states,) = with_adjoint_gradient((h,), (states,), (0.0, 1.0), products, settings, note)
        return states

    @property
    def _adjoint_tolerance(self) -> float | Tensor:
        own = self.settings.adjoint_tolerance
        return self.settings.tolerance if own is None else own

    def solve(
        self,
        h: Tensor,
        times: tuple[float, ...] | Tensor,
        keep_nodes: bool = False,
        keep_node_states: bool = False,
        keep_work: bool = False,
        nodes: Sequence[Tensor] | None = None,
    ) -> Solution:
        """Solve for the states at the given times, [T, n, C, H, W], with cost and status.

        Args:
            h: states at the first time, [n, C, H, W].
            times: see `ode.solve.solve`.
            keep_nodes: see `ode.solve.solve`.
            keep_node_states: see `ode.solve.solve`.
            keep_work: see `ode.solve.solve`.
            nodes: of a solve with the same settings, to take its steps again.

        Raises:
            ValueError: the backend is torchdiffeq, which has no steps of each image.
        """
        if self.settings.backend != "batched":
            raise ValueError(f"backend {self.settings.backend} has no steps of each image")
        return solve(
            self.function.bind(h),
            h,
            times,
            tolerance=self.settings.tolerance,
            method=self.settings.method,
            steps=self.settings.steps,
            nodes=nodes,
            max_steps=self.settings.max_steps,
            keep_nodes=keep_nodes,
            keep_node_states=keep_node_states,
            keep_work=keep_work,
            checkpoint=self.settings.checkpoint,
        )

    def integrate(self, dynamics: Dynamics, initial: Parts, times: Sequence[float]) -> Solution:
        """Solve other dynamics, of a state in parts, with the settings of this body.

        Args:
            dynamics: see `ode.solve.Dynamics`.
            initial: the parts at `times[0]`, each [n, ...]; one at least is like a state.
            times: see `solve`.
        """
        return solve_parts(
            dynamics,
            initial,
            times,
            tolerance=self.settings.tolerance,
            method=self.settings.method,
            steps=self.settings.steps,
            max_steps=self.settings.max_steps,
        )

    def _torchdiffeq(self, h: Tensor) -> Tensor:
        own = None if self._in_training else self.settings.batch_size
        solved = [self._one_equation(rows) for rows in h.split(own or len(h))]
        final, nfe, status = (torch.cat(parts) for parts in zip(*solved, strict=True))
        self.nfe, self.status = nfe, status
        return final

    def _one_equation(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states h(1) by torchdiffeq, their evaluations and their status."""
        # Imported here because it takes half a second and few runs need it.
        from torchdiffeq import odeint, odeint_adjoint

        settings, steps = self.settings, self.settings.steps
        if isinstance(settings.tolerance, Tensor):
            raise ValueError("torchdiffeq solves a batch as one equation: give one tolerance")
        options: dict[str, Any] = {"max_num_steps": settings.max_steps}
        if steps is not None:
            options = {"grid_constructor": partial(uniform_grid, steps)}
        integrate, adjoint = odeint, {}
        if settings.gradient == "adjoint":
            norm = {} if settings.adjoint_norm == "full" else {"norm": "seminorm"}
            tolerance = self._adjoint_tolerance
            integrate = odeint_adjoint
            adjoint = {
                "adjoint_rtol": tolerance,
                "adjoint_atol": tolerance,
                "adjoint_options": options | norm,
            }
        full = settings.gradient == "adjoint" and settings.adjoint_norm == "full"
        function = _Counted(with_parameters(self.function) if full else self.function)
        status = Status.SUCCESS
        try:
            final: Tensor = integrate(
                function,
                h,
                torch.tensor([0.0, 1.0], dtype=h.dtype, device=h.device),
                rtol=settings.tolerance,
                atol=settings.tolerance,
                method=settings.method,
                options=options,
                **adjoint,
            )[-1]
        except AssertionError as error:
            failed = (kind for words, kind in FAILURES.items() if words in str(error))
            status = next(failed, Status.SUCCESS)
            if self._in_training or status == Status.SUCCESS:
                raise
            final = h * torch.nan
        nfe = torch.full((len(h),), function.evaluations, dtype=torch.int32, device=h.device)
        found = torch.full_like(nfe, status, dtype=torch.int64)
        if status == Status.SUCCESS:
            # torchdiffeq does not check equal steps.
            found[~torch.isfinite(final.detach()).flatten(1).all(1)] = Status.NONFINITE
        return final, nfe, found


def with_parameters(function: nn.Module) -> nn.Module:
    """The function, or a copy whose parameters require gradients, for the paper's adjoint.

    torchdiffeq leaves frozen parameters out of the backward solve, and so out of the error norm
    that controls its steps.
    """
    frozen = not any(parameter.requires_grad for parameter in function.parameters())
    if not frozen or not torch.is_grad_enabled():
        return function
    # What a user's function keeps of a pass may have a graph, which is not copied.
    kept = [value for module in function.modules() for value in vars(module).values()]
    shared = {id(value): value for value in kept if isinstance(value, Tensor) and not value.is_leaf}
    return deepcopy(function, shared).requires_grad_()


def solve_finite(
    body: ODEBody, h: Tensor, times: tuple[float, ...] | Tensor, **kept: Any
) -> Solution:
    """Solve for states of which some may not be finite, because a solve before the body failed.

    Args:
        body: what solves.
        h: see `ODEBody.solve`.
        times: see `ODEBody.solve`.
        **kept: other arguments of `ODEBody.solve`.

    Returns:
        For such states NaN, at the cost of nothing.
    """
    known = torch.isfinite(h.detach()).flatten(1).all(1)
    if bool(known.all()):
        return body.solve(h, times, **kept)
    found, lost = body.solve(torch.where(spread(known, h), h, 0), times, **kept), ~known
    solved, counts = known.tolist(), ("nfe", "accepted", "rejected", "work")
    return replace(
        found,
        parts=(found.states.masked_fill(spread(lost, h), torch.nan),),
        status=found.status.masked_fill(lost, Status.NONFINITE),
        nodes=[t if known else t[:1] for t, known in zip(found.nodes, solved, strict=False)],
        node_states=[
            states if known else torch.nan * states[:1]
            for states, known in zip(found.node_states, solved, strict=False)
        ],
        **{name: getattr(found, name).masked_fill(lost, 0) for name in counts},
    )


FAILURES = {
    "max_num_steps exceeded": Status.MAX_STEPS,
    "underflow in dt": Status.UNDERFLOW,
    "non-finite values": Status.NONFINITE,
}
"""Words in torchdiffeq's error when a solve fails, and the status that they mean."""


def uniform_grid(steps: int, _function: object, _state: object, times: Tensor) -> Tensor:
    """Equal steps, as torchdiffeq's option `grid_constructor`."""
    first, last = times[0].item(), times[-1].item()
    return torch.linspace(first, last, steps + 1, dtype=times.dtype, device=times.device)


class _Counted(nn.Module):
    """A function that counts its evaluations."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.evaluations = 0

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        self.evaluations += 1
        out: Tensor = self.function(t, h)
        return out
