"""The file of an audit, audit.h5."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images, say_not_measured

if TYPE_CHECKING:
    import h5py

    from node_robustness.audits.network import NetworkAudit, NormAudit


def write_audit(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    audit: NetworkAudit,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write the audit of a model on the test images `index` with their labels, both [n]."""
    with write_hdf5(path, "audit", settings, seconds=seconds, device=device) as file:
        say_not_measured(file, audit.lacks)
        put_images(file, index, labels)
        for name, names, description in (
            ("sources", audit.sources, "kinds of gradients, S"),
            ("directions", audit.directions, "unit vectors, D"),
            ("norms", list(audit.norms), "groups of this file"),
        ):
            put(file, name, np.array(names), units="1", description=description)
        found = audit.gradients
        loss, share = "1 / intensity", "1"
        for name, values, units, description in (
            ("cosine", found.cosine, "1", "of the angle between two gradients, n S S"),
            ("sign_agreement", found.sign_agreement, share, "of non-zero pixels, n S S"),
            ("gradient_norm", found.gradient_norm, loss, "Euclidean, n S"),
            ("zero_share", found.zero_share, share, "pixels of gradient zero, n S"),
            ("precision_cosine", found.precision_cosine, "1", "direct, float32 and float64, m"),
            ("derivative", found.derivative, loss, "by gradient, along direction, m S D"),
            ("finite_difference", found.finite_difference, loss, "of the loss, m D"),
            (
                "finite_difference_frozen",
                found.finite_difference_frozen,
                loss,
                "with the steps of the image that is not moved, m D",
            ),
            ("correct", audit.correct, "1", "clean prediction is right; only those are attacked"),
            ("neighbours_changed", audit.neighbours.changed, share, "of another prediction"),
            ("neighbours_variation", audit.neighbours.variation, share, "of the margin, mean"),
            (
                "large_epsilon_success",
                audit.large_epsilon_success,
                "1",
                "linf, epsilon 0.5, direct gradients",
            ),
            (
                "paper_large_epsilon_success",
                audit.paper_large_epsilon_success,
                "1",
                "linf, epsilon 0.5, the paper's attack",
            ),
        ):
            put(file, name, as_array(values), units=units, description=description)
        for norm, own in audit.norms.items():
            _put_norm(file, norm, own)


def _put_norm(file: h5py.File, norm: str, audit: NormAudit) -> None:
    """Write what was found in one norm as a group of its name."""
    checks = audit.checks
    arrays = {
        "iterations_success": (checks.iterations_success, "the basic iterative method, direct"),
        "single_step_success": (checks.single_step_success, "one step of size epsilon"),
        "paper/cosine": (audit.paper_cosine, "of the followed and the direct gradient, halfway"),
        "apgd/slope_error": (audit.apgd_slope_error, "of the direct gradient, relative, halfway"),
    }
    for name, path in audit.paths.items():
        arrays |= {
            f"{name}/loss": (path.loss, "cross-entropy by iterate, NaN after the end, n K"),
            f"{name}/reached": (path.reached, "an iterate within epsilon is misclassified"),
            f"{name}/no_gradient": (path.no_gradient, "zero or not finite at an iterate"),
        }
    if audit.held is not None:
        arrays |= {
            "held/adversarial": (audit.held.adversarial, "of Auto-PGD"),
            "held/survives": (audit.held.survives, "is one with the steps of the clean image"),
            "held/crosses": (audit.held.crosses, "the number of steps changes on the way to it"),
            "held/jump": (audit.held.jump, "change of the margin there, in logits"),
            "held/change": (audit.held.change, "of the margin from image to example, in logits"),
        }
    for name, (values, description) in arrays.items():
        put(file, f"{norm}/{name}", as_array(values), units="1", description=description)
    for name, path in audit.paths.items():
        for part, values, units, description in (
            ("success", path.success, "1", "an adversarial example was returned"),
            (
                "perturbation_linf",
                path.perturbation_linf,
                "intensity",
                "largest change of a pixel by what was returned",
            ),
            ("perturbation_l2", path.perturbation_l2, "intensity", "Euclidean norm of the change"),
        ):
            put(
                file,
                f"{part}/{name}_{norm}",
                as_array(values),
                units=units,
                description=description,
            )
