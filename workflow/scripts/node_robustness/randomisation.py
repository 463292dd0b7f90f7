"""A tolerance that is drawn anew for every image and every pass, as a defence, and its attackers.

Randomness makes a gradient noisy, and attackers who take it for exact fail. Those who average it
over what is random do not: expectation over transformation (Athalye, Engstrom, Ilyas and Kwok,
Synthesizing Robust Adversarial Examples, 2018; as an attack on randomised defences: Athalye,
Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, 2018, section 4.2).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.attacks import Streams, classes, frozen
from node_robustness.models import Classifier, solving
from node_robustness.norms import Norm

Draw = Callable[[Streams, int], Tensor]
"""Tolerances for the images of some streams, k for each: float64 [n, k] on the CPU."""


def log_uniform(low: float, high: float) -> Draw:
    """Tolerances whose logarithms are uniformly distributed between two bounds."""
    start, length = math.log(low), math.log(high) - math.log(low)

    def draw(streams: Streams, count: int) -> Tensor:
        like = torch.empty((), dtype=torch.float64)
        return torch.exp(start + length * streams.uniform((count,), like))

    return draw


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
    model: Classifier,
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
    judges = draw(streams("evaluation"), evaluation_draws)
    fresh, eot = streams("fresh"), streams("eot")
    parts = []
    with frozen(model), solving(model, gradient="direct"):
        for rows in torch.split(torch.arange(len(images)), max(1, batch_size // draws)):
            batch, answers = images[rows], labels[rows]
            made = {
                "clean": batch,
                "fixed": climb(model, batch, answers, ascent, partial(known.__getitem__, rows)),
                "fresh": climb(model, batch, answers, ascent, partial(draw, fresh[rows], 1)),
                "eot": climb(model, batch, answers, ascent, partial(draw, eot[rows], draws)),
            }
            wrong = {
                name: misclassified(model, attacked, answers, judges[rows]).float().mean(1)
                for name, attacked in made.items()
            }
            own = misclassified(model, made["fixed"], answers, known[rows])
            parts.append((wrong, own.squeeze(1)))
            if progress is not None:
                progress(len(rows))
    return Randomised(
        wrong={name: torch.cat([wrong[name] for wrong, _ in parts]) for name in parts[0][0]},
        fixed_tolerance=known.squeeze(1),
        fixed_wrong=torch.cat([own for _, own in parts]),
    )


def climb(
    model: Classifier,
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


def expected_gradient(
    model: Classifier, images: Tensor, labels: Tensor, tolerances: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean over tolerances [n, k] of the loss, [n], and of its gradient, [n, C, H, W].

    A solve that fails has an infinite loss and no gradient.
    """
    count = tolerances.shape[1]
    at = images.repeat_interleave(count, 0).requires_grad_()
    with solving(model, tolerance=tolerances.flatten()):
        losses = F.cross_entropy(model(at), labels.repeat_interleave(count), reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), at)
    losses = losses.detach().nan_to_num(nan=torch.inf).view(-1, count)
    gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
    return losses.mean(1), gradient.unflatten(0, (-1, count)).mean(1)


@torch.no_grad()
def misclassified(model: Classifier, images: Tensor, labels: Tensor, tolerances: Tensor) -> Tensor:
    """Whether images are misclassified at tolerances of their own, both [n, m]."""
    found = []
    for column in tolerances.unbind(1):
        with solving(model, tolerance=column):
            found.append(classes(model(images)) != labels)
    return torch.stack(found, dim=1)
