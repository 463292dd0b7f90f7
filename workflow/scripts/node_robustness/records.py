"""The layouts of the HDF5 files of a run, but for `data.h5` and what lies along t (`trajectories`).

docs/files.md describes them for readers who open them with other tools. `seconds` is the wall time
of the computation alone, `device` what computed; they are attributes, not data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from node_robustness.storage import open_hdf5, put, read_settings, write_hdf5

# Types alone: a change of one stage's code is none of the other stages' business.
if TYPE_CHECKING:
    from node_robustness.attacks import AttackResult
    from node_robustness.detection import Detection
    from node_robustness.evaluation import Evaluation
    from node_robustness.gradient_audit import GradientAudit
    from node_robustness.pace import Pace
    from node_robustness.randomisation import Randomised
    from node_robustness.sanity import AttackChecks, BatchInvariance
    from node_robustness.tolerance_matrix import Judged

Array = npt.NDArray[Any]


def write_clean(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Evaluation,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a clean evaluation of the test images `index` with their labels, both [n]."""
    with write_hdf5(path, "clean", settings, seconds=seconds, device=device) as file:
        _put_images(file, index, labels)
        put(file, "predictions", _array(found.predictions), units="1", description=_CLASS)
        put(file, "logits", _array(found.logits), units="1", description="logits, n K")
        _put_optional(file, "nfe", found.nfe, "function evaluations of the forward solve")
        _put_optional(file, "status", found.status, _STATUS)


def write_attack(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    images: Tensor,
    found: AttackResult,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what an attack did to the test images `index`, [n] (images: [n, C, H, W])."""
    change = (found.adversarials - images).flatten(1)
    with write_hdf5(path, "attack", settings, seconds=seconds, device=device) as file:
        _put_images(file, index, labels)
        for name, values, units, description in (
            ("clean_predictions", found.clean_predictions, "1", _CLASS),
            ("adversarial_predictions", found.adversarial_predictions, "1", _CLASS),
            ("attacked", found.attacked, "1", "clean prediction is right, and not skipped"),
            ("skipped", found.skipped, "1", "left out: broken by a cheaper attack"),
            ("success", found.success, "1", "an adversarial was found"),
            ("iterations", found.iterations.int(), "1", "gradient steps or queries it took"),
            ("perturbation_linf", change.abs().amax(1), "intensity", "largest change of a pixel"),
            ("perturbation_l2", change.norm(dim=1), "intensity", "Euclidean norm of the change"),
            ("adversarials", found.adversarials, "intensity", "images in [0, 1], n C H W"),
        ):
            put(file, name, _array(values), units=units, description=description)
        _put_optional(file, "nfe_clean", found.nfe_clean, "function evaluations, clean image")
        _put_optional(
            file, "nfe_adversarial", found.nfe_adversarial, "function evaluations, adversarial"
        )


def write_pace(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Pace,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what the paper's procedure took for the test images `index`, [n]."""
    with write_hdf5(path, "pace", settings, seconds=seconds, device=device) as file:
        _put_images(file, index, labels)
        put(file, "seconds", _array(found.seconds), units="s", description="wall time of an image")
        put(
            file,
            "iterations",
            _array(found.iterations.int()),
            units="1",
            description="gradient steps it took; 0: the clean prediction is wrong",
        )


@dataclass(frozen=True)
class Adversarials:
    """What an attack left of N images.

    Attributes:
        index: rows of test/*, [N].
        labels: [N].
        images: adversarials where `success`, else what the attack ended with; [N, C, H, W].
        success: bool [N].
        settings: of the attack.
    """

    index: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    success: npt.NDArray[np.bool_]
    settings: dict[str, Any]


def read_adversarials(path: Path) -> Adversarials:
    """Read the images that an attack did not skip.

    Raises:
        UserError: the file is not a usable attack.h5.
    """
    with open_hdf5(path, "attack") as file:
        rows = np.flatnonzero(~file["skipped"][:])
        return Adversarials(
            file["index"][:][rows],
            file["labels"][:][rows],
            file["adversarials"][rows],
            file["success"][:][rows],
            read_settings(file),
        )


@dataclass(frozen=True)
class Attacked:
    """N images that were attacked, because the clean prediction is right; theirs are left on disk.

    Attributes:
        path: of the attack.h5.
        rows: where they stand in it, ascending, [N].
        index: rows of test/*, [N].
        labels: [N].
        success: bool [N].
        clean_predictions: [N].
        settings: of the attack.
    """

    path: Path
    rows: npt.NDArray[np.int64]
    index: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    success: npt.NDArray[np.bool_]
    clean_predictions: npt.NDArray[np.int64]
    settings: dict[str, Any]

    def images(self, positions: Array) -> npt.NDArray[np.float32]:
        """What the attack ended with for some of them, ascending positions: [n, C, H, W]."""
        with open_hdf5(self.path, "attack") as file:
            images: npt.NDArray[np.float32] = file["adversarials"][self.rows[positions]]
            return images


def read_attacked(path: Path, count: int | None = None) -> Attacked:
    """Read which images were attacked, the first ones or all.

    Raises:
        UserError: the file is not a usable attack.h5.
    """
    with open_hdf5(path, "attack") as file:
        rows = np.flatnonzero(file["attacked"][:])[:count]
        return Attacked(
            path,
            rows,
            file["index"][:][rows],
            file["labels"][:][rows],
            file["success"][:][rows],
            file["clean_predictions"][:][rows],
            read_settings(file),
        )


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
        _put_images(file, index, labels)
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
            put(file, name, _array(values), units=units, description=description)


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
        _put_images(file, attacked.index, attacked.labels)
        put(file, "success", attacked.success, units="1", description="an adversarial was found")
        put(file, "tolerances", np.array(tolerances), units="1", description="tau, E")
        for side, found in (("clean", clean), ("adversarial", adversarial)):
            predictions, logits = _array(found.predictions), _array(found.logits)
            put(file, f"{side}_predictions", predictions, units="1", description=f"{_CLASS}; n E")
            put(file, f"{side}_logits", logits, units="1", description="logits, n E K")
        nfe = "function evaluations of `adversarials`, n E"
        put(file, "nfe", _array(adversarial.nfe), units="1", description=nfe)


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
        _put_images(file, index, labels)
        for name, wrong in found.wrong.items():
            description = "share of draws at which the image is misclassified"
            put(file, f"wrong/{name}", _array(wrong), units="1", description=description)
        for name, values, description in (
            ("fixed_tolerance", found.fixed_tolerance, "the draw that the attacker `fixed` knows"),
            ("fixed_wrong", found.fixed_wrong, "his image is misclassified at that draw"),
        ):
            put(file, name, _array(values), units="1", description=description)


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
        _put_images(file, index, labels)
        attacked = "clean prediction is right; only those are attacked"
        put(file, "correct", _array(found.correct), units="1", description=attacked)
        for name, values in found.scores.items():
            description = "largest total variation distance between two tolerances"
            put(file, f"score/{name}", _array(values), units="1", description=description)
        for name, values in found.success.items():
            description = "fools the classifier at tau"
            put(file, f"success/{name}", _array(values), units="1", description=description)


_CLASS = "index into class_names; -1 where the solve failed"
_STATUS = "0 success, 1 max_steps, 2 underflow, 3 nonfinite"


def _put_images(file: h5py.File, index: Array, labels: Array) -> None:
    put(file, "index", index, units="1", description="row of test/* in data.h5")
    put(file, "labels", labels, units="1", description="index into class_names")


def _put_optional(file: h5py.File, name: str, values: Tensor | None, description: str) -> None:
    if values is not None:
        put(file, name, _array(values), units="1", description=description)


def _array(values: Tensor) -> Array:
    array: Array = values.detach().cpu().numpy()
    return array
