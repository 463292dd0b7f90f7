"""The trajectories of clean and perturbed images through the body of a classifier.

The state h is that of the ODE block, before the head (the paper's figures show it after the head's
normalisation). Between the accepted nodes of a solve, states come from its quartic dense output. At
a large tolerance this may be two quartics for the whole interval; the accepted nodes are kept to
show it. The blocks of a residual body are discrete: block i of B ends at i / B.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from node_robustness.models.classifier import ResidualBody
from node_robustness.models.network import Network
from node_robustness.models.ode_body import ODEBody, solve_finite
from node_robustness.ode.solve import Solution
from node_robustness.trajectories.distances import Distances, distances

CLEAN = "clean"
"""The name of the reference run."""


@dataclass(frozen=True)
class Cost:
    """The cost of a solve for n images.

    Attributes:
        nfe: function evaluations, int64 [n].
        accepted: accepted steps, int64 [n].
        rejected: rejected steps, int64 [n].
        status: the `ode.solve.Status` of each image, int64 [n].
        nodes: the accepted times of each image, float64 on the CPU; the last one may lie beyond 1.
    """

    nfe: Tensor
    accepted: Tensor
    rejected: Tensor
    status: Tensor
    nodes: list[Tensor]

    def at(self, images: Tensor) -> "Cost":
        """The cost of the images at these positions, int64 [k] on the CPU."""
        return Cost(
            self.nfe[images],
            self.accepted[images],
            self.rejected[images],
            self.status[images],
            [self.nodes[i] for i in images.tolist()],
        )

    @classmethod
    def of(cls, solution: Solution, images: slice) -> "Cost":
        """The cost of some images of a solution with nodes."""
        return cls(
            solution.nfe[images],
            solution.accepted[images],
            solution.rejected[images],
            solution.status[images],
            solution.nodes[images],
        )


@dataclass(frozen=True)
class Runs:
    """Several runs of the same n images, by name.

    Attributes:
        times: float64 [T] on the CPU, from 0 to 1.
        states: of each run, h at these times, [T, n, C, H, W].
        costs: of each run; empty without an ODE.
        at_nodes: of each perturbed run, the distances at its accepted nodes: for each image a
            `Distances` of tensors [number of nodes]. A last node beyond 1 counts as 1. Empty
            without an ODE.
    """

    times: Tensor
    states: dict[str, Tensor]
    costs: dict[str, Cost]
    at_nodes: dict[str, list[Distances]]

    def of(self, images: Tensor) -> "Runs":
        """The runs of the images at these positions, int64 [k] on the CPU."""
        return Runs(
            self.times,
            {name: states[:, images] for name, states in self.states.items()},
            {name: cost.at(images) for name, cost in self.costs.items()},
            {name: [own[i] for i in images.tolist()] for name, own in self.at_nodes.items()},
        )

    @property
    def perturbed(self) -> list[str]:
        """The names of the runs other than the clean one."""
        return [name for name in self.states if name != CLEAN]


def grid(times: int | Sequence[float]) -> tuple[float, ...]:
    """The times of a trajectory.

    Args:
        times: a number of equally spaced times in [0, 1], or the times.

    Raises:
        ValueError: there are fewer than two, or they do not increase from 0 to 1.
    """
    if isinstance(times, int):
        own = tuple(torch.linspace(0, 1, max(times, 0), dtype=torch.float64).tolist())
    else:
        own = tuple(map(float, times))
    increasing = all(early < late for early, late in pairwise(own))
    if len(own) < 2 or own[0] != 0 or own[-1] != 1 or not increasing:
        raise ValueError(f"times must increase from 0 to 1, at least two, not {times}")
    return own


def ends(body: ODEBody | ResidualBody, times: Sequence[float]) -> tuple[float, ...]:
    """The places where h is recorded: the times, or the ends of the blocks of a residual body."""
    if isinstance(body, ResidualBody):
        return tuple(number / len(body) for number in range(len(body) + 1))
    return tuple(times)


def body_of(model: Network) -> ODEBody | ResidualBody:
    """The body of a model that can be followed, with its type."""
    body = model.body
    assert isinstance(body, ODEBody | ResidualBody)
    return body


@torch.no_grad()
def follow(model: Network, images: Mapping[str, Tensor], times: Sequence[float]) -> Runs:
    """Follow images and their perturbed versions through the body.

    A perturbed image that equals the clean one gets the clean run, because the same image in
    another row of a batch may round differently.

    Args:
        model: in evaluation mode, at the tolerance in question.
        images: by name, with `clean`, each [n, C, H, W] in [0, 1], n >= 1.
        times: increasing from 0 to 1, see `grid`; no effect on a residual body.
    """
    body = body_of(model)
    starts = {name: model.embed(batch) for name, batch in images.items()}
    same = {name: (batch == images[CLEAN]).flatten(1).all(1) for name, batch in images.items()}
    where = ends(body, times)
    if isinstance(body, ResidualBody):
        states = {name: block_states(body, start) for name, start in starts.items()}
        states = {
            name: _clean_where(same[name], states[CLEAN], own) for name, own in states.items()
        }
        return Runs(torch.tensor(where, dtype=torch.float64), states, {}, {})
    return _follow_ode(body, starts, same, where)


def _clean_where(same: Tensor, clean: Tensor, own: Tensor) -> Tensor:
    """The states of a run, [T, n, C, H, W], replaced by the clean ones for the images in `same`."""
    return torch.where(same.view(1, -1, 1, 1, 1), clean, own)


def block_states(body: ResidualBody, start: Tensor) -> Tensor:
    """The states before the first block and after each, [B + 1, n, C, H, W]."""
    states = [start]
    for number in range(len(body)):
        states.append(body.block(number, states[-1]))
    return torch.stack(states)


def _follow_ode(
    body: ODEBody,
    starts: Mapping[str, Tensor],
    same: Mapping[str, Tensor],
    times: tuple[float, ...],
) -> Runs:
    """Solve all perturbed runs together, then the clean run, also at their nodes."""
    perturbed = [name for name in starts if name != CLEAN]
    n = len(starts[CLEAN])
    own = {name: slice(p * n, (p + 1) * n) for p, name in enumerate(perturbed)}
    grid = torch.tensor(times, dtype=torch.float64)
    states: dict[str, Tensor] = {}
    costs: dict[str, Cost] = {}
    nodes: dict[str, Tensor] = {}
    node_states: dict[str, Tensor] = {}
    if perturbed:
        together = torch.cat([starts[name] for name in perturbed])
        moved = solve_finite(body, together, times, keep_nodes=True, keep_node_states=True)
        for name, rows in own.items():
            states[name], costs[name] = moved.states[:, rows], Cost.of(moved, rows)
            nodes[name], node_states[name] = _padded(moved, rows)
    # The solver needs increasing times; `position` undoes the sorting.
    wanted = torch.cat([grid.expand(n, -1), *nodes.values()], dim=1)
    ordered, order = wanted.sort(dim=1, stable=True)
    at = ordered if perturbed else times
    still = solve_finite(body, starts[CLEAN], at, keep_nodes=True)
    position = order.argsort(dim=1).T.to(still.states.device)
    everyone = torch.arange(n, device=still.states.device)
    clean = still.states[position[: len(grid)], everyone]
    states = {name: _clean_where(same[name], clean, own) for name, own in states.items()}
    states = {CLEAN: clean, **states}
    costs = {CLEAN: Cost.of(still, slice(n)), **costs}
    at_nodes, first = {}, len(grid)
    for name, at in node_states.items():
        before = still.states[position[first : first + len(at)], everyone]
        first += len(at)
        at = _clean_where(same[name], before, at)
        at_nodes[name] = _ragged(distances(before, at), costs[name].nodes)
    return Runs(grid, states, costs, at_nodes)


def _padded(solution: Solution, rows: slice) -> tuple[Tensor, Tensor]:
    """Nodes [n, m] and states [m, n, ...], padded with 1 and h(1)."""
    final = solution.states[-1, rows]
    nodes = pad_sequence(solution.nodes[rows], batch_first=True, padding_value=1.0)
    states = pad_sequence(solution.node_states[rows])
    outside = (nodes.T >= 1).to(states.device).view(*nodes.T.shape, *[1] * (states.ndim - 2))
    return nodes.clamp(max=1), torch.where(outside, final, states)


def _ragged(padded: Distances, nodes: Sequence[Tensor]) -> list[Distances]:
    """Remove the padding: the distances of each image at its nodes."""
    lengths = list(map(len, nodes))
    return [
        Distances(padded.l2[i, :m], padded.relative_l2[i, :m], padded.cosine[i, :m])
        for i, m in enumerate(lengths)
    ]
