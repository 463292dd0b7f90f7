"""The growth of a perturbation, and the part that the linearised dynamics explain.

With d = h' - h of a perturbed and a clean run of h' = f(t, h), and J = df/dh at the clean state:

- the rate of growth is d/dt log|d| = <d, f(t, h') - f(t, h)> / <d, d>;
- J explains <d, J d> / <d, d> of the rate; the rest is nonlinear;
- this quotient lies, for any d, between the extreme eigenvalues of (J + J^T) / 2, the logarithmic
  norms of J and -J (Dahlquist 1958; Soederlind, The logarithmic norm, 2006);
- over [0, 1], the linearised flow M = dh(1)/dh(0) stretches a direction v at the finite-time
  Lyapunov exponent log(|M v| / |v|), which is at most the log of the largest singular value of M.

M is the derivative of the numerical solution with the accepted steps of the clean image held fixed.
Jacobians are never formed. Their products with vectors come from forward (jvp) and backward (vjp)
differentiation, and the extreme values from Krylov spaces, which approach them from within.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from node_robustness.models.classifier import ResidualBody
from node_robustness.models.differentiation import gradients
from node_robustness.models.ode_body import ODEBody
from node_robustness.ode.parts import Parts, spread
from node_robustness.ode.solve import Status, solve_parts
from node_robustness.statistics.rounding import above_rounding
from node_robustness.trajectories.linearisation import Linearisation, Map, by_autograd, linearise
from node_robustness.trajectories.runs import CLEAN, Cost, Runs

LANCZOS_STEPS = 20
_SPACE_BYTES = 2**28  # of Krylov spaces in memory at a time
_MOST_ROWS = 4096  # linearised at a time: dynamics may be larger than their state
POWER_ITERATIONS = 20


def rates(body: ODEBody | ResidualBody, runs: Runs) -> dict[str, Tensor]:
    """The rate of growth of each perturbation, [n, T] in 1 / time, by the name of its run.

    For a residual body it is the logarithm of the ratio of the distances after and before a block,
    over the block's share of [0, 1]. NaN at the start, and where the distance is zero.

    Args:
        body: of the model.
        runs: with the clean run.
    """
    if isinstance(body, ResidualBody):
        return {name: _between_blocks(runs, name) for name in runs.perturbed}
    clean = runs.states[CLEAN]
    function = body.function.bind(clean[0])
    found: dict[str, list[Tensor]] = {name: [] for name in runs.perturbed}
    for k, time in enumerate(runs.times):
        t = _at(time, clean)
        slope = function(t, clean[k])
        for name, collected in found.items():
            moved = runs.states[name][k]
            d = moved - clean[k]
            collected.append(_rayleigh_quotient(d, function(t, moved) - slope, clean[k]))
    return {name: torch.stack(collected, dim=1) for name, collected in found.items()}


def _between_blocks(runs: Runs, name: str) -> Tensor:
    clean = runs.states[CLEAN].flatten(2)
    size = torch.linalg.vector_norm(runs.states[name].flatten(2) - clean, dim=2)
    known = above_rounding(size, torch.linalg.vector_norm(clean, dim=2))
    logarithm = torch.where(known, size, torch.nan).log()
    shares = runs.times.diff().to(logarithm)
    growth = logarithm.diff(dim=0) / shares[:, None]
    growth = torch.where(torch.isfinite(growth), growth, torch.nan)
    return torch.cat([torch.full_like(growth[:1], torch.nan), growth]).T


def jacobian_quotients(body: ODEBody, runs: Runs) -> dict[str, Tensor]:
    """The part of the rates that the Jacobian explains, <d, J d> / <d, d>, [n, T], by run."""
    clean = runs.states[CLEAN]
    found: dict[str, list[Tensor]] = {name: [] for name in runs.perturbed}
    for k, time in enumerate(runs.times):
        push = linearise(body.function, _at(time, clean), clean[k]).push
        for name, collected in found.items():
            d = runs.states[name][k] - clean[k]
            collected.append(_rayleigh_quotient(d, push(d), clean[k]))
    return {name: torch.stack(collected, dim=1) for name, collected in found.items()}


def logarithmic_norms(body: ODEBody, runs: Runs, start: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and largest eigenvalues of (J + J^T) / 2 along the clean runs, both [n, T].

    Args:
        body: whose function has the Jacobian J.
        runs: with the clean run.
        start: of the Krylov spaces, [n, C, H, W], nonzero, preferably random.
    """
    clean = runs.states[CLEAN]
    times, images = clean.shape[:2]
    # All times are rows of one batch: a small network costs as much for one row as for many.
    states, start = clean.flatten(0, 1), start.repeat(times, 1, 1, 1)
    t = runs.times.to(clean.dtype).to(clean.device).repeat_interleave(images)
    at_once = _SPACE_BYTES // (2 * LANCZOS_STEPS * states[0].numel() * states.element_size())
    found = []
    for rows in torch.arange(len(states)).split(min(max(1, at_once), _MOST_ROWS)):
        near = linearise(body.function, t[rows], states[rows])

        def symmetric_part(v: Tensor, near: Linearisation = near) -> Tensor:
            return (near.push(v) + near.pull(v)) / 2

        found.append(extreme_eigenvalues(symmetric_part, start[rows]))
    smallest, largest = (
        torch.cat(values).view(times, images).T for values in zip(*found, strict=True)
    )
    return smallest, largest


def extreme_eigenvalues(
    symmetric: Map, start: Tensor, steps: int = LANCZOS_STEPS
) -> tuple[Tensor, Tensor]:
    """The smallest and largest eigenvalues of a symmetric map, sample by sample, both [n].

    The method of Lanczos with full reorthogonalisation: the extreme eigenvalues of the map in a
    Krylov space lie between the true ones and approach them as the space grows.

    Args:
        symmetric: a map of states like `start`.
        start: [n, ...], nonzero.
        steps: largest dimension of the space.
    """
    steps = min(steps, start[0].numel())
    vector = start / spread(_norm(start), start)
    space, diagonal, off_diagonal = [vector], [], []
    for step in range(steps):
        image = symmetric(space[-1])
        diagonal.append(_inner(image, space[-1]))
        if step == steps - 1:
            break
        for _ in range(2):  # twice is enough (Parlett, The Symmetric Eigenvalue Problem, 6.9)
            for known in space:
                image = image - known * spread(_inner(image, known), image)
        length = _norm(image)
        # A complete space is invariant under the map: only rounding is left.
        scale = torch.stack(diagonal).abs().amax(0)
        done = length <= 1e3 * torch.finfo(image.dtype).eps * scale
        length = torch.where(done, torch.zeros_like(length), length)
        off_diagonal.append(length)
        unit = image / spread(torch.where(done, torch.ones_like(length), length), image)
        space.append(torch.where(spread(done, image), torch.zeros_like(image), unit))
    return _ritz(diagonal, off_diagonal)


def _ritz(diagonal: Sequence[Tensor], off_diagonal: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The extreme eigenvalues of tridiagonal matrices [n, k, k]."""
    main = torch.stack(list(diagonal), dim=1).cpu().double()
    if off_diagonal:
        off = torch.stack(list(off_diagonal), dim=1).cpu().double()
        # After the end of a complete space there are zeros, which are not eigenvalues of the map.
        complete = (off == 0).cumsum(1) > 0
        main[:, 1:] = torch.where(complete, main[:, :1], main[:, 1:])
        off = off.masked_fill(complete, 0)
        matrix = torch.diag_embed(main) + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    else:
        matrix = torch.diag_embed(main)
    known = torch.isfinite(matrix).flatten(1).all(1)
    values = torch.linalg.eigvalsh(torch.where(known[:, None, None], matrix, 0.0))
    values = torch.where(known[:, None], values, torch.nan).to(diagonal[0])
    return values[:, 0], values[:, -1]


class LinearisedFlow:
    """The linearised flow M = dh(1)/dh(0) of n images, as products with vectors.

    Args:
        body: of the model.
        start: h(0), [n, C, H, W].
        cost: of the clean runs from there, whose steps are held fixed; None for a residual body.
    """

    def __init__(self, body: ODEBody | ResidualBody, start: Tensor, cost: Cost | None) -> None:
        self.body = body
        self.failed = ~torch.isfinite(start).flatten(1).all(1)
        # A solve takes no state that is not finite.
        self.start = torch.where(spread(self.failed, start), 0, start)
        self.nodes: list[Tensor] = []
        if cost is not None:
            self.failed = self.failed | (cost.status.to(start.device) != Status.SUCCESS)
            whole = torch.tensor([0.0, 1.0], dtype=torch.float64)
            self.nodes = [
                whole if failure else own
                for failure, own in zip(self.failed.tolist(), cost.nodes, strict=True)
            ]

    def push(self, v: Tensor) -> Tensor:
        """M v, [n, C, H, W], by one solve of h and v together."""
        if isinstance(self.body, ResidualBody):
            return by_autograd(self.body, self.start).push(v)
        function, method = self.body.function, self.body.settings.method

        def coupled(t: Tensor, parts: Parts) -> Parts:
            h, w = parts
            near = linearise(function, t, h)
            return near.value, near.push(w)

        solution = solve_parts(
            coupled, (self.start, v), (0.0, 1.0), method=method, nodes=self.nodes
        )
        return solution.parts[1][-1]

    def pull(self, w: Tensor) -> Tensor:
        """M^T w, [n, C, H, W], by backpropagation through the steps of the solve."""
        with torch.enable_grad():
            inputs = self.start.detach().requires_grad_()
            if isinstance(self.body, ResidualBody):
                final = self.body(inputs)
            else:
                final = self.body.solve(inputs, (0.0, 1.0), nodes=self.nodes).states[-1]
            return gradients(final, [inputs], w)[0]

    def exponents_along(self, v: Tensor) -> Tensor:
        """The finite-time exponents log(|M v| / |v|) over [0, 1], [n].

        Args:
            v: perturbations of the start, [n, C, H, W]; the exponent is NaN where one is no larger
                than rounding.
        """
        size = _norm(v)
        size = torch.where(above_rounding(size, _norm(self.start)), size, torch.nan)
        unit = v / spread(size, v)
        known = torch.isfinite(unit).flatten(1).all(1)
        pushed = self.push(torch.where(spread(known, unit), unit, torch.zeros_like(unit)))
        return self._where_known(torch.where(known, _norm(pushed).log(), torch.nan))

    def largest_exponents(self, start: Tensor, iterations: int = POWER_ITERATIONS) -> Tensor:
        """The largest finite-time exponents, [n], from below, by power iteration with M^T M.

        Args:
            start: of the iteration, [n, C, H, W], nonzero, preferably random.
            iterations: at least one.
        """
        v = start / spread(_norm(start), start)
        for _ in range(iterations - 1):
            pulled = self.pull(self.push(v))
            v = pulled / spread(_norm(pulled), pulled)
            # A solve takes no state that is not finite; without a direction there is no exponent.
            v = torch.where(spread(torch.isfinite(v).flatten(1).all(1), v), v, 0)
        return self._where_known(_norm(self.push(v)).log())

    def _where_known(self, values: Tensor) -> Tensor:
        return torch.where(self.failed | ~torch.isfinite(values), torch.nan, values)


def _at(time: Tensor, states: Tensor) -> Tensor:
    """One time for all n samples of states [T, n, ...], [n]."""
    return time.to(states.dtype).to(states.device).expand(states.shape[1])


def _rayleigh_quotient(d: Tensor, image: Tensor, state: Tensor) -> Tensor:
    """<d, image> / <d, d>, [n]; NaN where the difference d of states is no more than rounding."""
    # The squares of small norms may underflow.
    size = _norm(d)
    size = torch.where(above_rounding(size, _norm(state)), size, torch.nan)
    unit = d / spread(size, d)
    return _inner(unit, image) / size


def _norm(v: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return size


def _inner(u: Tensor, v: Tensor) -> Tensor:
    return (u * v).flatten(1).sum(1)
