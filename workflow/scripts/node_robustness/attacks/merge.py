"""A cell from its shards: the attack.h5 that one job for all its images would have written."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, put, read_settings, write_hdf5


def merge(shards: Sequence[Path], path: Path, index: NDArray[Any]) -> None:
    """Write the file of kind "attack" of a cell from those of its shards.

    `seconds` is the sum over the shards, `device` names all that computed them.

    Args:
        shards: In the order of their images.
        path: The file to be written.
        index: Rows in the test set of all images of the cell, [n].

    Raises:
        UserError: A shard is missing, damaged or of another kind; they differ in settings; or
            together they do not hold these images in this order.
    """
    remedy = f"delete {path.parent}/attack-*.h5 and run snakemake again"
    with ExitStack() as stack:
        files = [stack.enter_context(open_hdf5(shard, "attack")) for shard in shards]
        settings = read_settings(files[0])
        for shard, file in zip(shards, files, strict=True):
            if read_settings(file) != settings or set(file) != set(files[0]):
                raise UserError(f"{shard}: made with other settings than {shards[0]}; {remedy}")
        held = np.concatenate([file["index"][:] for file in files])
        if not np.array_equal(held, index):
            raise UserError(f"{path}: its shards hold other images than the cell; {remedy}")
        seconds = sum(float(file.attrs["seconds"]) for file in files)
        device = ", ".join(sorted({str(file.attrs["device"]) for file in files}))
        with write_hdf5(path, "attack", settings, seconds=seconds, device=device) as whole:
            for name, first in files[0].items():
                put(
                    whole,
                    name,
                    np.concatenate([file[name][:] for file in files]),
                    units=first.attrs["units"],
                    description=first.attrs["description"],
                )
