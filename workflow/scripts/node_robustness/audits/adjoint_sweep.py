"""The paper's attack with its adjoint solved at other tolerances than the forward solve.

The forward tolerance stays, and with it the network that is attacked. What robust accuracy gains
when only the backward tolerance rises is masked by an inaccurate gradient. What the most accurate
adjoint leaves above the direct gradient is masked by the difference between the gradient of the
equation and that of the steps that the solver took.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from node_robustness.attacks.descent import cross_entropy
from node_robustness.attacks.engine import attack
from node_robustness.attacks.method import Method, Pass
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images, say_not_measured
from node_robustness.models.classifier import frozen
from node_robustness.models.network import Network


@dataclass(frozen=True)
class Sweep:
    """What an attack found on n images with G gradients: the direct one, then the adjoints.

    Attributes:
        backward_tolerances: of the gradients, NaN for the direct one, float64 [G].
        correct: whether the clean prediction is right; only those are attacked, bool [n].
        success: whether an adversarial example was found, bool [n, G].
        perturbation_linf: largest change of a pixel, float32 [n, G].
        perturbation_l2: Euclidean norm of the change, float32 [n, G].
        cosine: of the angle with the direct gradient of the cross-entropy at the clean image,
            float32 [n, G]; NaN where one of them is zero or not finite.
    """

    backward_tolerances: Array
    correct: Tensor
    success: Tensor
    perturbation_linf: Tensor
    perturbation_l2: Tensor
    cosine: Tensor

    @classmethod
    def of_nothing(cls, backward_tolerances: Sequence[float]) -> Self:
        """The sweep of no image."""
        tolerances = np.array([np.nan, *backward_tolerances])
        none = torch.zeros(0, len(tolerances))
        return cls(tolerances, none[:, 0].bool(), none.bool(), none, none, none)


def why_not(model: Network) -> tuple[str, ...]:
    """Why a network has no adjoint, in sentences; none if it has one."""
    return () if model.solver is not None else ("No adjoint is known.", *model.limits)


def sweep(
    model: Network,
    images: Tensor,
    labels: Tensor,
    method: Method,
    backward_tolerances: Sequence[float],
    *,
    adjoint_norm: Literal["full", "seminorm"],
    index: Sequence[int],
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Sweep:
    """Attack with the direct gradient, and with the adjoint solved at each backward tolerance.

    Args:
        model: with an ODE, solved at the forward tolerance.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        method: the attack.
        backward_tolerances: of the adjoint.
        adjoint_norm: see `SolverSettings`.
        index: rows of the images in the test set, [n].
        seed: see `attacks.engine.attack`.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with numbers of images, in sum n for every gradient.
    """
    direct = model.at(gradient="direct")
    adjoint = model.at(gradient="adjoint", adjoint_norm=adjoint_norm)
    sources = [direct, *(adjoint.at(adjoint_tolerance=tau) for tau in backward_tolerances)]
    results = [
        attack(
            source,
            images,
            labels,
            method,
            index=index,
            seed=seed,
            batch_size=batch_size,
            progress=progress,
        )
        for source in sources
    ]
    change = torch.stack([found.adversarials - images for found in results], 1).flatten(2)
    units = torch.stack([_unit_gradients(s, images, labels, batch_size) for s in sources], 1)
    return Sweep(
        backward_tolerances=np.array([np.nan, *backward_tolerances]),
        correct=results[0].attacked,
        success=torch.stack([found.success for found in results], 1),
        perturbation_linf=change.abs().amax(2),
        perturbation_l2=change.norm(dim=2),
        cosine=(units * units[:, :1]).sum(2).float(),
    )


def _unit_gradients(model: Network, images: Tensor, labels: Tensor, batch_size: int) -> Tensor:
    """Directions of the gradients of the cross-entropy, [n, C * H * W]; NaN for a zero one."""
    found = []
    with frozen(model):
        for batch, answers in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            passed = Pass.over(model, batch, differentiable=True)
            gradient = passed.gradient(cross_entropy(passed.logits, answers)).flatten(1)
            # In float32 the squares of a confident model's gradients vanish; mps has no float64.
            gradient = gradient.cpu().double()
            found.append(gradient / gradient.norm(dim=1, keepdim=True))
    return torch.cat(found)


def write_sweep(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Sweep,
    lacks: Iterable[str] = (),
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a sweep over the test images `index`, [n], and why there are none, in sentences."""
    with write_hdf5(path, "adjoint_sweep", settings, seconds=seconds, device=device) as file:
        say_not_measured(file, lacks)
        put_images(file, index, labels)
        tolerances = "of the backward solve, by column; NaN: the direct gradient"
        put(
            file,
            "backward_tolerances",
            found.backward_tolerances,
            units="1",
            description=tolerances,
        )
        for name, values, units, description in (
            ("correct", found.correct, "1", "clean prediction is right; only those are attacked"),
            ("success", found.success, "1", "an adversarial example was found"),
            (
                "perturbation_linf",
                found.perturbation_linf,
                "intensity",
                "largest change of a pixel",
            ),
            ("perturbation_l2", found.perturbation_l2, "intensity", "Euclidean norm of the change"),
            ("cosine", found.cosine, "1", "with the direct gradient at the clean image"),
        ):
            put(file, name, as_array(values), units=units, description=description)
