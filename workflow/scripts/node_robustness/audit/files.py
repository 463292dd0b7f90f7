"""The file of an audit, audit.h5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images

if TYPE_CHECKING:
    from torch import Tensor

    from node_robustness.audit.attack_checks import AttackChecks, BatchInvariance
    from node_robustness.audit.gradients import GradientAudit


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
            ("alone_prediction_differs", invariance.prediction_differs, "1", "alone, in a batch"),
            ("alone_nfe_differs", invariance.nfe_differs, "1", "alone, in a batch"),
            ("neighbours_changed", neighbours, share, "neighbours of another prediction"),
            ("correct", checks.correct, "1", "clean prediction is right; only those are attacked"),
            ("iterations_success", checks.iterations_success, "1", "N and 2 N iterations, n 2"),
            ("single_step_success", checks.single_step_success, "1", "one step of size epsilon"),
            ("large_epsilon_success", checks.large_epsilon_success, "1", "2 N, linf, epsilon 0.5"),
            ("planted_success", checks.planted_success, "1", "on a model that is weak for certain"),
        ):
            put(file, name, as_array(values), units=units, description=description)
