"""What the HDF5 files of the stages have in common; each stage owns its own.

docs/files.md describes them for readers who open them with other tools. `seconds` is the wall time
of the computation alone, `device` what computed; they are attributes, not data.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import h5py
import numpy.typing as npt

from node_robustness.files.hdf5 import put

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[Any]


CLASS = "index into class_names; -1 where the solve failed"
STATUS = "0 success, 1 max_steps, 2 underflow, 3 nonfinite"


def put_images(file: h5py.File, index: Array, labels: Array) -> None:
    """Write which test images a file is about, [n], and their labels."""
    put(file, "index", index, units="1", description="row of test/* in data.h5")
    put(file, "labels", labels, units="1", description="index into class_names")


def put_optional(file: h5py.File, name: str, values: "Tensor | None", description: str) -> None:
    """Write an array that some models do not have."""
    if values is not None:
        put(file, name, as_array(values), units="1", description=description)


def say_not_measured(file: h5py.File, reasons: Iterable[str]) -> None:
    """Say what a file lacks because its network does not allow to measure it; see `not_measured`.

    Args:
        file: open for writing.
        reasons: sentences; repetitions are left out, and without any nothing is written.
    """
    sentences = dict.fromkeys(reasons)
    if sentences:
        file.attrs["not_measured"] = " ".join(sentences)


def not_measured(file: h5py.File) -> str:
    """What a file lacks because its network does not allow to measure it, and why, in sentences.

    Such a file has no rows, or NaN where a value is missing. Empty for a file that has everything.
    """
    return str(file.attrs.get("not_measured", ""))


def as_array(values: "Tensor") -> Array:
    """The values of a tensor on any device."""
    array: Array = values.detach().cpu().numpy()
    return array
