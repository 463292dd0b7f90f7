"""Which part of the dynamics loses the margin of a decision: Aumann-Shapley shares.

The margin is the logit of the clean run's class minus the largest other. The players of a game
share out what a perturbation takes from it: h(0), which has what all layers before the body make of
the perturbation, and the parts of t. With a multiplier alpha for each player, the run p starts from
the clean run c at p(0) = c(0) + alpha_0 (h'(0) - c(0)) and follows, in part k,

    dp/dt = f(t, c) + alpha_k (f(t, p) - f(t, c)),

where h'(0) is the initial state of the perturbed image. With all alpha = 0, p is the clean run;
with all alpha = 1, it is the perturbed run. The value of the game is v(alpha) = margin of c -
margin of p. The share of a player is the integral of its derivative along the diagonal,

    integral over s in [0, 1] of dv / dalpha_k at alpha = (s, ..., s)

(Aumann and Shapley, Values of Non-Atomic Games, 1974). The shares sum to the loss of margin. A part
that contracts the perturbation has a negative share. Nothing is selected, and the solver does not
restart.

All runs take the accepted steps of the perturbed image's own solve, so that at alpha = 1 the value
is the network's own. Each step has one multiplier, and its derivative is exact for the discrete
solution. The cumulative share within a step is the cubic Hermite interpolant: its values at both
ends are exact, and so are its slopes, the adjoint of the state times f(t, p) - f(t, c) there. Parts
therefore sum to steps. They resolve t no better than the steps of the solver do; at a large
tolerance that may be two.

A residual block adds g(h) as a step of Euler's method adds its slope: the blocks are the parts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from node_robustness.models.classifier import ResidualBody, frozen
from node_robustness.models.differentiation import gradients
from node_robustness.models.memory import LARGEST_BATCH
from node_robustness.models.network import Network
from node_robustness.models.ode_body import ODEBody, solve_finite
from node_robustness.ode.dense_output import linear, quartic
from node_robustness.ode.parts import combine, spread
from node_robustness.ode.tableaus import EULER, TABLEAUS, Tableau
from node_robustness.trajectories.decision import margins
from node_robustness.trajectories.runs import body_of

QUADRATURE = 16
"""Gauss-Legendre nodes along the diagonal; docs/trajectories.md has the error by their number."""

# Bytes that the graph of a batch may take, and tensors of the size of a state that an evaluation of
# the dynamics adds to it.
_GRAPH_BYTES = 2**29
_MAPS = 10


@dataclass(frozen=True)
class SolvedImages:
    """The network's own solve of n images.

    Attributes:
        images: [n, C, H, W] in [0, 1].
        start: h(0), [n, C, H, W].
        margin: of h(1), in logits, float64 [n]; NaN where the solve failed.
        nodes: the accepted times of each image, float64; of a residual body the ends of its blocks.
    """

    images: Tensor
    start: Tensor
    margin: Tensor
    nodes: list[Tensor]


@dataclass(frozen=True)
class Shares:
    """The shares in the loss of margin of n images, in logits; NaN where a solve failed.

    Attributes:
        start: of h(0), float64 [n].
        parts: of the K parts of t, float64 [n, K].
        loss: the margin of the clean image minus that of the perturbed one, by the network's own
            solves, float64 [n].
    """

    start: Tensor
    parts: Tensor
    loss: Tensor

    @classmethod
    def unknown(cls, images: int, parts: int) -> Self:
        """The shares where no image has any: all NaN."""
        unknown = torch.full((images, 1 + parts), torch.nan, dtype=torch.float64)
        return cls(unknown[:, 0], unknown[:, 1:], unknown[:, 0])

    @property
    def error(self) -> Tensor:
        """The sum of the shares minus the loss, [n].

        It has the error of the quadrature, and that of the clean run on the steps of the perturbed
        one.
        """
        return self.start + self.parts.sum(1) - self.loss


@torch.no_grad()
def solve_margins(model: Network, images: Tensor, decided: Tensor) -> SolvedImages:
    """Solve images with the model's own steps.

    Args:
        model: in evaluation mode, with the solver settings in question.
        images: [n, C, H, W] in [0, 1], n >= 1.
        decided: the class whose margin it is, int64 [n].
    """
    body, start = body_of(model), model.embed(images)
    if isinstance(body, ResidualBody):
        final = body(start)
        nodes = [torch.linspace(0, 1, len(body) + 1, dtype=torch.float64)] * len(images)
    else:
        solution = solve_finite(body, start, (0.0, 1.0), keep_nodes=True)
        final, nodes = solution.states[-1], solution.nodes
    margin = margins(model.head(final)[None], decided)[:, 0].cpu().double()
    return SolvedImages(images, start, margin, nodes)


def shares(
    model: Network,
    clean: SolvedImages,
    perturbed: SolvedImages,
    decided: Tensor,
    ends: Sequence[float],
    quadrature: int = QUADRATURE,
    *,
    batch_size: int = LARGEST_BATCH,
) -> Shares:
    """Share out the loss of margin by a perturbation.

    A perturbed image that equals the clean one has shares of exactly zero, because the same image
    in another row of a batch may round differently.

    Args:
        model: in evaluation mode, with the solver settings in question.
        clean: result of `solve_margins`, n images.
        perturbed: the same for the perturbed images.
        decided: the class of the clean run, int64 [n].
        ends: of the parts, K + 1 times from 0 to 1; of a residual body those of its blocks.
        quadrature: number of Gauss-Legendre nodes along the diagonal.
        batch_size: images at a time at most; bounds the memory, does not change the result.
    """
    same = (clean.images == perturbed.images).flatten(1).all(1).cpu()
    loss = torch.where(same, 0.0, clean.margin - perturbed.margin)
    found = Shares.unknown(len(same), len(ends) - 1)
    start, parts = found.start.masked_fill(same, 0), found.parts.masked_fill(same[:, None], 0)
    # Images with about as many steps go together.
    order = torch.tensor([len(nodes) for nodes in perturbed.nodes]).argsort(stable=True)
    wanted = order[(~same & torch.isfinite(loss))[order]]
    with frozen(model):
        for rows in _batches(wanted, clean.start[0], perturbed.nodes, batch_size):
            chosen = rows.to(decided.device)
            start[rows], parts[rows] = _share_out(
                model,
                Steps.of(model, clean.start, [perturbed.nodes[row] for row in rows.tolist()]),
                clean.start[chosen],
                perturbed.start[chosen],
                decided[chosen],
                torch.tensor(ends, dtype=torch.float64),
                quadrature,
            )
    return Shares(start, parts, loss)


def _batches(
    rows: Tensor, state: Tensor, nodes: Sequence[Tensor], batch_size: int
) -> Iterator[Tensor]:
    """Split rows, int64 in ascending order of their steps, so that each batch fits in memory."""
    stages = max(len(tableau.solution) for tableau in TABLEAUS.values())
    step = _MAPS * stages * state.numel() * state.element_size()
    while len(rows):
        count = min(len(rows), batch_size)
        while count > 1 and count * step * len(nodes[int(rows[count - 1])]) > _GRAPH_BYTES:
            count //= 2
        yield rows[:count]
        rows = rows[count:]


@dataclass(frozen=True)
class Run:
    """A solution from h(0) to h(1) on N steps.

    Attributes:
        states: at the nodes, N + 1 tensors [n, C, H, W].
        slopes: by the dynamics alone, at the stages of each step and, last, at h(1).
    """

    states: list[Tensor]
    slopes: list[list[Tensor]]


class Steps:
    """A Runge-Kutta method on given steps from t = 0 to 1, for each image its own.

    Args:
        dynamics: from the number of a step, times [n] and states [n, C, H, W] to slopes.
        tableau: of the method.
        nodes: of each image, float64, from 0 to 1, or beyond where h(1) comes from dense output.

    Attributes:
        nodes: float64 [n, N + 1]; images with fewer steps have steps of length zero at the end.
    """

    def __init__(
        self,
        dynamics: Callable[[int, Tensor, Tensor], Tensor],
        tableau: Tableau,
        nodes: Sequence[Tensor],
    ) -> None:
        self.dynamics, self.tableau = dynamics, tableau
        longest = max(map(len, nodes))
        self.nodes = torch.stack(
            [torch.cat([own, own[-1:].expand(longest - len(own))]) for own in nodes]
        )
        # Inside a step that ends beyond 1, the weights of the stages are those of h(1).
        size = self.nodes.diff(dim=1).T.flatten()
        before = self.nodes[:, :-1].T.flatten()
        x = torch.where(size > 0, (1 - before) / size, 0.0).clamp(max=1)
        dense = quartic(tableau, x, size) if tableau.middle else linear(x)
        weights = torch.outer(torch.tensor(tableau.solution, dtype=x.dtype), size * dense[1])
        if tableau.middle:
            weights += dense[2:]
        self._weights = weights.unflatten(1, (longest - 1, len(nodes)))

    @classmethod
    def of(cls, model: Network, like: Tensor, nodes: Sequence[Tensor]) -> Self:
        """The steps through the body of a model, for states like `like`."""
        body = body_of(model)
        if isinstance(body, ODEBody):
            function = body.function.bind(like)
            return cls(lambda _, t, h: function(t, h), TABLEAUS[body.settings.method], nodes)
        blocks = len(body)

        def added(step: int, t: Tensor, h: Tensor) -> Tensor:
            return blocks * (body.block(min(step, blocks - 1), h) - h)

        return cls(added, EULER, nodes)

    def __len__(self) -> int:
        """N."""
        return self.nodes.shape[1] - 1

    def run(
        self, state: Tensor, follow: Callable[[int, int, Tensor], Tensor] = lambda *given: given[2]
    ) -> Run:
        """Take all steps.

        Args:
            state: h(0), [n, C, H, W].
            follow: from the number of a step, the number of a stage and the slope by the dynamics
                there, to the slope that the run follows; by default it is the same.
        """
        run = Run([state], [])
        for step in range(len(self)):
            run.slopes.append([])
            followed: list[Tensor] = []
            for stage, (time, weights) in enumerate(self._stages(step, state)):
                value = _add(state, weights, followed)
                slope = self._slope(run, step, stage, time, value)
                run.slopes[-1].append(slope)
                followed.append(follow(step, stage, slope))
            state = _add(state, self._weights[: len(followed), step], followed)
            run.states.append(state)
        last = self.nodes[:, -1].clamp(max=1).to(state.dtype).to(state.device)
        run.slopes.append([self.dynamics(len(self), last, state)])
        return run

    def _slope(self, run: Run, step: int, stage: int, time: Tensor, state: Tensor) -> Tensor:
        # Some methods take the last stage for the first of the next step, although it is not there.
        tableau = self.tableau
        reuses = tableau.last_stage_starts_next_step and not tableau.last_stage_is_solution
        if reuses and stage == 0 and step > 0:
            return run.slopes[-2][-1]
        return self.dynamics(step, time, state)

    def _stages(self, step: int, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The times [n] of the stages of a step, and the weights of the stages before [k, n]."""
        tableau = self.tableau
        before, after = self.nodes[:, step].to(like.dtype), self.nodes[:, step + 1].to(like.dtype)
        size = (self.nodes[:, step + 1] - self.nodes[:, step]).to(like.dtype)
        count = len(tableau.solution)
        if tableau.last_stage_is_solution and not self._weights[-1, step].any():
            count -= 1
        alphas, betas = (0.0, *tableau.alpha), ((), *tableau.beta)
        for alpha, beta in zip(alphas[:count], betas[:count], strict=True):
            # As in the solver.
            end = torch.nextafter(after, after - 1)
            time = end if alpha == 1 else before + alpha * size
            weights = torch.outer(torch.tensor(beta, dtype=like.dtype), size)
            yield time.to(like.device), weights


def _add(state: Tensor, weights: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """The state plus a sum of slopes [n, C, H, W] with weights [k, n]."""
    if not slopes:
        return state
    on_device = weights.to(state.dtype).to(state.device)
    return combine((state,), on_device, [(slope,) for slope in slopes])[0]


def _share_out(
    model: Network,
    steps: Steps,
    clean: Tensor,
    perturbed: Tensor,
    decided: Tensor,
    ends: Tensor,
    quadrature: int,
) -> tuple[Tensor, Tensor]:
    """The shares of h(0), [n], and of the parts, [n, K], from h(0) of both images."""
    n = len(clean)
    with torch.no_grad():
        still = steps.run(clean)
    of_start = torch.zeros(n, dtype=torch.float64)
    of_steps = torch.zeros(n, len(steps), dtype=torch.float64)
    density = torch.zeros(n, len(steps) + 1, dtype=torch.float64)
    abscissas, weights = np.polynomial.legendre.leggauss(quadrature)
    for s, weight in zip((1 + abscissas) / 2, weights / 2, strict=True):
        alphas = [clean.new_full((n,), s).requires_grad_() for _ in range(1 + len(steps))]

        def follow(step: int, stage: int, slope: Tensor, alphas: list[Tensor] = alphas) -> Tensor:
            return torch.lerp(still.slopes[step][stage], slope, spread(alphas[1 + step], slope))

        with torch.enable_grad():
            run = steps.run(torch.lerp(clean, perturbed, spread(alphas[0], clean)), follow)
            value = -margins(model.head(run.states[-1])[None], decided).sum()
            found = gradients(value, [*alphas, *run.states])
        derivatives = torch.stack(found[: len(alphas)], dim=1)
        along = [
            (adjoint * (slopes[0] - others[0])).flatten(1).sum(1)
            for adjoint, slopes, others in zip(
                found[len(alphas) :], run.slopes, still.slopes, strict=True
            )
        ]
        of_start += weight * derivatives[:, 0].cpu()
        of_steps += weight * derivatives[:, 1:].cpu()
        density += weight * torch.stack(along, dim=1).detach().cpu()
    # The slope at h(1), also for images with fewer steps.
    density = torch.where(steps.nodes < 1, density, density[:, -1:])
    return of_start, _cumulative(steps.nodes.clamp(max=1), of_steps, density, ends).diff(dim=1)


def _cumulative(nodes: Tensor, of_steps: Tensor, density: Tensor, times: Tensor) -> Tensor:
    """The share of all that happens up to each of the times, [n, T].

    Within a step it is the cubic with the right values and slopes at both ends.

    Args:
        nodes: between the steps, [n, N + 1].
        of_steps: share of each step, [n, N].
        density: share per unit of t at the nodes, [n, N + 1].
        times: [T].
    """
    size = nodes.diff(dim=1)[..., None]
    x = (times - nodes[:, :-1, None]) / size.clamp(min=torch.finfo(size.dtype).tiny)
    x = x.clamp(0, 1)
    first, last = size * density[:, :-1, None], size * density[:, 1:, None]
    rest = of_steps[..., None] - (first + last) / 2
    return (first * (x - x**2 / 2) + last * x**2 / 2 + rest * (3 * x**2 - 2 * x**3)).sum(1)
