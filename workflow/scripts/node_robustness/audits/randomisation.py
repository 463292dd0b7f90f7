"""A tolerance that is drawn for every image and every pass, as a defence, and its attackers.

Randomness makes a gradient noisy, and attackers who take it for exact fail. Those who average it
over what is random do not (`attacks.expectation`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from node_robustness.attacks.expectation import Draw, expected_gradient
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images
from node_robustness.models.classifier import frozen
from node_robustness.models.network import Network
from node_robustness.models.predictions import classes
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class Ascent:
    """How the attackers climb: all steps are taken, and the iterate of the largest loss counts.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation.
        step: norm of one step.
        iterations: steps.
    """

    norm: Norm
    epsilon: float
    step: float
    iterations: int


@dataclass(frozen=True)
class Randomised:
    """What a randomised tolerance was worth on n images.

    Attributes:
        wrong: for `clean`, and for the attackers `fixed`, `fresh` and `eot`: the share of the
            evaluation's draws for which the image is misclassified, float32 [n].
        fixed_tolerance: the draw that the attacker `fixed` knows, float64 [n].
        fixed_wrong: whether his image is misclassified at that draw, bool [n].
    """

    wrong: dict[str, Tensor]
    fixed_tolerance: Tensor
    fixed_wrong: Tensor


def attack_randomised(
    model: Network,
    images: Tensor,
    labels: Tensor,
    ascent: Ascent,
    draw: Draw,
    *,
    draws: int,
    evaluation_draws: int,
    streams: Callable[[str], Streams],
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Randomised:
    """Attack a model whose tolerance is drawn for every image and pass.

    The attackers have direct gradients. `fixed` takes one draw for the defence's only one; `fresh`
    knows that it is random and follows the gradient of a new draw in every step; `eot` follows the
    mean of several new draws. All meet the same draws in the evaluation.

    Args:
        model: with an ODE whose steps the tolerance bounds.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        ascent: how they climb.
        draw: the distribution of the tolerance.
        draws: over how many `eot` averages, at every step.
        evaluation_draws: of every image.
        streams: for a purpose, those of the images.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    known = draw(streams("fixed"), 1)
    tolerances = draw(streams("evaluation"), evaluation_draws)
    fresh, eot = streams("fresh"), streams("eot")
    parts = []
    solved = model.at(gradient="direct")
    with frozen(model):
        for rows in torch.split(torch.arange(len(images)), max(1, batch_size // draws)):
            batch, answers = images[rows], labels[rows]
            made = {
                "clean": batch,
                "fixed": climb(solved, batch, answers, ascent, partial(known.__getitem__, rows)),
                "fresh": climb(solved, batch, answers, ascent, partial(draw, fresh[rows], 1)),
                "eot": climb(solved, batch, answers, ascent, partial(draw, eot[rows], draws)),
            }
            wrong = {
                name: misclassified(solved, attacked, answers, tolerances[rows]).float().mean(1)
                for name, attacked in made.items()
            }
            own = misclassified(solved, made["fixed"], answers, known[rows])
            parts.append((wrong, own.squeeze(1)))
            if progress is not None:
                progress(len(rows))
    return Randomised(
        wrong={name: torch.cat([wrong[name] for wrong, _ in parts]) for name in parts[0][0]},
        fixed_tolerance=known.squeeze(1),
        fixed_wrong=torch.cat([own for _, own in parts]),
    )


def climb(
    model: Network,
    images: Tensor,
    labels: Tensor,
    ascent: Ascent,
    draw: Callable[[], Tensor],
) -> Tensor:
    """Iterates with the largest expected loss, [n, C, H, W].

    Args:
        model: its parameters frozen.
        images: float [n, C, H, W] in [0, 1]; the start.
        labels: int64 [n].
        ascent: how to climb.
        draw: gives the tolerances of one step, [n, k].
    """
    current, best = images, images.clone()
    highest = torch.full((len(images),), -torch.inf, device=images.device)
    for iteration in range(ascent.iterations + 1):
        losses, gradient = expected_gradient(model, current, labels, draw())
        # The first iterate is the image itself, which is no attack.
        better = (losses > highest) & (iteration > 0)
        best[better], highest[better] = current[better], losses[better].to(highest.dtype)
        moved = current + ascent.step * ascent.norm.direction(gradient)
        change = ascent.norm.project(moved - images, ascent.epsilon)
        current = (images + change).clamp(0, 1)
    return best


@torch.no_grad()
def misclassified(model: Network, images: Tensor, labels: Tensor, tolerances: Tensor) -> Tensor:
    """Whether images are misclassified, each at its own tolerances, both [n, m]."""
    found = [
        classes(model.at(tolerance=column)(images)) != labels for column in tolerances.unbind(1)
    ]
    return torch.stack(found, dim=1)


def write_randomised(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Randomised,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what a randomised tolerance was worth on the test images `index`, [n]."""
    with write_hdf5(path, "randomised", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        for name, wrong in found.wrong.items():
            description = "share of draws at which the image is misclassified"
            put(file, f"wrong/{name}", as_array(wrong), units="1", description=description)
        for name, values, description in (
            ("fixed_tolerance", found.fixed_tolerance, "the draw that the attacker `fixed` knows"),
            ("fixed_wrong", found.fixed_wrong, "his image is misclassified at that draw"),
        ):
            put(file, name, as_array(values), units="1", description=description)
