"""The gradient audit: do attacks follow the slope of the function that they attack?

An attack that follows a wrong gradient fails, and the failure looks like robustness. Here the
gradients of the cross-entropy with respect to each image, computed in every way that there is, are
compared with each other, and with differences of the function itself, which need no gradient
(Athalye, Carlini and Wagner, Obfuscated Gradients Give a False Sense of Security, 2018; Carlini et
al., On Evaluating Adversarial Robustness, 2019).

At a tolerance tau the steps of the solver depend on the image, and at a loose one so does the
result. The direct gradient holds the steps constant. Both functions are therefore differenced: the
real one, and the one whose steps are those of the image that is not moved.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.models.classifier import Classifier, frozen
from node_robustness.perturbations.streams import Streams
from node_robustness.statistics.rounding import above_rounding

STEP = torch.finfo(torch.float64).eps ** (1 / 3)
"""The step of the differences, for directions of Euclidean norm one: 6e-6.

The error of a central difference is about step^2 / 6 of the third derivative, and eps / step by
rounding; for a function of scale one their sum is least near eps^(1/3). It is also a thousandth of
the smallest change of a pixel that 8 bits can express, so that a kink of a ReLU, or a step of the
solver that is rejected on one side alone, seldom lies between the two points.
"""


@dataclass(frozen=True)
class GradientAudit:
    """S gradients of n images, and their derivatives along D directions.

    The first four are of the gradients in single precision, those that attacks follow; the
    others of the same model in double precision, where rounding does not matter.

    Attributes:
        cosine: of the angles between the gradients, float32 [n, S, S]; NaN where one is zero or
            not finite.
        sign_agreement: share of pixels with the same sign among those where both are not zero,
            float32 [n, S, S]; NaN where there are none.
        gradient_norm: Euclidean, float32 [n, S].
        zero_share: share of pixels whose gradient is zero, float32 [n, S].
        precision_cosine: of the angle between a gradient in single and in double precision,
            float32 [n, S].
        derivative: of the loss along the directions, by the gradients, float64 [n, S, D].
        finite_difference: the same by central differences of the loss, float64 [n, D]; NaN where
            a direction is zero or a solve failed.
        finite_difference_frozen: the same with the solver's steps held, float64 [n, D]; equal to
            `finite_difference` without an ODE.
    """

    cosine: Tensor
    sign_agreement: Tensor
    gradient_norm: Tensor
    zero_share: Tensor
    precision_cosine: Tensor
    derivative: Tensor
    finite_difference: Tensor
    finite_difference_frozen: Tensor


Sources = Mapping[str, Mapping[str, Any]]
"""By name: changes of the solver's settings (`ode_body.SolverSettings`) that give a gradient."""


def sources(model: Classifier, tight_tolerance: float, rk4_steps: int) -> Sources:
    """Every way to a gradient that a model has.

    Args:
        model: without an ODE it has one, `direct`.
        tight_tolerance: of `tight`, the same net solved as good as exactly.
        rk4_steps: equal steps of `rk4`, whose steps depend on nothing.
    """
    direct = {"gradient": "direct"}
    if model.ode is None:
        return {"direct": direct}
    return {
        "direct": direct,
        "adjoint": {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"},
        "tight": {**direct, "method": "dopri5", "steps": None, "tolerance": tight_tolerance},
        "rk4": {**direct, "method": "rk4", "steps": rk4_steps},
    }


def directions(gradients: Sources, random: int) -> list[str]:
    """The names of the directions: random ones, and along each of the gradients."""
    return [*(f"random_{number}" for number in range(random)), *gradients]


def audit_gradients(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    gradients: Sources,
    *,
    random: int,
    streams: Streams,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> GradientAudit:
    """Audit the gradients of a model for some images.

    Args:
        model: its solver set to the tolerance in question.
        images: float32 [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        gradients: see `sources`.
        random: number of random directions, of a normal distribution in pixel space.
        streams: of the images; from them come the random directions.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    exact = _in_double_precision(model)
    parts = []
    with frozen(model), frozen(exact):
        for rows in torch.split(torch.arange(len(images)), batch_size):
            drawn = streams[rows].normal((random, images[0].numel()), torch.empty((), dtype=_EXACT))
            parts.append(_audit_batch(model, exact, images[rows], labels[rows], gradients, drawn))
            if progress is not None:
                progress(len(rows))
    names = [item.name for item in fields(GradientAudit)]
    return GradientAudit(**{n: torch.cat([getattr(part, n) for part in parts]) for n in names})


_EXACT = torch.float64


def _in_double_precision(model: Classifier) -> Classifier:
    # mps has no float64.
    device = next(model.parameters()).device
    return copy.deepcopy(model).to("cpu" if device.type == "mps" else device).to(_EXACT)


def _audit_batch(
    model: Classifier,
    exact: Classifier,
    images: Tensor,
    labels: Tensor,
    gradients: Sources,
    drawn: Tensor,
) -> GradientAudit:
    single = _gradients(model, images, labels, gradients)
    device = next(exact.parameters()).device
    images, labels = images.to(device, _EXACT), labels.to(device)
    double = _gradients(exact, images, labels, gradients)
    along = _unit(torch.cat([drawn.to(device), double], dim=1))
    units, exact_units = _unit(single), _unit(double)
    return GradientAudit(
        cosine=(units @ units.mT).float(),
        sign_agreement=_sign_agreement(single.sign()).float(),
        gradient_norm=single.norm(dim=2).float(),
        zero_share=(single == 0).double().mean(2).float(),
        precision_cosine=(units.to(device) * exact_units).sum(2).float(),
        derivative=double @ along.mT,
        finite_difference=_differences(_loss(exact, labels), images, along),
        finite_difference_frozen=_differences(_frozen_loss(exact, images, labels), images, along),
    )


def _gradients(model: Classifier, images: Tensor, labels: Tensor, gradients: Sources) -> Tensor:
    """The gradients of the cross-entropy, float64 [n, S, C * H * W]."""
    found = []
    for settings in gradients.values():
        at = images.clone().requires_grad_()
        loss = F.cross_entropy(model.at(**settings)(at), labels, reduction="sum")
        found.append(torch.autograd.grad(loss, at)[0].flatten(1))
    return _to_double(torch.stack(found, dim=1))


def _to_double(values: Tensor) -> Tensor:
    return values.cpu().double() if values.device.type == "mps" else values.double()


def _unit(vectors: Tensor) -> Tensor:
    """Vectors [n, V, P] of Euclidean norm one; NaN where they are zero or not finite."""
    unit: Tensor = vectors / vectors.norm(dim=2, keepdim=True)
    return unit


def _sign_agreement(signs: Tensor) -> Tensor:
    both = signs.abs() @ signs.abs().mT
    return (both + signs @ signs.mT) / 2 / both


def _loss(model: Classifier, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss of images, [n]."""
    return lambda images: F.cross_entropy(model(images), labels, reduction="none")


def _frozen_loss(model: Classifier, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss of other images, solved with the steps that these images take."""
    body = model.ode
    if body is None:
        return _loss(model, labels)
    with torch.no_grad():
        solution = body.solve(model.embed(images), (0.0, 1.0), keep_nodes=True)
    failed = solution.status != 0
    whole = torch.tensor([0.0, 1.0], dtype=torch.float64)
    nodes = [
        whole if failure else own
        for failure, own in zip(failed.tolist(), solution.nodes, strict=True)
    ]

    def loss(moved: Tensor) -> Tensor:
        states = body.solve(model.embed(moved), (0.0, 1.0), nodes=nodes).states[-1]
        losses = F.cross_entropy(model.head(states), labels, reduction="none")
        return losses.masked_fill(failed, torch.nan)

    return loss


@torch.no_grad()
def _differences(loss: Callable[[Tensor], Tensor], images: Tensor, along: Tensor) -> Tensor:
    """Central differences of the loss at images along unit vectors [n, D, P], float64 [n, D].

    Zero where the two losses differ by no more than rounding: of a constant function it would
    otherwise be the rounding that gradients are compared with.
    """
    found = []
    for direction in along.unbind(1):
        unknown = direction.isnan().any(1)
        change = STEP * direction.nan_to_num(0.0).view_as(images)
        ahead, behind = loss(images + change), loss(images - change)
        differ = above_rounding((ahead - behind).abs(), torch.maximum(ahead.abs(), behind.abs()))
        # NaN, of a failed solve, stays NaN.
        difference = (ahead - behind) * differ / (2 * STEP)
        found.append(difference.masked_fill(unknown, torch.nan))
    return torch.stack(found, dim=1)
