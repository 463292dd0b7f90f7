"""An attack on the cost: images that make an adaptive solver evaluate its function more often.

After Haque et al., NODEAttack (2022; AntiNODE, ICCV workshops 2023), who make step sizes small. The
number of evaluations is a whole number without a gradient, and it changes erratically, as steps are
rejected. A random search finds that. The work of a solve (`ode.solve.Solution`), the number of
steps that its errors ask for, has a gradient: it decides between equal numbers of evaluations, and
the attack ends by climbing it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import CLASS, Array, as_array, put_images, say_not_measured
from node_robustness.models.classifier import frozen
from node_robustness.models.differentiation import gradient
from node_robustness.models.network import Network
from node_robustness.models.ode_body import solve_finite
from node_robustness.models.predictions import classes
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.noise import random_directions
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_MOST_REDRAWN, _LEAST_REDRAWN = 0.8, 0.05
"""The share of the pixels that a query draws again, at the start and at the end of the search."""


@dataclass(frozen=True)
class CostSearch:
    """How the attack searches a ball.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation.
        step: norm of one gradient step.
        queries: perturbations that the random search tries.
        iterations: gradient steps from the costliest of them.
    """

    norm: Norm
    epsilon: float
    step: float
    queries: int
    iterations: int


@dataclass(frozen=True)
class AttackedCost:
    """What the solves of n images cost.

    Attributes:
        nfe_clean: function evaluations for the images, int32 [n].
        nfe_noise: for the images with random noise of norm epsilon, int32 [n].
        nfe_attacked: for what the attack ended with, int32 [n].
        clean_predictions: int64 [n].
        attacked_predictions: int64 [n].
        attacked: the costliest images known, float32 [n, C, H, W] in [0, 1].
    """

    nfe_clean: Tensor
    nfe_noise: Tensor
    nfe_attacked: Tensor
    clean_predictions: Tensor
    attacked_predictions: Tensor
    attacked: Tensor

    @classmethod
    def of_nothing(cls, images: Tensor) -> Self:
        """The result for none of the images."""
        nfe = torch.zeros(0, dtype=torch.int32, device=images.device)
        return cls(nfe, nfe, nfe, nfe.long(), nfe.long(), images[:0])


def why_not(model: Network) -> tuple[str, ...]:
    """Why the cost of a network cannot be attacked, in sentences; none if it can."""
    if model.ode is not None and model.adaptive:
        return ()
    return "The steps of this network are not known.", *model.limits


def attack_cost(
    model: Network,
    images: Tensor,
    search: CostSearch,
    streams: Callable[[str], Streams],
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> AttackedCost:
    """Look within balls around images for those that cost most; labels play no part.

    Args:
        model: with an ODE, its adaptive solver set to the tolerance in question.
        images: float [n, C, H, W] in [0, 1].
        search: how to search.
        streams: for a purpose, those of the images.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    parts = [AttackedCost.of_nothing(images)]
    noise, queries = streams("noise"), streams("queries")
    with frozen(model):
        for rows in torch.arange(len(images)).split(batch_size) if len(images) else ():
            clean = _Solved.of(model, images[rows])
            noisy = _Solved.of(model, _drawn(images[rows], search, noise[rows]))
            best = _climbed(model, clean, _queried(model, clean, search, queries[rows]), search)
            parts.append(
                AttackedCost(
                    nfe_clean=clean.nfe,
                    nfe_noise=noisy.nfe,
                    nfe_attacked=best.nfe,
                    clean_predictions=clean.predictions,
                    attacked_predictions=best.predictions,
                    attacked=best.images,
                )
            )
            if progress is not None:
                progress(len(rows))
    names = [item.name for item in fields(AttackedCost)]
    return AttackedCost(
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    )


@dataclass(frozen=True)
class _Solved:
    """Images [m, C, H, W] and what their solves cost, [m]."""

    images: Tensor
    nfe: Tensor
    work: Tensor
    predictions: Tensor

    @classmethod
    def of(cls, model: Network, images: Tensor) -> "_Solved":
        """Solve for images; with a gradient of the work where they require one.

        Evaluations are those of all solves, work is that of the body.
        """
        body = model.ode
        assert body is not None
        with torch.set_grad_enabled(images.requires_grad):
            solution = solve_finite(body, model.embed(images), (0.0, 1.0), keep_work=True)
        if model.solves == 1:
            with torch.no_grad():
                logits = model.head(solution.states[-1].detach())
            return cls(images, solution.nfe.int(), solution.work, classes(logits))
        with torch.no_grad():
            logits = model(images)
        assert model.nfe is not None
        return cls(images, model.nfe, solution.work, classes(logits))

    def or_costlier(self, other: "_Solved") -> "_Solved":
        """For each image the one that costs more; this one where both cost the same."""
        more = (other.nfe > self.nfe) | ((other.nfe == self.nfe) & (other.work > self.work))
        return _Solved(
            images=torch.where(column(more), other.images, self.images),
            nfe=torch.where(more, other.nfe, self.nfe),
            work=torch.where(more, other.work, self.work),
            predictions=torch.where(more, other.predictions, self.predictions),
        )

    def uphill(self, model: Network) -> Tensor:
        """The gradient of the work, [m, C, H, W]."""
        images = self.images.clone().requires_grad_()
        return gradient(_Solved.of(model, images).work, images)


def _drawn(images: Tensor, search: CostSearch, streams: Streams) -> Tensor:
    moved = images + search.epsilon * random_directions(search.norm, images, streams)
    return into_ball(images, moved, search.norm, search.epsilon)


def _queried(model: Network, clean: _Solved, search: CostSearch, streams: Streams) -> _Solved:
    """The costliest of a random search, which draws ever fewer pixels of the best image again."""
    best, shape = clean, clean.images.shape[1:]
    for query in range(search.queries):
        share = max(_LEAST_REDRAWN, _MOST_REDRAWN * (1 - query / search.queries))
        redrawn = streams.uniform(shape, clean.images) < share
        moved = torch.where(redrawn, _drawn(clean.images, search, streams), best.images)
        inside = into_ball(clean.images, moved, search.norm, search.epsilon)
        best = best.or_costlier(_Solved.of(model, inside))
    return best


def _climbed(model: Network, clean: _Solved, start: _Solved, search: CostSearch) -> _Solved:
    """The costliest of the iterates that climb the work."""
    best = current = start
    for _ in range(search.iterations):
        moved = current.images + search.step * search.norm.direction(current.uphill(model))
        inside = into_ball(clean.images, moved, search.norm, search.epsilon)
        current = _Solved.of(model, inside)
        best = best.or_costlier(current)
    return best


def write_cost(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    images: Tensor,
    found: AttackedCost,
    lacks: Iterable[str] = (),
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what an attack on the cost found for test images, rows `index`, [n].

    Args:
        path: see `files.hdf5.write_hdf5`.
        settings: see `files.hdf5.write_hdf5`.
        index: rows of the images in the test set.
        labels: [n].
        images: [n, C, H, W].
        found: for these images.
        lacks: why there are none, in sentences.
        seconds: wall time.
        device: that computed it.
    """
    change = (found.attacked - images).flatten(1)
    answers = torch.from_numpy(labels).to(found.clean_predictions.device)
    correct = found.clean_predictions == answers
    evaluations = "evaluations of the ODE function"
    with write_hdf5(path, "cost", settings, seconds=seconds, device=device) as file:
        say_not_measured(file, lacks)
        put_images(file, index, labels)
        for name, values, units, description in (
            ("nfe_clean", found.nfe_clean, "1", f"{evaluations}, clean image"),
            ("nfe_noise", found.nfe_noise, "1", f"{evaluations}, image with random noise"),
            ("nfe_attacked", found.nfe_attacked, "1", f"{evaluations}, attacked image"),
            ("clean_predictions", found.clean_predictions, "1", CLASS),
            ("attacked_predictions", found.attacked_predictions, "1", CLASS),
            (
                "success",
                correct & (found.attacked_predictions != answers),
                "1",
                "right when clean, misclassified when attacked",
            ),
            ("perturbation_linf", change.abs().amax(1), "intensity", "largest change of a pixel"),
            ("perturbation_l2", change.norm(dim=1), "intensity", "Euclidean norm of the change"),
            ("attacked", found.attacked, "intensity", "images in [0, 1], n C H W"),
        ):
            put(file, name, as_array(values), units=units, description=description)
