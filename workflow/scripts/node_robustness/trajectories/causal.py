"""Find the part of the dynamics that causes a wrong decision, by patching.

There are two runs of the same dynamics h' = f(t, h): the patched run p and the source run s. Over
an interval [a, b], in a part P of the state (all of it, one channel, one place),

    dp/dt = f(t, p) + P (f(t, s) - f(t, p)),

so that P p moves as P s does. Before and after the interval, p follows f alone. The patch undoes
what the interval adds to the difference in P; the difference at a stays. Repair patches the
perturbed run from the clean run: does it restore the clean decision? Insertion patches the clean
run from the perturbed run: does it remove the clean decision? This is activation patching of
networks (Vig et al., Investigating Gender Bias in Language Models Using Causal Mediation Analysis,
2020; Meng et al., Locating and Editing Factual Associations in GPT, 2022), continuous in depth.

At a, the runs start from their unbroken solves. The solver restarts at a and at b, which alone may
change the result at a loose tolerance: if a run with an empty patch, P = 0, does not keep its
decision, the interval is undetermined.

The blocks of a residual body add g(h): there p moves by g(p) + P (g(s) - g(p)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from node_robustness.models.classifier import ResidualBody
from node_robustness.models.network import Network
from node_robustness.models.ode_body import ODEBody
from node_robustness.ode.parts import Parts
from node_robustness.statistics.rounding import above_rounding
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.runs import block_states, body_of

Projection = Callable[[Tensor, Tensor], Tensor]
"""From differences [m, C, H, W] and the choice of each, int64 [m], to the patched part of them."""

UNDETERMINED = -1

MOST_CHANNELS = 1024
"""A state of more channels, such as a long vector, has no patches of single ones: they take as many
solves of as large a state."""

# Bytes of states that are solved at a time, and tensors of its size that one of them needs.
_ROWS_BYTES = 2**28
_MAPS = 40
_MOST_ROWS = 4096  # dynamics and head may be larger than the state


def everything(difference: Tensor, choice: Tensor) -> Tensor:
    """All of the state."""
    return difference


def nothing(difference: Tensor, choice: Tensor) -> Tensor:
    """The empty patch."""
    return torch.zeros_like(difference)


def each_channel(difference: Tensor, choice: Tensor) -> Tensor:
    """One channel, the choice of each sample."""
    channels = torch.arange(difference.shape[1], device=difference.device)
    return difference * (channels == choice[:, None])[:, :, None, None]


def each_place(difference: Tensor, choice: Tensor) -> Tensor:
    """One place, numbered row by row, the choice of each sample."""
    places = torch.arange(difference[0, 0].numel(), device=difference.device)
    return difference * (places == choice[:, None]).view(-1, 1, *difference.shape[2:])


class Flow(Protocol):
    """The map from h(0) to h(1), cut at T ends from 0 to 1."""

    @property
    def ends(self) -> tuple[float, ...]:
        """The ends of the parts, increasing from 0 to 1."""
        ...

    def unbroken(self, start: Tensor) -> Tensor:
        """The states at all ends, [T, n, C, H, W], from h(0) [n, C, H, W]."""
        ...

    def patched(
        self, state: Tensor, source: Tensor, first: int, part: Projection, choice: Tensor
    ) -> Tensor:
        """The states at the ends from number `first` on, patched up to 1.

        Args:
            state: h of the patched run at end `first`, [n, C, H, W].
            source: h of the source run there, [n, C, H, W].
            first: number of the end.
            part: the patched part of the state.
            choice: of each image, for `part`, int64 [n].

        Returns:
            [T - first, n, C, H, W].
        """
        ...

    def finish(self, state: Tensor, last: int) -> Tensor:
        """h(1), [n, C, H, W], from h at the end number `last`, without a patch."""
        ...


@dataclass(frozen=True)
class ODEFlow:
    """The flow of an ODE with the settings of its body; each end starts a new solve.

    Attributes:
        body: of the model.
        ends: see `Flow`.
    """

    body: ODEBody
    ends: tuple[float, ...]

    def unbroken(self, start: Tensor) -> Tensor:
        """See `Flow`."""
        return _from_finite(lambda h: self.body.solve(h, self.ends).states, len(self.ends), start)

    def patched(
        self, state: Tensor, source: Tensor, first: int, part: Projection, choice: Tensor
    ) -> Tensor:
        """See `Flow`."""
        function = self.body.function.bind(state)

        def dynamics(t: Tensor, parts: Parts) -> Parts:
            p, s, chosen = parts
            # One evaluation with twice as many rows.
            slope, other = function(t.repeat(2), torch.cat([p, s])).chunk(2)
            number = (chosen / _UNSEEN).round().long() - 1
            return slope + part(other - slope, number), other, torch.zeros_like(chosen)

        def solve(p: Tensor, s: Tensor, chosen: Tensor) -> Tensor:
            return self.body.integrate(dynamics, (p, s, chosen), self.ends[first:]).parts[0]

        # From one on: a part of zero has no relative error.
        chosen = _UNSEEN * (1 + choice).to(state)
        return _from_finite(solve, len(self.ends) - first, state, source, chosen)

    def finish(self, state: Tensor, last: int) -> Tensor:
        """See `Flow`."""
        if last == len(self.ends) - 1:
            return state
        times = (self.ends[last], 1.0)
        return _from_finite(lambda h: self.body.solve(h, times).states, 2, state)[-1]


_UNSEEN = 1e-30
"""The unit of a choice, as a part of the state: too small to count in the error norm."""


def _from_finite(solve: Callable[..., Tensor], times: int, *parts: Tensor) -> Tensor:
    """Solve the rows that are finite, as many at a time as fit in memory.

    Returns:
        States [times, n, ...]; NaN for rows that are not finite.
    """
    first = parts[0]
    known = torch.stack([torch.isfinite(p).reshape(len(p), -1).all(1) for p in parts]).all(0)
    states = first.new_full((times, *first.shape), torch.nan)
    at_once = _ROWS_BYTES // ((_MAPS + times) * first[0].numel() * first.element_size())
    for rows in known.nonzero().flatten().split(min(max(1, at_once), _MOST_ROWS)):
        if len(rows):
            states[:, rows] = solve(*(part[rows] for part in parts))
    return states


@dataclass(frozen=True)
class ResidualFlow:
    """The flow of a residual body, cut between all blocks.

    Attributes:
        body: of the model.
    """

    body: ResidualBody

    @property
    def ends(self) -> tuple[float, ...]:
        """See `Flow`."""
        return tuple(number / len(self.body) for number in range(len(self.body) + 1))

    def unbroken(self, start: Tensor) -> Tensor:
        """See `Flow`."""
        return block_states(self.body, start)

    def patched(
        self, state: Tensor, source: Tensor, first: int, part: Projection, choice: Tensor
    ) -> Tensor:
        """See `Flow`."""
        states = [state]
        for number in range(first, len(self.body)):
            moved, source_moved = self.body.block(number, state), self.body.block(number, source)
            state = moved + part(source_moved - source - (moved - state), choice)
            source = source_moved
            states.append(state)
        return torch.stack(states)

    def finish(self, state: Tensor, last: int) -> Tensor:
        """See `Flow`."""
        for number in range(last, len(self.body)):
            state = self.body.block(number, state)
        return state


def flow_of(model: Network, parts: int) -> Flow:
    """The flow through a model's body: an ODE in `parts` equal parts, or its residual blocks."""
    body = body_of(model)
    if isinstance(body, ResidualBody):
        return ResidualFlow(body)
    return ODEFlow(body, tuple(number / parts for number in range(parts + 1)))


def intervals(ends: Sequence[float]) -> list[tuple[float, float]]:
    """All intervals between two ends, ordered by their starts, then by their ends."""
    return list(combinations(ends, 2))


@torch.no_grad()
def patch_intervals(
    flow: Flow,
    states: Tensor,
    sources: Tensor,
    read: Callable[[Tensor], Tensor],
    *,
    part: Projection,
) -> Tensor:
    """The logits after a patch over each interval, [I, n, K].

    Args:
        flow: its ends bound the intervals.
        states: of the patched runs at all ends, [T, n, C, H, W].
        sources: of the source runs, [T, n, C, H, W].
        read: h(1) to logits.
        part: what is patched.
    """
    last = len(flow.ends) - 1
    choice = torch.zeros(states.shape[1], dtype=torch.int64, device=states.device)
    arrived: list[list[Tensor]] = [[] for _ in flow.ends]
    for first in range(last):
        leg = flow.patched(states[first], sources[first], first, part, choice)
        for end in range(first + 1, last + 1):
            arrived[end].append(leg[end - first])
    logits: dict[tuple[int, int], Tensor] = {}
    for end in range(1, last + 1):
        finals = flow.finish(torch.cat(arrived[end]), end)
        arrived[end] = []
        for first, final in enumerate(finals.split(states.shape[1])):
            logits[first, end] = read(final)
    return torch.stack([logits[pair] for pair in combinations(range(last + 1), 2)])


@dataclass(frozen=True)
class Causes:
    """The effects of patches over I intervals on the decisions for n perturbed images.

    Attributes:
        repaired: int8 [n, I]: 1 where the repair restores the decision of the clean run, 0 where
            it does not. `UNDETERMINED` where the empty patch does not keep the decision of the
            run, where a solve failed, or where the perturbed run has the decision of the clean run
            (an adversarial example on the decision boundary may, in another batch).
        inserted: int8 [n, I]: 1 where the insertion removes the decision from the clean run, 0
            where it does not, or `UNDETERMINED`.
    """

    repaired: Tensor
    inserted: Tensor


@torch.no_grad()
def find_causes(model: Network, flow: Flow, clean: Tensor, perturbed: Tensor) -> Causes:
    """Repair and insert each interval, for images that the perturbation misleads.

    Args:
        model: in evaluation mode, with the solver settings in question.
        flow: through its body.
        clean: images [n, C, H, W], n >= 1.
        perturbed: misclassified images, [n, C, H, W].
    """
    starts = model.embed(torch.cat([clean, perturbed]))
    both = flow.unbroken(starts)
    before, after = both[:, : len(clean)], both[:, len(clean) :]
    decided = model.head(before[-1]).argmax(1)
    misled = model.head(after[-1]).argmax(1)

    def decisions(states: Tensor, sources: Tensor, part: Projection) -> Tensor:
        logits = patch_intervals(flow, states, sources, model.head, part=part)
        return torch.where(torch.isfinite(logits).all(2), logits.argmax(2), UNDETERMINED)

    def outcome(patched: Tensor, empty: Tensor, own: Tensor, wanted: Tensor) -> Tensor:
        known = (empty == own) & (patched != UNDETERMINED) & (misled != decided)
        return torch.where(known, wanted.to(torch.int8), UNDETERMINED).T.to(torch.int8)

    repair = decisions(after, before, everything)
    insertion = decisions(before, after, everything)
    repaired = outcome(repair, decisions(after, before, nothing), misled, repair == decided)
    inserted = outcome(insertion, decisions(before, after, nothing), decided, insertion != decided)
    return Causes(repaired, inserted)


@torch.no_grad()
def restored_shares(
    model: Network, flow: Flow, clean: Tensor, perturbed: Tensor
) -> tuple[Tensor, Tensor]:
    """The share of the margin that the repair of each channel and each place alone restores.

    The repair covers [0, 1]. The share is (patched - perturbed) / (clean - perturbed) of the
    margins of the clean decision: 0 if nothing changes, 1 if all is restored. NaN where the
    perturbation is zero or changes the margin by no more than rounding.

    Args:
        model: see `find_causes`.
        flow: see `find_causes`.
        clean: see `find_causes`.
        perturbed: [n, C, H, W], misclassified or not.

    Returns:
        float32 [n, C] and [n, H, W]; NaN for the channels of more than `MOST_CHANNELS`.
    """
    n = len(clean)
    starts = model.embed(torch.cat([clean, perturbed]))
    final_logits = model.head(flow.finish(starts, 0))
    decided = final_logits[:n].argmax(1)
    own, misled = _final_margins(final_logits, decided.repeat(2)).chunk(2)
    lost = own - misled
    scale = final_logits.abs().amax(1).view(2, n).amax(0)
    none = (clean == perturbed).flatten(1).all(1) | ~above_rounding(lost.abs(), scale)
    lost = lost.masked_fill(none, torch.nan)
    before, after = starts.chunk(2)

    def shares(part: Projection, choices: int) -> Tensor:
        choice = torch.arange(choices, device=before.device).repeat(n)
        state, source = (h.repeat_interleave(choices, dim=0) for h in (after, before))
        final = flow.patched(state, source, 0, part, choice)[-1]
        logits = torch.cat([model.head(rows) for rows in final.split(_MOST_ROWS)])
        patched = _final_margins(logits, decided.repeat_interleave(choices)).view(n, choices)
        return (patched - misled[:, None]) / lost[:, None]

    size = starts.shape[1:]
    of_channels = starts.new_full((n, size[0]), torch.nan)
    if size[0] <= MOST_CHANNELS:
        of_channels = shares(each_channel, size[0])
    of_places = shares(each_place, size[1] * size[2]).view(n, *size[1:])
    return of_channels.float(), of_places.float()


def _final_margins(logits: Tensor, classes: Tensor) -> Tensor:
    return margins(logits[None], classes)[:, 0]
