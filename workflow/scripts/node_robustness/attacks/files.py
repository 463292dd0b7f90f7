"""The files of attacks (`attack.h5`): how they are written and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from node_robustness.files.hdf5 import open_hdf5, put, read_settings, write_hdf5

# Types alone: a change of one stage's code is none of the other stages' business.
if TYPE_CHECKING:
    from node_robustness.attacks.engine import AttackResult
from node_robustness.files.records import CLASS, Array, as_array, put_images, put_optional


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
        put_images(file, index, labels)
        for name, values, units, description in (
            ("clean_predictions", found.clean_predictions, "1", CLASS),
            ("adversarial_predictions", found.adversarial_predictions, "1", CLASS),
            ("attacked", found.attacked, "1", "clean prediction is right, and not skipped"),
            ("skipped", found.skipped, "1", "left out: broken by a cheaper attack"),
            ("success", found.success, "1", "an adversarial was found"),
            ("iterations", found.iterations.int(), "1", "gradient steps or queries it took"),
            ("perturbation_linf", change.abs().amax(1), "intensity", "largest change of a pixel"),
            ("perturbation_l2", change.norm(dim=1), "intensity", "Euclidean norm of the change"),
            ("adversarials", found.adversarials, "intensity", "images in [0, 1], n C H W"),
        ):
            put(file, name, as_array(values), units=units, description=description)
        put_optional(file, "nfe_clean", found.nfe_clean, "function evaluations, clean image")
        put_optional(
            file, "nfe_adversarial", found.nfe_adversarial, "function evaluations, adversarial"
        )


@dataclass(frozen=True)
class Adversarials:
    """What an attack left of N images.

    Attributes:
        index: rows of test/*, [N].
        labels: [N].
        images: adversarial examples where `success`, else what the attack ended with; [N, C, H, W].
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
class StoredAttack:
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


def read_attacked(path: Path, count: int | None = None) -> StoredAttack:
    """Read which images were attacked, the first ones or all.

    Raises:
        UserError: the file is not a usable attack.h5.
    """
    with open_hdf5(path, "attack") as file:
        rows = np.flatnonzero(file["attacked"][:])[:count]
        return StoredAttack(
            path,
            rows,
            file["index"][:][rows],
            file["labels"][:][rows],
            file["success"][:][rows],
            file["clean_predictions"][:][rows],
            read_settings(file),
        )
