"""Which part of the dynamics is to blame: patch it, integrate on, and see what is decided.

Two runs of the same dynamics h' = f(t, h), the one that is patched, p, and the other, s (for
source). Over an interval [a, b], in a part P of the state (all of it, some channels, some places,
a subspace),

    dp/dt = f(t, p) + P (f(t, s) - f(t, p)),

so that P p moves as P s does, and before and after that p follows f alone. What the interval adds
to the difference in P is undone; the difference that entered it stays. To repair is to patch the
perturbed run from the clean one: is the clean decision restored? To insert is to patch the clean
run from the perturbed one: is it taken away? (Activation patching of networks, for which see Vig et
al., Investigating Gender Bias in Language Models Using Causal Mediation Analysis, 2020, and Meng et
al., Locating and Editing Factual Associations in GPT, 2022, made continuous in depth.)

The runs start on the interval from where their own unbroken solves were. The solver starts anew at
a and at b, which at a loose tolerance alone may change the result: with an empty patch, P = 0, a
run must come to its own decision, or the interval is undetermined.

The blocks of a residual body add g(h): there p moves by g(p) + P (g(s) - g(p)).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import torch
from torch import Tensor

from node_robustness.models.classifier import Classifier, ResidualBody
from node_robustness.models.ode_body import ODEBody
from node_robustness.ode.parts import Parts
from node_robustness.ode.solve import solve_parts
from node_robustness.statistics.rounding import above_rounding
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.runs import block_states, body_of

Projection = Callable[[Tensor, Tensor], Tensor]
"""Differences [m, C, H, W] and the choice of each, int64 [m], to the part that is patched."""

UNDETERMINED = -1

# Rows of states that are solved at a time, and what one takes in maps of its size.
_ROWS_BYTES = 2**28
_MAPS = 40


def everything(difference: Tensor, choice: Tensor) -> Tensor:
    """All of the state."""
    return difference


def nothing(difference: Tensor, choice: Tensor) -> Tensor:
    """The empty patch."""
    return torch.zeros_like(difference)


def each_channel(difference: Tensor, choice: Tensor) -> Tensor:
    """The one channel that each sample has chosen."""
    channels = torch.arange(difference.shape[1], device=difference.device)
    return difference * (channels == choice[:, None])[:, :, None, None]


def each_place(difference: Tensor, choice: Tensor) -> Tensor:
    """The one place, numbered row by row, that each sample has chosen."""
    places = torch.arange(difference[0, 0].numel(), device=difference.device)
    return difference * (places == choice[:, None]).view(-1, 1, *difference.shape[2:])


class Flow(Protocol):
    """From h(0) to h(1), cut at some ends, T of them, the first 0 and the last 1."""

    @property
    def ends(self) -> tuple[float, ...]:
        """Where it is cut."""
        ...

    def unbroken(self, start: Tensor) -> Tensor:
        """The states at all ends, [T, n, C, H, W], from h(0)."""
        ...

    def patched(
        self, state: Tensor, source: Tensor, first: int, part: Projection, choice: Tensor
    ) -> Tensor:
        """The states at the ends from number `first` on, patched all the way to 1.

        Args:
            state: h at that end, [n, C, H, W].
            source: h of the other run there.
            first: number of the end.
            part: what is patched.
            choice: of each image, int64 [n], for the part.

        Returns:
            [T - first, n, C, H, W].
        """
        ...

    def finish(self, state: Tensor, last: int) -> Tensor:
        """h(1), [n, C, H, W], from h at the end number `last`, by the run's own dynamics."""
        ...


@dataclass(frozen=True)
class ODEFlow:
    """The way through an ODE, at the settings of its body: solved anew from each end."""

    body: ODEBody
    ends: tuple[float, ...]

    def unbroken(self, start: Tensor) -> Tensor:
        """See `Flow`."""
        return _from_finite(lambda h: self.body.solve(h, self.ends).states, len(self.ends), start)

    def patched(
        self, state: Tensor, source: Tensor, first: int, part: Projection, choice: Tensor
    ) -> Tensor:
        """See `Flow`."""
        function, settings = self.body.function.bind(state), self.body.settings

        def dynamics(t: Tensor, parts: Parts) -> Parts:
            p, s, chosen = parts
            # One evaluation of twice as many rows.
            slope, other = function(t.repeat(2), torch.cat([p, s])).chunk(2)
            number = (chosen / _UNSEEN).round().long()
            return slope + part(other - slope, number), other, torch.zeros_like(chosen)

        def solve(p: Tensor, s: Tensor, chosen: Tensor) -> Tensor:
            return solve_parts(
                dynamics,
                (p, s, chosen),
                self.ends[first:],
                tolerance=settings.tolerance,
                method=settings.method,
                steps=settings.steps,
                max_steps=settings.max_steps,
            ).parts[0]

        chosen = _UNSEEN * choice.to(state)
        return _from_finite(solve, len(self.ends) - first, state, source, chosen)

    def finish(self, state: Tensor, last: int) -> Tensor:
        """See `Flow`."""
        if last == len(self.ends) - 1:
            return state
        times = (self.ends[last], 1.0)
        return _from_finite(lambda h: self.body.solve(h, times).states, 2, state)[-1]


_UNSEEN = 1e-30
"""The unit of a choice that travels with a state: too small to count in the norm of an error."""


def _from_finite(solve: Callable[..., Tensor], times: int, *parts: Tensor) -> Tensor:
    """The states [times, n, ...] of a solve from the rows that are finite, so many at a time.

    NaN for the rows that are not.
    """
    first = parts[0]
    known = torch.stack([torch.isfinite(p).reshape(len(p), -1).all(1) for p in parts]).all(0)
    states = first.new_full((times, *first.shape), torch.nan)
    room = max(1, _ROWS_BYTES // ((_MAPS + times) * first[0].numel() * first.element_size()))
    for rows in known.nonzero().flatten().split(room):
        if len(rows):
            states[:, rows] = solve(*(part[rows] for part in parts))
    return states


@dataclass(frozen=True)
class ResidualFlow:
    """The way through the blocks of a residual body, cut between all of them."""

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


def flow_of(model: Classifier, parts: int) -> Flow:
    """The way through a model's body: an ODE in so many equal parts, else its blocks."""
    body = body_of(model)
    if isinstance(body, ResidualBody):
        return ResidualFlow(body)
    return ODEFlow(body, tuple(number / parts for number in range(parts + 1)))


def intervals(ends: Sequence[float]) -> list[tuple[float, float]]:
    """All runs of neighbouring parts, in the order of their starts, then of their ends."""
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
    """The logits after a patch over each of the intervals, [I, n, K].

    Args:
        flow: on whose ends the intervals begin and end.
        states: of the runs that are patched, at all ends, [T, n, C, H, W].
        sources: of the others, likewise.
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
    """What patches over I intervals do to the decisions of n perturbed images.

    Attributes:
        repaired: int8 [n, I]: 1 where the repair restores the decision of the clean run, 0 where
            not, `UNDETERMINED` where the empty patch does not keep the run's own decision, a solve
            failed, or the perturbed run is decided as the clean one (an adversarial example on the
            very boundary may be, when it is computed in another batch).
        inserted: likewise: 1 where the insertion takes the decision away from the clean run.
        responsible: the shortest interval whose repair restores the decision, the earliest of
            equals, float64 [n, 2]; NaN where none does.
        random_repaired: share of the others of the same length whose repair restores it, which is
            the chance of a random one, float32 [n]; NaN where there is no other.
    """

    repaired: Tensor
    inserted: Tensor
    responsible: Tensor
    random_repaired: Tensor


@torch.no_grad()
def find_causes(model: Classifier, flow: Flow, clean: Tensor, perturbed: Tensor) -> Causes:
    """Repair and insert every interval, for images that the perturbation misleads.

    Args:
        model: in evaluation mode, at the settings in question.
        flow: through its body.
        clean: images [n, C, H, W], n >= 1.
        perturbed: likewise, which are decided otherwise.
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
    return Causes(repaired, inserted, *responsible_intervals(flow.ends, repaired))


def responsible_intervals(ends: Sequence[float], repaired: Tensor) -> tuple[Tensor, Tensor]:
    """The shortest intervals whose repair restores the decision, and the control.

    Args:
        ends: of the flow.
        repaired: int8 [n, I], see `Causes`.

    Returns:
        `responsible` and `random_repaired` of `Causes`.
    """
    pairs = torch.tensor(list(combinations(range(len(ends)), 2)))
    lengths = pairs[:, 1] - pairs[:, 0]
    # In the order of `intervals` the earliest of equal length comes first, and a stable sort
    # leaves it there.
    order = torch.argsort(lengths, stable=True)
    restored = (repaired == 1).cpu()
    any_restored, first = restored[:, order].any(1), order[restored[:, order].int().argmax(1)]
    where = torch.tensor(ends, dtype=torch.float64)[pairs[first]]
    alike = (lengths == lengths[first][:, None]) & (repaired != UNDETERMINED).cpu()
    alike[torch.arange(len(first)), first] = False
    share = (restored & alike).sum(1) / alike.sum(1)
    return (
        torch.where(any_restored[:, None], where, torch.nan),
        torch.where(any_restored, share, torch.nan).float(),
    )


@torch.no_grad()
def restored_shares(
    model: Classifier, flow: Flow, clean: Tensor, perturbed: Tensor
) -> tuple[Tensor, Tensor]:
    """How much of the margin the repair of each channel and each place alone gives back.

    Each is repaired over the whole of [0, 1]. The share is (patched - perturbed) / (clean -
    perturbed) of the margins of the clean decision: 0 if nothing changes, 1 if all is restored;
    NaN where the perturbation changes the margin by no more than rounding, or is none.

    Args:
        model: see `find_causes`.
        flow: see `find_causes`.
        clean: see `find_causes`.
        perturbed: likewise, however decided.

    Returns:
        float32 [n, C] and [n, H, W].
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
        logits = model.head(flow.patched(state, source, 0, part, choice)[-1])
        patched = _final_margins(logits, decided.repeat_interleave(choices)).view(n, choices)
        return (patched - misled[:, None]) / lost[:, None]

    size = starts.shape[1:]
    return (
        shares(each_channel, size[0]).float(),
        shares(each_place, size[1] * size[2]).view(n, *size[1:]).float(),
    )


def _final_margins(logits: Tensor, classes: Tensor) -> Tensor:
    return margins(logits[None], classes)[:, 0]
