"""The HDF5 files of a cell: the layouts of `clean.h5`, `attack.h5` and `trajectory.h5`.

docs/files.md describes them for readers who open them with other tools. `seconds` is the wall time
of the computation alone, `device` what computed; they are attributes, not data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from torch import Tensor

from node_robustness.attacks import AttackResult
from node_robustness.evaluation import Evaluation
from node_robustness.storage import open_hdf5, put, read_settings, write_hdf5
from node_robustness.trajectories import Trajectories

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
            ("attacked", found.attacked, "1", "clean prediction is right; only those are attacked"),
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


@dataclass(frozen=True)
class Adversarials:
    """The successes of an attack: rows of test/*, images float32 [N, C, H, W], the settings."""

    index: npt.NDArray[np.int64]
    images: npt.NDArray[np.float32]
    settings: dict[str, Any]


def read_adversarials(path: Path) -> Adversarials:
    """Read the images for which an attack found an adversarial.

    Raises:
        UserError: the file is not a usable attack.h5.
    """
    with open_hdf5(path, "attack") as file:
        rows = np.flatnonzero(file["success"][:])
        return Adversarials(file["index"][:][rows], file["adversarials"][rows], read_settings(file))


def write_trajectories(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    found: Trajectories,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write trajectories of pairs of images, the test images `index` [N] and their adversarials."""
    with write_hdf5(path, "trajectory", settings, seconds=seconds, device=device) as file:
        put(file, "index", index, units="1", description="row of test/* in data.h5")
        put(file, "success", np.ones(len(index), bool), units="1", description="always true here")
        put(file, "t", found.times, units="1", description="time along the ODE block")
        for name, values, description in (
            ("l2", found.l2, "Euclidean distance of the adversarial's state from the clean one's"),
            ("relative_l2", found.relative_l2, "the same over the norm of the clean state"),
            ("cosine", found.cosine, "cosine of the angle between the two states"),
        ):
            put(file, f"distance/{name}", values, units="1", description=f"{description}, n t")
        for side, nodes, states in (
            ("clean", found.clean_nodes, found.clean_states),
            ("adversarial", found.adversarial_nodes, found.adversarial_states),
        ):
            lengths = np.cumsum([0, *(len(times) for times in nodes)])
            put(
                file,
                f"nodes/{side}/t",
                np.concatenate([np.empty(0), *nodes]),
                units="1",
                description="accepted solver nodes, image after image",
            )
            put(
                file,
                f"nodes/{side}/offsets",
                lengths,
                units="1",
                description="image i has the nodes offsets[i] up to offsets[i + 1]",
            )
            put(file, f"states/{side}", states, units="1", description="h(t), m t C H W")


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
