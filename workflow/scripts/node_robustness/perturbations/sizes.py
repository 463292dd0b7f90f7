"""How large the perturbations in a file of kind "attack" are, and which count at an epsilon."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings

ROUNDING = 1e-6
"""By how much an adversarial may exceed an epsilon, as a share of it."""

MEASURED = 1e-4
"""The same where a size is measured as a difference of images in float32: the smallest of pixels
near 1 are off by 6e-8, and what was found within an epsilon may look larger than that."""

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """What a cell found, measured in its norm.

    Attributes:
        claimed: Whether the file claims a success, bool [n].
        beyond: Whether the returned image lies farther than epsilon, bool [n].
        success: Whether it holds an adversarial within epsilon, bool [n].
        size: The size of that adversarial, infinite where there is none, [n].
    """

    claimed: Bools
    beyond: Bools
    success: Bools
    size: Floats


def measured(linf: Floats, l2: Floats, norm: str, pixels: int) -> Floats:
    """Sizes in a norm of perturbations of images with so many values, from their two norms."""
    if norm == "linf":
        return linf.astype(float)
    return l2.astype(float) / (math.sqrt(pixels) if norm == "l2_rms" else 1.0)


def read_sizes(file: h5py.File) -> Sizes:
    """Measure the perturbations of an open file of kind "attack"."""
    settings = read_settings(file)
    norm, epsilon = settings["norm"], settings["epsilon"]
    size = measured(
        file["perturbation_linf"][:],
        file["perturbation_l2"][:],
        norm,
        math.prod(file["adversarials"].shape[1:]),
    )
    claimed: Bools = file["success"][:]
    near = size <= epsilon * (1 + MEASURED)
    success = claimed & near
    return Sizes(claimed, ~near, success, np.where(success, np.minimum(size, epsilon), math.inf))


def within(sizes: Floats, epsilon: float) -> Bools:
    """Which sizes count at an epsilon, bool [n]."""
    counts: Bools = sizes <= epsilon * (1 + ROUNDING)
    return counts


def broken_within(
    paths: Iterable[Path | str],
    epsilon: float,
    index: NDArray[Any],
    part: slice = slice(None),
) -> Bools:
    """Which images some attack broke within an epsilon.

    Args:
        paths: Files of kind "attack".
        epsilon: In the norm of the files.
        index: Rows of the images in the test set, [n].
        part: Where the images stand in the files, if these have more of them.

    Returns:
        bool [n].

    Raises:
        UserError: A file is missing, damaged, of another kind or of other images.
    """
    broken = np.zeros(len(index), bool)
    for path in paths:
        with open_hdf5(path, "attack") as file:
            if not np.array_equal(file["index"][part], index):
                raise UserError(
                    f"{path}: attacks other images than this cell; delete it and run snakemake "
                    "again"
                )
            broken |= within(read_sizes(file).size[part], epsilon)
    return broken
