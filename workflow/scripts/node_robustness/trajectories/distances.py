"""Follow the hidden state h(t) of clean and adversarial images, and their distance.

h(t) is the true state of the ODE block, before the head (the published figures were taken after
the head's normalisation). Between the accepted nodes of a solve the states are those of its
quartic dense output, which at a large tolerance may be two quartics for the whole interval: the
nodes are kept so that this can be seen.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.models import Classifier

_STATES_BYTES = 2**28  # of states in memory at a time


@dataclass(frozen=True)
class Trajectories:
    """How N pairs of images move apart over T times.

    Attributes:
        times: float64 [T], in [0, 1].
        l2: |h_adv(t) - h(t)|, float32 [N, T].
        relative_l2: the same over |h(t)|.
        cosine: of the angle between h(t) and h_adv(t).
        clean_nodes: accepted times of the clean solve, one float64 array a pair.
        adversarial_nodes: the same of the adversarial solve.
        clean_states: h(t) of the first M pairs, [M, T, C, H, W].
        adversarial_states: the same of the adversarial images.
    """

    times: npt.NDArray[np.float64]
    l2: npt.NDArray[np.float32]
    relative_l2: npt.NDArray[np.float32]
    cosine: npt.NDArray[np.float32]
    clean_nodes: list[npt.NDArray[np.float64]]
    adversarial_nodes: list[npt.NDArray[np.float64]]
    clean_states: npt.NDArray[np.floating]
    adversarial_states: npt.NDArray[np.floating]


@torch.no_grad()
def follow(
    model: Classifier,
    clean: Tensor,
    adversarial: Tensor,
    *,
    times: int,
    states: int,
    precision: str,
    progress: Callable[[int], object] | None = None,
) -> Trajectories:
    """Follow pairs of images through an ODE body.

    Args:
        model: in evaluation mode, its solver set to the tolerance to be looked at.
        clean: images [N, C, H, W] in [0, 1]; N may be 0.
        adversarial: the perturbed images, likewise.
        times: number of equally spaced times in [0, 1].
        states: pairs whose states are kept.
        precision: `float16` or `float32`, of the kept states.
        progress: called with the number of pairs of each finished batch.

    Raises:
        ValueError: the model has no ODE.
    """
    body = model.ode
    if body is None:
        raise ValueError("a model without an ODE has no continuous state to follow")
    grid = np.linspace(0.0, 1.0, times)
    shape = tuple(model.embed(clean.new_zeros(1, *clean.shape[1:])).shape[1:])
    distances: list[npt.NDArray[np.float32]] = [np.empty((3, 0, times), np.float32)]
    nodes: tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.float64]]] = ([], [])
    kept: list[npt.NDArray[np.floating]] = [np.empty((2, 0, times, *shape), precision)]
    room = max(1, _STATES_BYTES // (2 * times * int(np.prod(shape)) * 4))
    for pairs in torch.split(torch.arange(len(clean)), room) if len(clean) else ():
        together = torch.cat([clean[pairs], adversarial[pairs]])
        solution = body.solve(model.embed(together), tuple(grid), keep_nodes=True)
        before, after = solution.states[:, : len(pairs)], solution.states[:, len(pairs) :]
        distances.append(_distances(before.flatten(2), after.flatten(2)))
        for side, part in zip(nodes, (slice(len(pairs)), slice(len(pairs), None)), strict=True):
            side.extend(n.cpu().numpy() for n in solution.nodes[part])
        wanted = max(0, min(states - int(pairs[0]), len(pairs)))
        both = torch.stack([before[:, :wanted], after[:, :wanted]]).transpose(1, 2)
        kept.append(both.cpu().numpy().astype(precision))
        if progress is not None:
            progress(len(pairs))
    l2, relative, cosine = np.concatenate(distances, axis=1)
    clean_states, adversarial_states = np.concatenate(kept, axis=1)
    return Trajectories(grid, l2, relative, cosine, *nodes, clean_states, adversarial_states)


def _distances(before: Tensor, after: Tensor) -> npt.NDArray[np.float32]:
    """L2, relative L2 and cosine of states [T, n, D], as [3, n, T]."""
    l2 = torch.linalg.vector_norm(after - before, dim=2)
    relative = l2 / torch.linalg.vector_norm(before, dim=2)
    # Rounding may take it beyond 1, where the angle is not a number.
    cosine = F.cosine_similarity(before, after, dim=2).clamp(-1, 1)
    stacked = torch.stack([l2, relative, cosine]).transpose(1, 2)
    return np.asarray(stacked.cpu().numpy(), dtype=np.float32)
