"""Solve a batch of initial value problems in which each sample has its own steps.

torchdiffeq's adaptive solvers treat a batch as one equation with one step size, so that the result
for a sample depends on the other samples. Here each sample has its own time, step size and
acceptance. The results are those of torchdiffeq 0.2.5 at batch 1 (same initial step, step control,
stages and dense output), at the speed of a batch: samples that have finished leave the batch.

Times, step sizes and decisions live on the CPU, states on their device. A step therefore waits for
the device once, for its error ratios, and the device need not support float64.

Step sizes are constants to autograd, so that gradients are those of the discrete solution with
fixed steps ("discretise, then optimise").
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from node_robustness.ode.dense_output import linear, quartic
from node_robustness.ode.parts import Parts, Sum, choose, combinations, combine, rows, spread
from node_robustness.ode.parts import norm as parts_norm
from node_robustness.ode.step_control import Adaptive, Given, StepAttempt, StepControl, StepSizes
from node_robustness.ode.tableaus import TABLEAUS, Tableau

Dynamics = Callable[[Tensor, Parts], Parts]
"""The right-hand side: times [n] and the coupled parts of the state to the derivatives of all."""


Total = Callable[[Sequence[Sum], Sequence[Parts]], list[Parts]]
"""Sums over stages, and what the dynamics return at the stages for the parts that are not coupled,
to the sums of the derivatives of these parts."""


DEFAULT_SIZES = StepSizes()

_NUMBERS = 600_000
"""Values of integrals that are computed at a time on a CPU, so that they stay in its cache."""


class Status(IntEnum):
    """How the solve of one sample ended."""

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
        nodes: for each sample the times between which it stepped, float64 on the CPU, with the
            start; the last node may lie beyond the last output time. Empty unless requested.
        node_states: for each sample the first part of the state at the nodes, [number of nodes,
            ...]. Empty unless requested.
        work: how many steps each sample would take if each had the largest error that is
            tolerated: over its accepted steps, the last one up to the last output time, the sum of
            the error ratio to the power of 1 / order, [N]. Unlike the number of evaluations it has
            a gradient, that of the steps held constant. Zero unless requested.
    """

    parts: Parts
    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor
    nodes: list[Tensor]
    node_states: list[Tensor]
    work: Tensor

    @property
    def states(self) -> Tensor:
        """The state at the output times, [T, N, ...], if it has a single part."""
        (states,) = self.parts
        return states


def solve(
    dynamics: Callable[[Tensor, Tensor], Tensor],
    initial: Tensor,
    times: Sequence[float] | Tensor,
    *,
    tolerance: float | Tensor | None = None,
    ratio: tuple[float, float] = (1.0, 1.0),
    norm: Callable[[Tensor], Tensor] | None = None,
    method: str = "dopri5",
    steps: int | None = None,
    nodes: Sequence[Tensor] | None = None,
    sizes: StepSizes = DEFAULT_SIZES,
    max_steps: int = 1000,
    keep_nodes: bool = False,
    keep_node_states: bool = False,
    keep_work: bool = False,
    checkpoint: bool = False,
) -> Solution:
    """Solve y' = f(t, y) for a batch of initial states.

    Output times between the nodes are interpolated: by a quartic with a method that has an error
    estimate, otherwise linearly, as in torchdiffeq. Where the accuracy of such a method matters
    between the first and the last time, make the output times nodes.

    Args:
        dynamics: f; takes times [n] (in the state's dtype) and states [n, ...], returns [n, ...].
        initial: states at `times[0]`, floating point, [N, ...], N >= 1.
        times: output times, strictly increasing or strictly decreasing, at least two. Or a tensor
            [N, T] with the times of each sample, which increase, not strictly, and share the first
            and the last time.
        tolerance: tau > 0: one number, or a tensor [N] with one for each sample. Not needed, and
            without effect, if `steps` or `nodes` is given.
        ratio: the relative and the absolute tolerance, each over tau; not negative, not both zero.
        norm: of errors relative to what is tolerated, from [m, ...] to [m], which controls the
            steps; None for the root mean square.
        method: a name in `ode.tableaus.TABLEAUS`.
        steps: number of equal steps from the first to the last output time, at least one; None
            for adaptive steps, which need a method with an error estimate.
        nodes: step between these times instead, one tensor for each sample, from `times[0]` to the
            last output time or beyond. With the `nodes` of a solution, its steps are repeated.
        sizes: how adaptive steps are sized.
        max_steps: attempted steps after which a sample ends with `Status.MAX_STEPS`; no effect if
            `steps` or `nodes` is given.
        keep_nodes: whether to record the accepted nodes.
        keep_node_states: whether to record the state at the nodes.
        keep_work: whether to sum the work of adaptive steps.
        checkpoint: whether to recompute each step in the backward pass from the state and slope at
            its start: same gradients, more time, less memory.

    Returns:
        The states at the output times, with the cost and status of each sample.

    Raises:
        ValueError: times, tolerance, steps, nodes, method or initial state are invalid; the message
            gives the value.
    """
    return solve_parts(
        lambda t, parts: (dynamics(t, parts[0]),),
        (initial,),
        times,
        tolerance=tolerance,
        ratio=ratio,
        norm=parts_norm if norm is None else lambda parts: norm(parts[0]),
        method=method,
        steps=steps,
        nodes=nodes,
        sizes=sizes,
        max_steps=max_steps,
        keep_nodes=keep_nodes,
        keep_node_states=keep_node_states,
        keep_work=keep_work,
        checkpoint=checkpoint,
    )


def solve_parts(
    dynamics: Dynamics,
    initial: Parts,
    times: Sequence[float] | Tensor,
    *,
    tolerance: float | Tensor | None = None,
    ratio: tuple[float, float] = (1.0, 1.0),
    norm: Callable[[Sequence[Tensor]], Tensor] = parts_norm,
    method: str = "dopri5",
    steps: int | None = None,
    nodes: Sequence[Tensor] | None = None,
    sizes: StepSizes = DEFAULT_SIZES,
    max_steps: int = 1000,
    keep_nodes: bool = False,
    keep_node_states: bool = False,
    keep_work: bool = False,
    checkpoint: bool = False,
    coupled: int | None = None,
    total: Total | None = None,
    keep_integrals: bool = True,
) -> Solution:
    """Solve for a state in several parts; see `solve`.

    Args:
        coupled: number of leading parts that the dynamics read; None for all. The others are
            integrals along the solution: they count in the error norm, but are not evaluated at
            the stages. They have no gradient.
        total: sums the derivatives of the integrals; None if the dynamics return the derivatives
            themselves.
        keep_integrals: whether the solution has the integrals. If not, their initial values are
            overwritten.
        dynamics: see `Dynamics`.
        initial: the parts at `times[0]`, each [N, ...].
        times: see `solve`.
        tolerance: see `solve`.
        ratio: see `solve`.
        norm: see `solve`; of all parts, each [m, ...], to [m].
        method: see `solve`.
        steps: see `solve`.
        nodes: see `solve`.
        sizes: see `solve`.
        max_steps: see `solve`.
        keep_nodes: see `solve`.
        keep_node_states: see `solve`; for the first part.
        keep_work: see `solve`.
        checkpoint: see `solve`.

    Returns:
        See `solve`.

    Raises:
        ValueError: see `solve`.
    """
    _check_initial(initial)
    direction, grid = _grid(times, len(initial[0]))
    given = _given(steps, nodes, direction, grid, len(initial[0]))
    integration = _Integration(
        dynamics=dynamics,
        direction=direction,
        tableau=_tableau(method),
        control=given or _adaptive(method, tolerance, ratio, norm, sizes, len(initial[0])),
        max_steps=max_steps if given is None else given.nodes.shape[1],
        grid=grid,
        coupled=len(initial) if coupled is None else coupled,
        total=total,
        keep_integrals=keep_integrals,
        checkpoint=checkpoint and torch.is_grad_enabled(),
    )
    return integration.run(initial, keep_nodes, keep_node_states, keep_work)


def _check_initial(initial: Parts) -> None:
    for part in initial:
        if part.ndim < 1 or part.shape[0] == 0:
            raise ValueError(f"the batch is empty: initial state of shape {tuple(part.shape)}")
        if not part.is_floating_point():
            raise ValueError(f"the state must be floating point, not {part.dtype}")
    # One check for all parts, because each check waits for the device.
    if not bool(torch.stack([torch.isfinite(part.detach()).all() for part in initial]).all()):
        finite = [torch.isfinite(part.detach()).reshape(len(part), -1).all(1) for part in initial]
        bad = (~torch.stack(finite).all(0)).nonzero().flatten().tolist()
        raise ValueError(f"the initial state is not finite in samples {bad[:5]}")


def _grid(times: Sequence[float] | Tensor, samples: int) -> tuple[float, Tensor]:
    """The direction of time, and increasing output times: [1, T], or [N, T] if samples differ."""
    if isinstance(times, Tensor):
        own = times.to("cpu", torch.float64)
        if own.ndim != 2 or len(own) != samples or own.shape[1] < 2:
            raise ValueError(f"times must be [{samples}, T], T >= 2, not {list(own.shape)}")
        together = bool((own[:, [0, -1]] == own[0, [0, -1]]).all())
        if not (together and own[0, 0] < own[0, -1] and bool((own.diff(dim=1) >= 0).all())):
            raise ValueError("times of each sample must increase from one first to one last time")
        return 1.0, own
    gaps = [b - a for a, b in pairwise(times)]
    if not gaps or not (all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)):
        raise ValueError(f"times must strictly increase or decrease, at least two: {list(times)}")
    direction = 1.0 if times[1] > times[0] else -1.0
    return direction, direction * torch.tensor(times, dtype=torch.float64)[None]


def _tableau(method: str) -> Tableau:
    if method not in TABLEAUS:
        raise ValueError(f"unknown method {method!r}; there are {', '.join(TABLEAUS)}")
    return TABLEAUS[method]


def _given(
    steps: int | None,
    nodes: Sequence[Tensor] | None,
    direction: float,
    grid: Tensor,
    samples: int,
) -> Given | None:
    """The step control for steps that are known beforehand, or None."""
    if nodes is not None:
        return Given(_rows_of_nodes([direction * own for own in nodes], grid, samples))
    if steps is None:
        return None
    if not steps >= 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    first, last = grid[0, 0].item(), grid[0, -1].item()
    return Given(torch.linspace(first, last, steps + 1, dtype=torch.float64)[None])


def _rows_of_nodes(nodes: Sequence[Tensor], grid: Tensor, samples: int) -> Tensor:
    """The increasing nodes of all samples, [N, T], padded with infinity."""
    if len(nodes) != samples:
        raise ValueError(f"there are nodes for {len(nodes)} of {samples} samples")
    for sample, own in enumerate(nodes):
        covers = own[0] == grid[0, 0] and own[-1] >= grid[0, -1]
        if not (covers and bool((own.diff() > 0).all())):
            raise ValueError(
                f"the nodes of sample {sample} must increase from the first output time to the "
                "last one or beyond"
            )
    ends = [torch.cat([own, own.new_full((1,), torch.inf)]) for own in nodes]
    return pad_sequence(ends, batch_first=True, padding_value=torch.inf)


def _adaptive(
    method: str,
    tolerance: float | Tensor | None,
    ratio: tuple[float, float],
    norm: Callable[[Sequence[Tensor]], Tensor],
    sizes: StepSizes,
    samples: int,
) -> Adaptive:
    if not _tableau(method).error:
        raise ValueError(f"method {method} has no error estimate and needs steps, not None")
    if tolerance is None:
        raise ValueError("tolerance must be greater than 0, not None")
    if not (all(0 <= share < math.inf for share in ratio) and any(ratio)):
        raise ValueError(f"ratio must be two finite numbers, at least 0, not both 0: {ratio}")
    if not isinstance(tolerance, Tensor):
        if not tolerance > 0:
            raise ValueError(f"tolerance must be greater than 0, not {tolerance}")
        return Adaptive(_tableau(method).order, tolerance, ratio, norm, sizes)
    if tolerance.shape != (samples,):
        raise ValueError(
            f"tolerance must be one number or {samples}, not of shape {tuple(tolerance.shape)}"
        )
    if not bool((tolerance > 0).all()):
        raise ValueError(f"tolerance must be greater than 0, not {tolerance.min().item()}")
    return Adaptive(_tableau(method).order, tolerance.cpu().double(), ratio, norm, sizes)


@dataclass
class _Active:
    """The m of N samples that have not finished; all but state and slope is on the CPU."""

    index: Tensor  # int64 [m], positions in the batch
    time: Tensor  # float64 [m]
    step: Tensor  # float64 [m], size of the next step
    pending: Tensor  # int64 [m], index of the next output time
    state: Parts  # the coupled parts, each [m, ...]
    integrals: Parts  # the other parts, each [m, ...]
    slope: Parts  # what the dynamics return at `time`; empty if the next step must evaluate it

    def keep(self, going: Tensor) -> "_Active":
        """Keep only the samples in `going`, bool [m]."""
        if bool(going.all()):
            return self
        index = going.nonzero().flatten()
        device_index = index.to(self.state[0].device, non_blocking=True)
        return _Active(
            self.index[index],
            self.time[index],
            self.step[index],
            self.pending[index],
            rows(self.state, device_index),
            rows(self.integrals, device_index),
            rows(self.slope, device_index),
        )


@dataclass
class _Outputs:
    """Output values, in the order in which they are reached."""

    position: list[Tensor] = field(default_factory=list)  # time index * N + sample
    values: list[Parts] = field(default_factory=list)

    def add(self, position: Tensor, values: Parts) -> None:
        self.position.append(position)
        self.values.append(values)

    def assemble(self, times: int, samples: int) -> Parts:
        """The parts in order, each [T, N, ...]."""
        columns = list(zip(*self.values, strict=True))
        order = torch.argsort(torch.cat(self.position)).to(columns[0][0].device)
        return tuple(
            torch.cat(column).index_select(0, order).unflatten(0, (times, samples))
            for column in columns
        )


class _Rows:
    """The rows of a tableau: weights of the stages in each stage, in the solution, in the error."""

    def __init__(self, tableau: Tableau) -> None:
        table = [*tableau.beta, tableau.solution, tableau.error]
        self.used = [[stage for stage, weight in enumerate(row) if weight] for row in table]
        self.weights = [weight for row in table for weight in row if weight]

    def times(self, step: Tensor) -> Tensor:
        """All nonzero weights times the steps [m]: [number of weights, m]."""
        return torch.outer(torch.tensor(self.weights, dtype=step.dtype), step)

    def split(self, products: Tensor) -> tuple[Tensor, ...]:
        """Split the result of `times` into rows of the tableau."""
        split: tuple[Tensor, ...] = products.split([len(stages) for stages in self.used])
        return split


@dataclass
class _Integration:
    """One call of `solve_parts`; its time increases and is `direction` times the user's time."""

    dynamics: Dynamics
    direction: float
    tableau: Tableau
    control: StepControl
    max_steps: int
    grid: Tensor  # output times, increasing, [1, T] for all samples or [N, T]
    coupled: int
    total: Total | None
    keep_integrals: bool
    checkpoint: bool

    def __post_init__(self) -> None:
        self.rows = _Rows(self.tableau)

    def run(
        self, initial: Parts, keep_nodes: bool, keep_node_states: bool, keep_work: bool
    ) -> Solution:
        samples, device = len(initial[0]), initial[0].device
        count = torch.zeros(2, samples, dtype=torch.int64)  # rejected, accepted
        status = torch.zeros(samples, dtype=torch.int64)
        active = self._start(initial)
        outputs = _Outputs()
        outputs.add(active.index, initial if self.keep_integrals else active.state)
        visited, times, at_nodes = [active.index], [active.time], [initial[0]]
        work = torch.zeros(samples, dtype=initial[0].dtype, device=device)
        while active.index.numel():
            end, active.step = self.control.advance(active.index, active.time, active.step)
            after, stages, weights = self._attempt(active, end)
            with torch.set_grad_enabled(keep_work and torch.is_grad_enabled()):
                error = self._error_ratio(active, after, stages, weights)
            ratio = error.detach().cpu().double()
            accept = ratio <= 1
            if keep_work:
                work = work + self._work(active, end, accept, error, samples)
            count[accept.long(), active.index] += 1
            failure = self._failures(active, end, ratio, count)
            status[active.index] = failure
            visited.append(active.index[accept])
            times.append(end[accept])
            if keep_node_states:
                at_nodes.append(after[0][accept.to(device, non_blocking=True)])
            pending = self._emit(active, end, accept, after, stages, outputs, samples)
            slope = stages[-1] if self.tableau.last_stage_starts_next_step else ()
            active = _Active(
                active.index,
                torch.where(accept, end, active.time),
                active.step * self.control.growth(ratio),
                pending,
                choose(accept, after, active.state),
                active.integrals,
                choose(accept, slope, active.slope),
            )
            failed = failure != Status.SUCCESS
            self._emit_failures(active, failed, outputs, samples)
            active = active.keep(~failed & (pending < self.grid.shape[1]))
        return Solution(
            parts=outputs.assemble(self.grid.shape[1], samples),
            nfe=self._evaluations(count.sum(0)).to(device),
            accepted=count[1].to(device),
            rejected=count[0].to(device),
            status=status.to(device),
            nodes=_by_sample(visited, self.direction * torch.cat(times), samples)
            if keep_nodes
            else [],
            node_states=_by_sample(visited, torch.cat(at_nodes), samples)
            if keep_node_states
            else [],
            work=work,
        )

    def _evaluations(self, attempts: Tensor) -> Tensor:
        stages = len(self.tableau.alpha)
        if self.tableau.last_stage_starts_next_step:
            return 1 + (self.control.first is None) + stages * attempts
        return (1 + stages) * attempts

    def _start(self, initial: Parts) -> _Active:
        everyone = torch.arange(len(initial[0]))
        time = self.grid[:1, 0].repeat(len(everyone))
        slope: Parts = ()
        if self.tableau.last_stage_starts_next_step:
            slope = self._slope(self._on_device(time, initial), initial)
        step = self._first_step(everyone, time, initial, slope)
        state, integrals = initial[: self.coupled], initial[self.coupled :]
        if self.keep_integrals:
            integrals = tuple(part.clone() for part in integrals)
        return _Active(everyone, time, step, torch.ones_like(everyone), state, integrals, slope)

    @torch.no_grad()
    def _first_step(self, everyone: Tensor, time: Tensor, initial: Parts, slope: Parts) -> Tensor:
        control = self.control
        if control.first is not None:
            return torch.full_like(time, control.first)
        assert isinstance(control, Adaptive)
        now = initial[0].new_ones(1, len(time))

        def trial(group: slice | None) -> Parts:
            derivative = self._sum(now, [slope], group)
            return control.trial_step(_of(everyone, group), _each(initial, group), derivative)

        step, size = self._by_group(trial, initial)
        head = combine(
            initial[: self.coupled], self.direction * step[None], [slope[: self.coupled]]
        )
        later = self._slope(self._on_device(time + step.cpu().double(), initial), head)

        def first(group: slice | None) -> Parts:
            change = self._sum(torch.cat([-now, now]), [slope, later], group)
            given = _of(everyone, group), _each(initial, group)
            return (control.first_step(*given, change, (_of(step, group), _of(size, group))),)

        return self._by_group(first, initial)[0]

    def _by_group(self, function: Callable[[slice | None], Parts], state: Parts) -> Parts:
        """The results of a function of groups of samples, [m] each, put together.

        A group has as many samples as there is room for their integrals in the cache of a CPU.
        None is a group of all samples.
        """
        samples, numbers = len(state[0]), sum(part[0].numel() for part in state[self.coupled :])
        size = max(1, _NUMBERS // max(1, numbers))
        if size >= samples or state[0].device.type != "cpu":
            return function(None)
        found = [function(slice(start, start + size)) for start in range(0, samples, size)]
        return tuple(torch.cat(column) for column in zip(*found, strict=True))

    def _sum(self, weights: Tensor, stages: Sequence[Parts], group: slice | None) -> Parts:
        """The weighted sums of the derivatives of all parts, for the samples of a group."""
        heads = [_each(stage[: self.coupled], group) for stage in stages]
        head = combine(None, _of(weights.mT, group).mT, heads)
        (tail,) = self._totals([(range(len(stages)), weights)], stages, group)
        return (*head, *tail)

    def _totals(
        self, sums: Sequence[Sum], stages: Sequence[Parts], group: slice | None
    ) -> list[Parts]:
        """Sums of the derivatives of the integrals, for the samples of a group."""
        tails = [_each(stage[self.coupled :], group) for stage in stages]
        of_group = [(used, _of(weights.mT, group).mT) for used, weights in sums]
        return (self.total or combinations)(of_group, tails)

    def _error_ratio(
        self, active: _Active, after: Parts, stages: list[Parts], weights: Sequence[Tensor]
    ) -> Tensor:
        """The estimated error over the tolerated one, [m]; accepted steps advance the integrals."""
        # Without an error estimate there is one sum.
        sums = list(zip(self.rows.used, weights, strict=True))[-2:]
        sums = sums if sums[-1][0] else sums[:1]

        def of_group(group: slice | None) -> Parts:
            integrals = _each(active.integrals, group)
            added, *estimates = self._totals(sums, stages, group) if integrals else [(), ()]
            advanced = tuple(map(torch.add, integrals, added))
            heads = [
                combine(
                    None,
                    _of(each.mT, group).mT,
                    [_each(stages[stage][: self.coupled], group) for stage in used],
                )
                for used, each in sums[1:]
            ]
            attempt = StepAttempt(
                _of(active.index, group),
                (*_each(active.state, group), *integrals),
                (*_each(after, group), *advanced),
                sum((*heads, *estimates), ()),
            )
            ratio = self.control.error_ratio(attempt)
            for old, new in zip(integrals, advanced, strict=True):
                torch.where(spread(ratio <= 1, old), new, old, out=old)
            return (ratio,)

        return self._by_group(of_group, (*active.state, *active.integrals))[0]

    def _on_device(self, time: Tensor, state: Parts) -> Tensor:
        return time.to(state[0].dtype).to(state[0].device, non_blocking=True)

    def _slope(self, time: Tensor, state: Parts) -> Parts:
        """The derivative with respect to the user's time, at increasing time [m]."""
        slope = self.dynamics(self.direction * time, state[: self.coupled])
        known = state if self.total is None else state[: self.coupled]
        for derivative, part in zip(slope, known, strict=False):
            if derivative.shape != part.shape:
                raise ValueError(
                    f"the dynamics return a derivative of shape {tuple(derivative.shape)} for a "
                    f"state of shape {tuple(part.shape)}"
                )
        return slope

    def _attempt(
        self, active: _Active, end: Tensor
    ) -> tuple[Parts, list[Parts], tuple[Tensor, ...]]:
        """One step of each sample, before it is accepted or rejected.

        Returns:
            The coupled parts at its end, what the dynamics return at its stages, and the rows of
            the tableau times the step sizes.
        """
        dtype, device = active.state[0].dtype, active.state[0].device
        time, step = active.time.to(dtype), active.step.to(dtype)
        last = end.to(dtype)
        if self.tableau.error:
            # As in torchdiffeq: a jump of the dynamics at the end belongs to the next step.
            last = torch.nextafter(last, last - 1)
        products = self.rows.times(self.direction * step)
        at = [last if alpha == 1.0 else time + alpha * step for alpha in self.tableau.alpha]
        # One transfer, before the first stage.
        numbers = torch.cat([products, torch.stack([time, *at])]).to(device, non_blocking=True)
        weights = self.rows.split(numbers[: len(products)])
        take = self._stages
        if self.checkpoint:
            take = partial(
                recompute_in_backward, take, use_reentrant=False, preserve_rng_state=False
            )
        stages, after = take(active, numbers[len(products) :], weights)
        return after, stages, weights

    def _stages(
        self, active: _Active, times: Tensor, weights: Sequence[Tensor]
    ) -> tuple[list[Parts], Parts]:
        """See `_attempt`: what the dynamics return at the stages, and the state at the end."""
        start, *others = times.unbind(0)
        *betas, solution, _ = weights
        stages = [active.slope or self._slope(start, active.state)]
        value = active.state
        for used, beta, time in zip(self.rows.used, betas, others, strict=False):
            heads = [stages[stage][: self.coupled] for stage in used]
            value = combine(active.state, beta, heads)
            stages.append(self._slope(time, value))
        if not self.tableau.last_stage_is_solution:
            heads = [stages[stage][: self.coupled] for stage in self.rows.used[-2]]
            value = combine(active.state, solution, heads)
        return stages, value

    def _failures(self, active: _Active, end: Tensor, ratio: Tensor, count: Tensor) -> Tensor:
        attempts = count[:, active.index].sum(0)
        # A sample that finishes with its last allowed step has not failed.
        arrived = (ratio <= 1) & (end >= self.grid[0, -1])
        status = torch.where((attempts >= self.max_steps) & ~arrived, int(Status.MAX_STEPS), 0)
        status = torch.where(end > active.time, status, int(Status.UNDERFLOW))
        return torch.where(torch.isfinite(ratio), status, int(Status.NONFINITE))

    def _work(
        self, active: _Active, end: Tensor, accept: Tensor, error: Tensor, samples: int
    ) -> Tensor:
        """The work of one attempt, [N]; see `Solution`."""
        share = ((self.grid[0, -1] - active.time) / (end - active.time)).clamp(max=1)
        weight = torch.where(accept, share, 0.0).to(error.dtype)
        # The root has no derivative at zero.
        steps = error.clamp(min=torch.finfo(error.dtype).tiny) ** (1 / self.tableau.order)
        index, weight = (
            values.to(error.device, non_blocking=True) for values in (active.index, weight)
        )
        return error.new_zeros(samples).index_add(0, index, weight * steps)

    def _emit(
        self,
        active: _Active,
        end: Tensor,
        accept: Tensor,
        new: Parts,
        stages: list[Parts],
        outputs: _Outputs,
        samples: int,
    ) -> Tensor:
        """Interpolate all output times inside accepted steps; returns the next ones, [m]."""
        pending = active.pending
        passed = torch.where(accept, self._reached(active.index, end), pending)
        own = self.grid.expand(samples, -1)
        while bool((due := pending < passed).any()):
            index = due.nonzero().flatten()
            length = end[index] - active.time[index]
            share = (own[active.index[index], pending[index]] - active.time[index]) / length
            weights, sources = linear(share), [active.state, new]
            if self.tableau.middle:
                weights = quartic(self.tableau, share, self.direction * active.step[index])
                sources += [stage[: self.coupled] for stage in stages]
            weights_of_all = weights
            # At the start of a step only the state there has a weight.
            used = [True, *weights[1:].any(1).tolist()]
            sources = [source for source, is_used in zip(sources, used, strict=True) if is_used]
            weights = weights[used].to(new[0].dtype).to(new[0].device, non_blocking=True)
            base = active.state
            if len(index) < len(due):
                device_index = index.to(new[0].device, non_blocking=True)
                base = rows(base, device_index)
                sources = [rows(source, device_index) for source in sources]
            values = combine(base, weights, sources)
            if self.keep_integrals and active.integrals:
                values += self._integrals_inside(active, index, weights_of_all, stages)
            outputs.add(pending[index] * samples + active.index[index], values)
            pending = pending + due
        return pending

    def _integrals_inside(
        self, active: _Active, index: Tensor, weights: Tensor, stages: list[Parts]
    ) -> Parts:
        """The integrals inside the accepted steps of some samples.

        Args:
            active: their integrals are those at the end of the step.
            index: positions of the samples among the active ones.
            weights: of the dense output, for the state at the start and at the end, and stages.
            stages: of the step.
        """
        slopes = -torch.outer(
            torch.tensor(self.tableau.solution, dtype=weights.dtype),
            self.direction * active.step[index] * (1 + weights[0]),
        )
        slopes[: len(weights) - 2] += weights[2:]
        used = slopes.any(1).nonzero().flatten().tolist()
        like = active.integrals[0]
        device_index = index.to(like.device, non_blocking=True)
        integrals = rows(active.integrals, device_index)
        if not used:
            return integrals
        numbers = slopes[used].to(like.dtype).to(like.device, non_blocking=True)
        inside = [rows(stages[stage], device_index) for stage in used]
        (change,) = self._totals([(range(len(used)), numbers)], inside, None)
        return tuple(map(torch.add, integrals, change))

    def _reached(self, samples: Tensor, time: Tensor) -> Tensor:
        """The number of output times that each sample has reached at its time [m]."""
        if len(self.grid) == 1:
            return torch.searchsorted(self.grid[0], time, right=True)
        return torch.searchsorted(self.grid[samples], time[:, None], right=True).squeeze(1)

    def _emit_failures(
        self, active: _Active, failed: Tensor, outputs: _Outputs, samples: int
    ) -> None:
        """Set the output times that failed samples do not reach to NaN."""
        for row in failed.nonzero().flatten().tolist():
            missing = torch.arange(int(active.pending[row]), self.grid.shape[1])
            if missing.numel():
                kept = active.integrals if self.keep_integrals else ()
                values = tuple(
                    torch.full_like(part[row], torch.nan).expand(len(missing), *part.shape[1:])
                    for part in (*active.state, *kept)
                )
                outputs.add(missing * samples + active.index[row], values)


def _of(values: Tensor, group: slice | None) -> Tensor:
    """The rows of a group; None is a group of all."""
    return values if group is None else values[group]


def _each(parts: Parts, group: slice | None) -> Parts:
    return tuple(_of(part, group) for part in parts)


def _by_sample(visited: list[Tensor], values: Tensor, samples: int) -> list[Tensor]:
    """Split values, in the order of the visited nodes, into one tensor for each sample."""
    index = torch.cat(visited)
    order = torch.argsort(index, stable=True).to(values.device)
    counts = torch.bincount(index, minlength=samples).tolist()
    return list(torch.split(values.index_select(0, order), counts))
