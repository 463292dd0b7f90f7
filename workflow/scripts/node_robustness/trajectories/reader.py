"""Read a trajectory.h5 without knowing its layout.

Example::

    with reader.open_trajectory("results/.../trajectory.h5") as trajectory:
        print(trajectory.images())
        print(trajectory.curves("attack/distance/l2"))
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.trajectories.layout import KIND, PAIRS, RUNS

Array = npt.NDArray[Any]


class Trajectory:
    """An open trajectory.h5; arrays are read on access.

    If a dataset does not exist, such as the solver's nodes of a model without an ODE, methods raise
    a `UserError` that lists the existing ones.

    Attributes:
        file: the HDF5 file.
        settings: coordinates of the cell, and parameters.
        axis: `time`, or `depth` for a residual body.
        t: times, or the ends of the blocks, float64 [T].
    """

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.settings: dict[str, Any] = read_settings(file)
        self.axis: str = file.attrs["axis"]
        self.t: Array = file["t"][:]

    def images(self) -> pd.DataFrame:
        """A table with one row for each image: all datasets with one number for each image."""
        columns: dict[str, Array] = {}

        def collect(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset) and [d.label for d in item.dims] == ["n"]:
                columns[name] = item[:]

        self.file.visititems(collect)
        return pd.DataFrame(columns).set_index("index")

    def groups(self) -> dict[str, tuple[str, Array]]:
        """For each group of images, the run and a mask of its images, bool [N].

        `success`: adversarial examples; `failed`: the last iterates of unsuccessful attacks;
        `noise`: random noise of the same size, on all images.
        """
        success = self.file["success"][:]
        return {
            "success": ("attack", success),
            "failed": ("attack", ~success),
            "noise": ("noise", np.ones_like(success)),
        }

    def curves(self, name: str) -> pd.DataFrame:
        """A dataset [N, T], such as `attack/distance/l2`, with images as rows, times as columns."""
        index = pd.Index(self.file["index"][:], name="index")
        return pd.DataFrame(self._values(name), index=index, columns=pd.Index(self.t, name="t"))

    def nodes(self, name: str) -> list[Array]:
        """A ragged dataset, such as `attack/nodes/l2`, as one array for each image."""
        values = self._values(name)
        offsets = self.file[f"{name.split('/')[0]}/nodes/offsets"][:]
        return np.split(values, offsets[1:-1]) if len(offsets) > 1 else []

    def step_sizes(self, run: str) -> Array:
        """The size of the solver's step at each time, [N, T].

        At a node, it is the step that ends there.

        Args:
            run: `clean`, `attack` or `noise`, of a model with an ODE.
        """
        rows = []
        for nodes in self.nodes(f"{run}/nodes/t"):
            step = np.searchsorted(nodes, self.t, side="left").clip(1, len(nodes) - 1)
            sizes = np.diff(nodes)[step - 1] if len(nodes) > 1 else np.full(len(self.t), np.nan)
            rows.append(np.where(self.t <= nodes[-1], sizes, np.nan))
        return np.array(rows).reshape(-1, len(self.t))

    def nonlinear_rate(self, pair: str) -> Array:
        """The part of the rate of growth that the Jacobian does not explain, [N, T].

        Args:
            pair: `attack` or `noise`.
        """
        rate, linear = (self._values(f"{pair}/growth/{name}") for name in ("rate", "jacobian"))
        return np.asarray(rate - linear)

    def states(self, run: str) -> Array:
        """The states of the kept images, [M, T, C, H, W].

        Args:
            run: `clean` or `attack`.
        """
        return self._values(f"states/{run}")

    def _values(self, name: str) -> Array:
        """All values of a dataset.

        Raises:
            UserError: there is no such dataset.
        """
        if name not in self.file:
            there: list[str] = []
            self.file.visititems(
                lambda path, item: there.append(path) if isinstance(item, h5py.Dataset) else None
            )
            raise UserError(
                f"{self.file.filename}: there is no {name} (there is: {', '.join(there)})"
            )
        return np.asarray(self.file[name][:])


@contextmanager
def open_trajectory(path: Path | str) -> Iterator[Trajectory]:
    """Yield an open trajectory.h5.

    Raises:
        UserError: the file is missing, damaged, of another kind, or of another schema version.
    """
    with open_hdf5(path, KIND) as file:
        yield Trajectory(file)


__all__ = ["PAIRS", "RUNS", "Trajectory", "open_trajectory"]
