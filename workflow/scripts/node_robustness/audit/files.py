"""The files of the audit: `audit.h5`, `judged.h5`, `randomised.h5` and `detection.h5`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from node_robustness.files.hdf5 import put, write_hdf5

# Types alone: a change of one stage's code is none of the other stages' business.
if TYPE_CHECKING:
    from node_robustness.audit.attack_checks import AttackChecks, BatchInvariance
    from node_robustness.audit.detection import Detection
    from node_robustness.audit.gradients import GradientAudit
    from node_robustness.audit.randomisation import Randomised
    from node_robustness.audit.tolerance_matrix import Judged
from node_robustness.attacks.files import Adversarials
from node_robustness.files.records import CLASS, Array, as_array, put_images


def write_audit(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    sources: Sequence[str],
    directions: Sequence[str],
    gradients: GradientAudit,
    invariance: BatchInvariance,
    neighbours: Tensor,
    checks: AttackChecks,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write the audit of a model on the test images `index` with their labels, both [n]."""
    with write_hdf5(path, "audit", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        put(file, "sources", np.array(sources), units="1", description="kinds of gradients, S")
        put(file, "directions", np.array(directions), units="1", description="unit vectors, D")
        loss, share = "1 / intensity", "1"
        for name, values, units, description in (
            ("cosine", gradients.cosine, "1", "of the angle between two gradients, n S S"),
            ("sign_agreement", gradients.sign_agreement, share, "of non-zero pixels, n S S"),
            ("gradient_norm", gradients.gradient_norm, loss, "Euclidean, n S"),
            ("zero_share", gradients.zero_share, share, "pixels of gradient zero, n S"),
            ("precision_cosine", gradients.precision_cosine, "1", "float32 and float64, n S"),
            ("derivative", gradients.derivative, loss, "by gradient, along direction, n S D"),
            ("finite_difference", gradients.finite_difference, loss, "of the loss, n D"),
            (
                "finite_difference_frozen",
                gradients.finite_difference_frozen,
                loss,
                "with the steps of the image that is not moved, n D",
            ),
            ("alone_logit_difference", invariance.logit_difference, "1", "alone and in a batch"),
            ("alone_prediction_differs", invariance.prediction_differs, "1", "likewise"),
            ("alone_nfe_differs", invariance.nfe_differs, "1", "likewise"),
            ("neighbours_changed", neighbours, share, "neighbours of another prediction"),
            ("correct", checks.correct, "1", "clean prediction is right; only those are attacked"),
            ("iterations_success", checks.iterations_success, "1", "N and 2 N iterations, n 2"),
            ("single_step_success", checks.single_step_success, "1", "one step of size epsilon"),
            ("large_epsilon_success", checks.large_epsilon_success, "1", "2 N, linf, epsilon 0.5"),
            ("planted_success", checks.planted_success, "1", "on a model that is weak for certain"),
        ):
            put(file, name, as_array(values), units=units, description=description)


def write_judged(
    path: Path,
    settings: Mapping[str, Any],
    attacked: Adversarials,
    tolerances: Sequence[float],
    clean: Judged,
    adversarial: Judged,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what a model says of clean and adversarial images at E tolerances."""
    with write_hdf5(path, "judged", settings, seconds=seconds, device=device) as file:
        put_images(file, attacked.index, attacked.labels)
        put(file, "success", attacked.success, units="1", description="an adversarial was found")
        put(file, "tolerances", np.array(tolerances), units="1", description="tau, E")
        for side, found in (("clean", clean), ("adversarial", adversarial)):
            predictions, logits = as_array(found.predictions), as_array(found.logits)
            put(file, f"{side}_predictions", predictions, units="1", description=f"{CLASS}; n E")
            put(file, f"{side}_logits", logits, units="1", description="logits, n E K")
        nfe = "function evaluations of `adversarials`, n E"
        put(file, "nfe", as_array(adversarial.nfe), units="1", description=nfe)


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


def write_detection(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Detection,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a detector's scores of the test images `index`, [n], and of their adversarials."""
    with write_hdf5(path, "detection", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        attacked = "clean prediction is right; only those are attacked"
        put(file, "correct", as_array(found.correct), units="1", description=attacked)
        for name, values in found.scores.items():
            description = "largest total variation distance between two tolerances"
            put(file, f"score/{name}", as_array(values), units="1", description=description)
        for name, values in found.success.items():
            description = "fools the classifier at tau"
            put(file, f"success/{name}", as_array(values), units="1", description=description)
