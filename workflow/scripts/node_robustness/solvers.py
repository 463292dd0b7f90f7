"""Solve a batch of initial value problems in which every sample has its own steps.

torchdiffeq's adaptive solvers treat a batch as one equation: one step size for all, so that a
sample's result depends on its batch mates. Here every sample has its own time, step and
acceptance. The numbers are those of torchdiffeq 0.2.5 at batch 1 (same initial step, step control,
stages and dense output), at batch speed: samples that have arrived leave the batch.

Step sizes are constants to autograd, so that gradients are those of the discrete solution with
frozen steps ("discretise, then optimise").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from node_robustness.tableaus import TABLEAUS, Tableau

Parts = tuple[Tensor, ...]
"""A state in parts, each of shape [N, ...]; its norm is the largest of the parts' RMS norms."""

Dynamics = Callable[[Tensor, Parts], Parts]
"""The right-hand side: times [n] and the coupled parts of the state to the derivative of all."""

_SAFETY, _LARGEST_GROWTH, _LARGEST_SHRINKAGE = 0.9, 10.0, 0.2


class Status(IntEnum):
    """How the solution of one sample ended."""

    SUCCESS = 0
    MAX_STEPS = 1
    UNDERFLOW = 2
    NONFINITE = 3


@dataclass(frozen=True)
class Solution:
    """The solutions of N initial value problems at T output times.

    Attributes:
        parts: the state at the output times, each part of shape [T, N, ...]; NaN after the point
            at which a sample failed.
        nfe: number of function evaluations, int64 [N].
        accepted: accepted steps, int64 [N].
        rejected: rejected steps, int64 [N].
        status: a `Status` for each sample, int64 [N].
        nodes: the times between which each sample stepped, float64, one tensor a sample
            (start included; the last one may lie beyond the last output time); empty unless asked.
    """

    parts: Parts
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor
    nodes: list[Tensor]

    @property
    def states(self) -> Tensor:
        """The state at the output times, [T, N, ...], where it is a single part."""
        (states,) = self.parts
        return states


def solve(
    dynamics: Callable[[Tensor, Tensor], Tensor],
    initial: Tensor,
    times: Sequence[float],
    *,
    tolerance: float,
    method: str = "dopri5",
    max_steps: int = 1000,
    keep_nodes: bool = False,
) -> Solution:
    """Solve y' = f(t, y) for a batch of initial states.

    Args:
        dynamics: f; takes times [n] (in the state's dtype) and states [n, ...], gives [n, ...].
        initial: states at `times[0]`, floating point, [N, ...], N >= 1.
        times: output times, strictly increasing or strictly decreasing, at least two.
        tolerance: tau > 0, both the relative and the absolute tolerance.
        method: a name in `tableaus.TABLEAUS`.
        max_steps: attempted steps after which a sample ends with `Status.MAX_STEPS`.
        keep_nodes: whether to record the accepted nodes.

    Raises:
        ValueError: bad times, tolerance, method or initial state, with the value at fault.
    """
    return solve_parts(
        lambda t, parts: (dynamics(t, parts[0]),),
        (initial,),
        times,
        tolerance=tolerance,
        method=method,
        max_steps=max_steps,
        keep_nodes=keep_nodes,
    )


def solve_parts(
    dynamics: Dynamics,
    initial: Parts,
    times: Sequence[float],
    *,
    tolerance: float,
    method: str = "dopri5",
    max_steps: int = 1000,
    keep_nodes: bool = False,
    coupled: int | None = None,
) -> Solution:
    """Solve for a state in several parts; see `solve`.

    Args:
        coupled: how many leading parts the dynamics read. The others are plain integrals along
            the solution: they count in the error norm but need no value at the stages.
        dynamics: see `Dynamics`.
        initial: the parts at `times[0]`, each [N, ...].
        times: see `solve`.
        tolerance: see `solve`.
        method: see `solve`.
        max_steps: see `solve`.
        keep_nodes: see `solve`.
    """
    _check(initial, times, tolerance, method)
    direction = 1.0 if times[1] > times[0] else -1.0
    integration = _Integration(
        dynamics=dynamics,
        direction=direction,
        tableau=TABLEAUS[method],
        tolerance=tolerance,
        max_steps=max_steps,
        times=[direction * float(time) for time in times],
        coupled=len(initial) if coupled is None else coupled,
    )
    solution = integration.run(initial, keep_nodes)
    return Solution(
        parts=solution.parts,
        nfe=solution.nfe,
        accepted=solution.accepted,
        rejected=solution.rejected,
        status=solution.status,
        nodes=[direction * nodes for nodes in solution.nodes],
    )


def _check(initial: Parts, times: Sequence[float], tolerance: float, method: str) -> None:
    for part in initial:
        if part.ndim < 1 or part.shape[0] == 0:
            raise ValueError(f"the batch is empty: initial state of shape {tuple(part.shape)}")
        if not part.is_floating_point():
            raise ValueError(f"the state must be floating point, not {part.dtype}")
        if not bool(torch.isfinite(part.detach()).all()):
            bad = (~torch.isfinite(part.detach())).flatten(1).any(1).nonzero().flatten().tolist()
            raise ValueError(f"the initial state is not finite in samples {bad[:5]}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be greater than 0, not {tolerance}")
    if method not in TABLEAUS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(TABLEAUS)}")
    steps = [b - a for a, b in pairwise(times)]
    if not steps or not (all(s > 0 for s in steps) or all(s < 0 for s in steps)):
        raise ValueError(f"times must strictly increase or decrease, at least two: {list(times)}")


@dataclass
class _Active:
    """The samples still on their way: m of the N."""

    index: Tensor  # int64 [m], position in the batch
    time: Tensor  # float64 [m]
    step: Tensor  # float64 [m], size of the next step
    state: Parts  # each [m, ...]
    slope: Parts  # the derivative at `time`
    pending: Tensor  # int64 [m], index of the next output time

    def keep(self, rows: Tensor) -> "_Active":
        """Only the samples at `rows`, int64."""
        return _Active(
            self.index[rows],
            self.time[rows],
            self.step[rows],
            tuple(part.index_select(0, rows) for part in self.state),
            tuple(part.index_select(0, rows) for part in self.slope),
            self.pending[rows],
        )


@dataclass
class _Outputs:
    """Output values in the order in which they were reached."""

    position: list[Tensor] = field(default_factory=list)  # time index * N + sample
    values: list[Parts] = field(default_factory=list)

    def add(self, position: Tensor, values: Parts) -> None:
        self.position.append(position)
        self.values.append(values)

    def assemble(self, times: int, samples: int) -> Parts:
        """The parts in order, each [T, N, ...]."""
        order = torch.argsort(torch.cat(self.position))
        columns = zip(*self.values, strict=True)
        return tuple(
            torch.cat(column).index_select(0, order).unflatten(0, (times, samples))
            for column in columns
        )


@dataclass
class _Integration:
    """One call of `solve_parts`; its own time runs forward, at `direction` times the user's."""

    dynamics: Dynamics
    direction: float
    tableau: Tableau
    tolerance: float
    max_steps: int
    times: list[float]  # increasing
    coupled: int

    def run(self, initial: Parts, keep_nodes: bool) -> Solution:
        samples, device = initial[0].shape[0], initial[0].device
        count = torch.zeros(2, samples, dtype=torch.int64, device=device)  # rejected, accepted
        status = torch.zeros(samples, dtype=torch.int64, device=device)
        everyone = torch.arange(samples, device=device)
        grid = torch.tensor(self.times, dtype=torch.float64, device=device)
        active = self._start(initial, everyone)
        outputs = _Outputs()
        outputs.add(everyone, initial)
        visited = [(everyone, active.time)]
        while active.index.numel():
            end = active.time + active.step
            stages, new = self._stages(active, end)
            ratio = self._error_ratio(active, stages, new)
            accept = ratio <= 1
            count[accept.long(), active.index] += 1
            status[active.index] = self._failures(active, end, ratio, count)
            if keep_nodes:
                visited.append((active.index[accept], end[accept]))
            pending = self._emit(active, end, accept, stages, new, grid, outputs)
            active = _Active(
                active.index,
                torch.where(accept, end, active.time),
                active.step * self._growth(ratio),
                _choose(accept, new, active.state),
                _choose(accept, tuple(stages[-1]), active.slope),
                pending,
            )
            failed = status[active.index] != Status.SUCCESS
            self._emit_failures(active, failed, outputs, samples)
            going = ~failed & (active.pending < len(self.times))
            if not bool(going.all()):
                active = active.keep(going.nonzero().flatten())
        return Solution(
            parts=outputs.assemble(len(self.times), samples),
            nfe=2 + len(self.tableau.alpha) * count.sum(0),
            accepted=count[1],
            rejected=count[0],
            status=status,
            nodes=_by_sample(visited, samples) if keep_nodes else [],
        )

    def _slope(self, time: Tensor, state: Parts) -> Parts:
        """The derivative by the user's time, at our time."""
        return self.dynamics(self.direction * time, state[: self.coupled])

    def _start(self, initial: Parts, everyone: Tensor) -> _Active:
        """The first step size (Hairer, Norsett and Wanner, Solving ODEs I, II.4)."""
        dtype = initial[0].dtype
        time = torch.full(
            everyone.shape, self.times[0], dtype=torch.float64, device=everyone.device
        )
        slope = self._slope(time.to(dtype), initial)
        _check_slope(slope, initial)
        with torch.no_grad():
            scale = [self.tolerance + part.abs() * self.tolerance for part in initial]
            d0 = _norm([part / s for part, s in zip(initial, scale, strict=True)])
            d1 = _norm([part / s for part, s in zip(slope, scale, strict=True)])
            small = (d0 < 1e-5) | (d1 < 1e-5)
            h0 = torch.where(small, torch.full_like(d0, 1e-6), 0.01 * d0 / d1)
            signed = (self.direction * h0)[:, None]
            probe = _combine(initial[: self.coupled], signed, [slope[: self.coupled]])
            after = self._slope((time + h0).to(dtype), probe)
            change = [(b - a) / s for a, b, s in zip(slope, after, scale, strict=True)]
            d2 = _norm(change) / h0
            flat = (d1 <= 1e-15) & (d2 <= 1e-15)
            h1 = torch.where(
                flat,
                torch.clamp(h0 * 1e-3, min=1e-6),
                (0.01 / torch.maximum(d1, d2)) ** (1.0 / self.tableau.order),
            )
            step = torch.minimum(100 * h0, h1).double()
        return _Active(everyone, time, step, initial, slope, torch.ones_like(everyone))

    def _stages(self, active: _Active, end: Tensor) -> tuple[list[Parts], Parts]:
        """One attempted step for every sample: the slopes at the stages and the new state."""
        dtype = active.state[0].dtype
        time, step = active.time.to(dtype), active.step.to(dtype)
        signed = self.direction * step
        just_before_end = torch.nextafter(end.to(dtype), end.to(dtype) - 1)
        head = active.state[: self.coupled]
        stages = [active.slope]
        value = head
        for alpha, beta in zip(self.tableau.alpha, self.tableau.beta, strict=True):
            value = _advance(head, beta, signed, [s[: self.coupled] for s in stages])
            at = just_before_end if alpha == 1.0 else time + alpha * step
            stages.append(self._slope(at, value))
        if not self.tableau.last_stage_is_solution:
            return stages, _advance(active.state, self.tableau.solution, signed, stages)
        tail = _advance(
            active.state[self.coupled :],
            self.tableau.solution,
            signed,
            [stage[self.coupled :] for stage in stages],
        )
        return stages, value + tail

    @torch.no_grad()
    def _error_ratio(self, active: _Active, stages: list[Parts], new: Parts) -> Tensor:
        """RMS of the estimated error over the tolerated one, [m], in the state's dtype."""
        zero = tuple(torch.zeros_like(part) for part in new)
        error = _advance(zero, self.tableau.error, active.step.to(new[0].dtype), stages)
        relative = []
        for estimate, before, after in zip(error, active.state, new, strict=True):
            tolerated = torch.maximum(before.abs(), after.abs())
            relative.append(estimate / tolerated.mul_(self.tolerance).add_(self.tolerance))
        return _norm(relative)

    def _growth(self, ratio: Tensor) -> Tensor:
        """By which factor the next step is longer, float64 [m]."""
        ratio = ratio.double()
        lower = torch.where(ratio < 1, 1.0, _LARGEST_SHRINKAGE)
        factor = torch.maximum(_SAFETY / ratio ** (1.0 / self.tableau.order), lower)
        return torch.where(ratio == 0, _LARGEST_GROWTH, factor.clamp(max=_LARGEST_GROWTH))

    def _failures(self, active: _Active, end: Tensor, ratio: Tensor, count: Tensor) -> Tensor:
        attempts = count[:, active.index].sum(0)
        # A sample that reaches its last output time with its last allowed step has not failed.
        arrived = (ratio <= 1) & (end >= self.times[-1])
        status = torch.where((attempts >= self.max_steps) & ~arrived, int(Status.MAX_STEPS), 0)
        status = torch.where(end > active.time, status, int(Status.UNDERFLOW))
        return torch.where(torch.isfinite(ratio), status, int(Status.NONFINITE))

    def _emit(
        self,
        active: _Active,
        end: Tensor,
        accept: Tensor,
        stages: list[Parts],
        new: Parts,
        grid: Tensor,
        outputs: _Outputs,
    ) -> Tensor:
        """Interpolate every output time that an accepted step has passed; the next ones, [m]."""
        pending = active.pending.clone()
        last = len(self.times) - 1
        while bool(
            (due := accept & (pending <= last) & (grid[pending.clamp(max=last)] <= end)).any()
        ):
            rows = due.nonzero().flatten()
            share = (grid[pending[rows]] - active.time[rows]) / (end[rows] - active.time[rows])
            weights = self._dense_output(share, self.direction * active.step[rows])
            sources = [active.state, new, *stages]
            if rows.numel() < due.numel():
                sources = [tuple(p.index_select(0, rows) for p in parts) for parts in sources]
            values = _combine(sources[0], weights.to(new[0].dtype), sources)
            outputs.add(pending[rows] * outputs.position[0].numel() + active.index[rows], values)
            pending[rows] += 1
        return pending

    def _dense_output(self, x: Tensor, step: Tensor) -> Tensor:
        """Weights [r, 2 + s] of (old state, new state, stages), to be added to the old state.

        The quartic through the states at the start, middle and end of a step and the slopes at
        its ends, at the share x of the step; the middle is itself a combination of the stages.
        """
        powers = torch.stack([x**4, x**3, x**2, x], dim=1)
        coefficients = torch.tensor(
            [
                [-8.0, 18.0, -11.0, 0.0],  # old state, less the 1 already there
                [-8.0, 14.0, -5.0, 0.0],  # new state
                [16.0, -32.0, 16.0, 0.0],  # middle
                [-2.0, 5.0, -4.0, 1.0],  # first slope, times the step
                [2.0, -3.0, 1.0, 0.0],  # last slope, times the step
            ],
            dtype=x.dtype,
            device=x.device,
        )
        old, new, middle, first, last = (powers @ coefficients.T).unbind(1)
        table = torch.tensor(self.tableau.middle, dtype=x.dtype, device=x.device)
        slopes = step[:, None] * middle[:, None] * table
        slopes[:, 0] += step * first
        slopes[:, -1] += step * last
        # The middle is the old state plus slopes.
        return torch.cat([(old + middle)[:, None], new[:, None], slopes], dim=1)

    def _emit_failures(
        self, active: _Active, failed: Tensor, outputs: _Outputs, samples: int
    ) -> None:
        """Fill the output times that a failed sample will not reach."""
        for row in failed.nonzero().flatten().tolist():
            missing = torch.arange(int(active.pending[row]), len(self.times), device=failed.device)
            if missing.numel():
                values = tuple(
                    torch.full_like(part[row], torch.nan).expand(len(missing), *part.shape[1:])
                    for part in active.state
                )
                outputs.add(missing * samples + active.index[row], values)


def _check_slope(slope: Parts, initial: Parts) -> None:
    for derivative, part in zip(slope, initial, strict=True):
        if derivative.shape != part.shape:
            raise ValueError(
                f"the dynamics turned a state of shape {tuple(part.shape)} into a derivative of "
                f"shape {tuple(derivative.shape)}"
            )


def _norm(parts: Sequence[Tensor]) -> Tensor:
    """The largest of the parts' root mean squares, for each sample: [m]."""
    norms = []
    for part in parts:
        flat = part.flatten(1) if part.ndim > 1 else part[:, None]
        norms.append(torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5)
    return torch.stack(norms).amax(0)


def _advance(
    base: Parts, coefficients: tuple[float, ...], step: Tensor, stages: Sequence[Parts]
) -> Parts:
    """`base` plus the step times a row of a tableau applied to the stages; zeros are skipped."""
    used = [(c, stage) for c, stage in zip(coefficients, stages, strict=True) if c]
    row = torch.tensor([c for c, _ in used], dtype=step.dtype, device=step.device)
    return _combine(base, torch.outer(step, row), [stage for _, stage in used])


def _choose(accept: Tensor, new: Parts, old: Parts) -> Parts:
    if bool(accept.all()):
        return new
    return tuple(
        torch.where(accept.view(-1, *[1] * (a.ndim - 1)), a, b)
        for a, b in zip(new, old, strict=True)
    )


def _by_sample(visited: list[tuple[Tensor, Tensor]], samples: int) -> list[Tensor]:
    index = torch.cat([i for i, _ in visited])
    time = torch.cat([t for _, t in visited])
    order = torch.argsort(index, stable=True)
    return list(torch.split(time[order], torch.bincount(index, minlength=samples).tolist()))


def _combine(base: Parts, weights: Tensor, terms: Sequence[Parts]) -> Parts:
    """`base + sum_j weights[:, j] * terms[j]`, part by part; weights [m, s] are constants."""
    return tuple(
        _Combination.apply(part, weights, *(term[i] for term in terms))
        for i, part in enumerate(base)
    )


class _Combination(torch.autograd.Function):
    """A linear combination with weights for each sample.

    Autograd's own graph for it would keep every term; this one keeps the weights alone.
    """

    @staticmethod
    def forward(ctx: Any, base: Tensor, weights: Tensor, *terms: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        total = base.clone()
        for column, term in enumerate(terms):
            weight = weights[:, column]
            total.addcmul_(term, weight.view(-1, *[1] * (term.ndim - 1)))
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weights,) = ctx.saved_tensors
        shape = (-1, *[1] * (gradient.ndim - 1))
        return gradient, None, *(gradient * weight.view(shape) for weight in weights.unbind(1))
