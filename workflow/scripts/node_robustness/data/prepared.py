"""Read data.h5: the splits of a prepared dataset, or some of its rows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import h5py
import numpy as np

from node_robustness.data.arrays import ImageArray, LabelArray
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False)
class Split:
    """Some images of a prepared data set.

    Attributes:
        index: int64 [N], each image's row in data.h5: of train/* for the splits train and
            validation, of test/* for test.
        images: uint8 [N, C, H, W].
        labels: int64 [N].
    """

    index: LabelArray
    images: ImageArray
    labels: LabelArray


def load_split(
    path: Path | str, split: SplitName, subset: int | None = None, *, or_fewer: bool = False
) -> Split:
    """Read a split of a prepared data set, or its first images.

    Smaller subsets are contained in larger ones. Only the images asked for are held in memory.

    Args:
        path: A data.h5 file.
        split: Which split.
        subset: How many images to read; all if None.
        or_fewer: Whether to read all where there are fewer than that.

    Returns:
        The images with their rows and labels, in the split's random order.

    Raises:
        UserError: The split has fewer images than that and may not, or the file is not a usable
            data.h5.
    """
    with open_hdf5(path, "data") as file:
        index = file[f"indices/{split}"][:subset]
        if subset is not None and len(index) < subset and not or_fewer:
            raise UserError(
                f"{path}: subset.{split}: {subset} images are asked for, {len(index)} are "
                "available; lower it or leave it out"
            )
        part = "test" if split == "test" else "train"
        return Split(
            index,
            _read_rows(file[f"{part}/images"], index),
            file[f"{part}/labels"][:][index],
        )


def count_images(path: Path | str) -> tuple[int, int]:
    """How many images a prepared data set has for training (and validation), and for testing.

    Raises:
        UserError: The file is not a usable data.h5.
    """
    with open_hdf5(path, "data") as file:
        return len(file["train/labels"]), len(file["test/labels"])


def load_rows(path: Path | str, rows: LabelArray) -> ImageArray:
    """Read the test images at the given rows of a prepared data set, uint8 [N, C, H, W].

    Args:
        path: A data.h5 file.
        rows: Rows of ``test/images``, int64 [N], in any order.

    Raises:
        UserError: The file is not a usable data.h5.
    """
    with open_hdf5(path, "data") as file:
        return _read_rows(file["test/images"], rows)


def _read_rows(dataset: h5py.Dataset, index: LabelArray) -> ImageArray:
    """Read rows in any order, unpacking each chunk that holds some of them once.

    h5py's own selection wants sorted rows and takes time for each of them.
    """
    rows = np.empty((len(index), *dataset.shape[1:]), dataset.dtype)
    chunk = dataset.chunks[0]
    order = np.argsort(index)
    starts = range(0, len(dataset) + chunk, chunk)
    bounds = np.searchsorted(index[order], starts)
    for start, first, last in zip(starts, bounds[:-1], bounds[1:], strict=False):
        if first < last:
            wanted = order[first:last]
            rows[wanted] = dataset[start : start + chunk][index[wanted] - start]
    return rows
