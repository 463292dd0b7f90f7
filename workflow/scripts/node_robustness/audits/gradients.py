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
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.audits.held_steps import HeldSteps
from node_robustness.models.classifier import frozen
from node_robustness.models.differentiation import gradient
from node_robustness.models.network import Network
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
    """S gradients of n images, and the derivatives of the first m of them along D directions.

    The first four are of the gradients in single precision, which attacks follow. The others are
    NaN where the network does not run in double precision.

    Attributes:
        cosine: of the angles between the gradients, float32 [n, S, S]; NaN where one is zero or
            not finite.
        sign_agreement: share of pixels with the same sign among those where both are not zero,
            float32 [n, S, S]; NaN where there are none.
        gradient_norm: Euclidean, float32 [n, S].
        zero_share: share of pixels whose gradient is zero, float32 [n, S].
        precision_cosine: of the angle between the direct gradient in single and in double
            precision, float32 [m].
        derivative: of the loss along the directions, by the gradients, the direct one in double
            precision, float64 [m, S, D].
        finite_difference: the same by central differences of the loss in double precision, float64
            [m, D]; NaN where a direction is zero or a solve failed.
        finite_difference_frozen: the same with the solver's steps held, float64 [m, D]; equal to
            `finite_difference` where steps do not depend on the image, NaN where they cannot be
            held.
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

_DIRECT = {"gradient": "direct"}


def sources(model: Network, tight_tolerance: float, rk4_steps: int) -> Sources:
    """Every way to a gradient that a model has.

    Args:
        model: without an ODE it has one, `direct`, which always comes first.
        tight_tolerance: of `tight`, the same net solved as good as exactly.
        rk4_steps: equal steps of `rk4`, whose steps depend on nothing.
    """
    if model.solver is None:
        tight = {"tight": {"tolerance": tight_tolerance}} if model.adaptive else {}
        return {"direct": _DIRECT, **tight}
    return {
        "direct": _DIRECT,
        "adjoint": {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"},
        "tight": {**_DIRECT, "method": "dopri5", "steps": None, "tolerance": tight_tolerance},
        "rk4": {**_DIRECT, "method": "rk4", "steps": rk4_steps},
    }


def directions(gradients: Sources, random: int) -> list[str]:
    """The names of the directions: random ones, and along each of the gradients."""
    return [*(f"random_{number}" for number in range(random)), *gradients]


def audit_gradients(
    model: Network,
    exact: Network | None,
    images: Tensor,
    labels: Tensor,
    gradients: Sources,
    *,
    differences: int,
    random: int,
    streams: Streams,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> GradientAudit:
    """Audit the gradients of a model for some images.

    Args:
        model: its solver set to the tolerance in question.
        exact: see `in_double_precision`.
        images: float32 [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        gradients: see `sources`.
        differences: m, for how many of the images the loss is differenced, at least 1.
        random: number of random directions, of a normal distribution in pixel space.
        streams: of the images; from them come the random directions.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    parts: dict[str, list[Tensor]] = {}
    with frozen(model):
        for rows in torch.split(torch.arange(len(images)), batch_size):
            single = _gradients(model, images[rows], labels[rows], gradients)
            found = _agreement(single)
            few = rows[rows < differences]
            if len(few) and exact is None:
                found |= _no_derivatives(single[: len(few)], random)
            elif len(few) and exact is not None:
                shape = random, images[0].numel()
                drawn = streams[few].normal(shape, torch.empty((), dtype=_EXACT))
                found |= _derivatives(
                    exact, images[few], labels[few], single[: len(few)], drawn, batch_size
                )
            for name, values in found.items():
                parts.setdefault(name, []).append(values)
            if progress is not None:
                progress(len(rows))
    return GradientAudit(**{name: torch.cat(values) for name, values in parts.items()})


def slope_errors(
    exact: Network | None, images: Tensor, labels: Tensor, *, batch_size: int
) -> Tensor:
    """How far the slope along direct gradients is from what these say, relative to it, [n].

    By central differences of the loss in double precision. NaN where there is no gradient, or a
    solve failed, or the network does not run in double precision.

    Args:
        exact: see `in_double_precision`; its solver set to the tolerance in question.
        images: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    if exact is None:
        return torch.full((len(images),), torch.nan, dtype=_EXACT)
    errors = [torch.empty(0, dtype=_EXACT)]
    with frozen(exact):
        for rows in torch.arange(len(images)).split(batch_size) if len(images) else ():
            batch, answers = _exactly(images[rows], labels[rows])
            (gradient,) = _gradients(exact, batch, answers, {"": _DIRECT}).unbind(1)
            along = _unit(gradient[:, None])
            slope = _differences(_loss(exact, answers), batch, along, batch_size)
            errors.append(((slope[:, 0] - gradient.norm(dim=1)) / slope[:, 0]).abs().cpu())
    return torch.cat(errors)


def cosine_to_direct(
    model: Network, images: Tensor, labels: Tensor, followed: Tensor, *, batch_size: int
) -> Tensor:
    """The cosine of the angle between gradients and the direct ones, float32 [n].

    Args:
        model: its solver set to the tolerance in question.
        images: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        followed: the gradients, [n, C, H, W].
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    cosines = [torch.empty(0)]
    with frozen(model):
        for rows in torch.arange(len(images)).split(batch_size) if len(images) else ():
            direct = _gradients(model, images[rows], labels[rows], {"": _DIRECT})
            other = _to_double(followed[rows].flatten(1)[:, None])
            cosines.append((_unit(direct) * _unit(other)).sum((1, 2)).float().cpu())
    return torch.cat(cosines)


_EXACT = torch.float64


_FEW = 4
"""Images that show whether a network runs in double precision."""

_SMALL = 2**-25
"""A change of a pixel that single precision rounds."""

_LARGEST_BEND = 1e-9
"""How far logits may be from linear over it, relative to the largest: with the rounding of double
precision it is 1e-14, with that of single precision anywhere 1e-8."""


def in_double_precision(model: Network, images: Tensor) -> tuple[Network | None, str]:
    """A copy of a network in double precision, or why there is none, as a sentence.

    Args:
        model: its solver set to the tolerance in question.
        images: float32 [n, C, H, W] in [0, 1], n >= 1.
    """
    # mps has no float64.
    device = "cpu" if model.device.type == "mps" else model.device
    try:
        exact = copy.deepcopy(model).to(device).to(_EXACT).eval()
        reason = _why_single(exact, images[:_FEW].to(device, _EXACT))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a user's code may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
    if not reason:
        return exact, ""
    return None, f"Derivatives are not compared with differences in double precision: {reason}."


@torch.no_grad()
def _why_single(exact: Network, images: Tensor) -> str:
    """Why a network has not computed in double precision; empty if it has."""
    generator = torch.Generator().manual_seed(0)
    step = _SMALL * (0.5 + torch.rand(images.shape, generator=generator)).to(images)
    logits, near, far = (exact(images + steps * step) for steps in (0, 1, 3))
    if logits.dtype != _EXACT:
        return f"its logits remain {str(logits.dtype).removeprefix('torch.')}"
    bend = (far - 3 * near + 2 * logits).abs().amax(1) / logits.abs().amax(1)
    if 2 * (bend > _LARGEST_BEND).sum() > len(bend):
        return "it computes in single precision in part"
    return ""


def _exactly(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    device = "cpu" if images.device.type == "mps" else images.device
    return images.to(device, _EXACT), labels.to(device)


def _agreement(single: Tensor) -> dict[str, Tensor]:
    """How far gradients [n, S, P] agree; see `GradientAudit`."""
    units = _unit(single)
    return {
        "cosine": (units @ units.mT).float(),
        "sign_agreement": _sign_agreement(single.sign()).float(),
        "gradient_norm": single.norm(dim=2).float(),
        "zero_share": (single == 0).double().mean(2).float(),
    }


def _derivatives(
    exact: Network,
    images: Tensor,
    labels: Tensor,
    single: Tensor,
    drawn: Tensor,
    batch_size: int,
) -> dict[str, Tensor]:
    """Derivatives along directions; see `GradientAudit`.

    Args:
        exact: the model in double precision.
        images: [m, C, H, W].
        labels: [m].
        single: their gradients in single precision, the direct ones first, [m, S, P].
        drawn: random directions, [m, R, P].
        batch_size: images at a time.
    """
    images, labels = _exactly(images, labels)
    direct = _gradients(exact, images, labels, {"": _DIRECT})
    single = single.to(direct)
    gradients = torch.cat([direct, single[:, 1:]], dim=1)
    along = _unit(torch.cat([drawn.to(direct), gradients], dim=1))
    cosine = (_unit(single[:, :1]) * _unit(direct)).sum((1, 2))
    differences = _differences(_loss(exact, labels), images, along, batch_size)
    held = torch.full_like(differences, torch.nan)
    if exact.has_steps:
        held = _differences(_frozen_loss(exact, images, labels), images, along, batch_size)
    elif not exact.adaptive:
        held = differences
    return {
        "precision_cosine": cosine.float(),
        "derivative": gradients @ along.mT,
        "finite_difference": differences,
        "finite_difference_frozen": held,
    }


def _no_derivatives(single: Tensor, random: int) -> dict[str, Tensor]:
    """What `_derivatives` finds where there is no network in double precision."""
    images, sources, _ = single.shape
    unknown = torch.full((images, sources, random + sources), torch.nan, dtype=_EXACT)
    return {
        "precision_cosine": unknown[:, 0, 0].float(),
        "derivative": unknown,
        "finite_difference": unknown[:, 0],
        "finite_difference_frozen": unknown[:, 0],
    }


def _gradients(model: Network, images: Tensor, labels: Tensor, gradients: Sources) -> Tensor:
    """The gradients of the cross-entropy, float64 [n, S, C * H * W]."""
    found = []
    for settings in gradients.values():
        at = images.clone().requires_grad_()
        loss = F.cross_entropy(model.at(**settings)(at), labels, reduction="sum")
        found.append(gradient(loss, at).flatten(1))
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


def _loss(model: Network, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss of the images that belong to labels [n], once or k times over, [k n]."""
    return lambda images: F.cross_entropy(
        model(images), labels.repeat(len(images) // len(labels)), reduction="none"
    )


def _frozen_loss(model: Network, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss of other images, once or k times over, solved with the steps of these images."""
    held = HeldSteps.of(model, images)

    def loss(moved: Tensor) -> Tensor:
        answers = labels.repeat(len(moved) // len(labels))
        return F.cross_entropy(held.logits(moved), answers, reduction="none")

    return loss


@torch.no_grad()
def _differences(
    loss: Callable[[Tensor], Tensor], images: Tensor, along: Tensor, batch_size: int
) -> Tensor:
    """Central differences of the loss at images along unit vectors [n, D, P], float64 [n, D].

    Zero where the two losses differ by no more than rounding: of a constant function it would
    otherwise be the rounding that gradients are compared with. Several directions are one batch.
    """
    found = []
    for directions in along.split(max(1, batch_size // len(images)), dim=1):
        unknown = directions.isnan().any(2).T
        change = STEP * directions.nan_to_num(0.0).transpose(0, 1).unflatten(2, images.shape[1:])
        ahead, behind = (
            loss(moved.flatten(0, 1)).view_as(unknown)
            for moved in (images + change, images - change)
        )
        differ = above_rounding((ahead - behind).abs(), torch.maximum(ahead.abs(), behind.abs()))
        # NaN, of a failed solve, stays NaN.
        difference = (ahead - behind) * differ / (2 * STEP)
        found.append(difference.masked_fill(unknown, torch.nan).T)
    return torch.cat(found, dim=1)
