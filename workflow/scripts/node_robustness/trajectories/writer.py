"""Write trajectory.h5 batch by batch; `layout` defines its datasets.

Only rows that do not fill a chunk are kept in memory.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from node_robustness.files.hdf5 import Rows, put, stream_hdf5
from node_robustness.files.records import say_not_measured
from node_robustness.trajectories.layout import (
    DISTANCES,
    KIND,
    PAIRS,
    RUNS,
    TrajectorySizes,
    entries,
)

Array = npt.NDArray[Any]


class TrajectoryWriter:
    """Writes a trajectory.h5; rows are appended in the order of the images.

    Args:
        file: open for writing.
        sizes: of the datasets.
        times: float64 [T].
        ends: of the parts, K + 1 values from 0 to 1.
    """

    def __init__(
        self,
        file: h5py.File,
        sizes: TrajectorySizes,
        times: Array,
        ends: Sequence[float],
    ) -> None:
        self.file = file
        put(file, "t", times, units="1", description=f"{file.attrs['axis']} along the body")
        put(
            file,
            "causal/intervals",
            np.array(list(combinations(ends, 2))),
            units="t",
            description="intervals that are patched: from, to",
        )
        put(
            file,
            "shares/ends",
            np.array(ends, np.float64),
            units="t",
            description="ends of the parts of t that have shares",
        )
        rows = {"n": sizes.images, "m": sizes.kept}
        self.rows = {
            entry.name: Rows(
                file,
                entry.name,
                sizes.shape(entry),
                entry.dtype,
                rows[entry.axes[0]],
                units=entry.units,
                description=f"{entry.description}, {' '.join(entry.axes)}",
            )
            for entry in entries(sizes)
        }
        self.nodes: dict[str, Rows] = {}
        self.lengths: dict[str, list[int]] = {}
        if sizes.ode:
            self._add_nodes()
        self._scale(sizes)

    def _add_nodes(self) -> None:
        for run in RUNS:
            self.lengths[run] = []
            ragged = {"t": ("float64", "t", "accepted solver nodes, image after image")}
            if run in PAIRS:
                at = "at the nodes (a last node beyond 1 counts as 1)"
                ragged |= {name: ("float32", "1", f"distance/{name} {at}") for name in DISTANCES}
            for name, (dtype, units, description) in ragged.items():
                path = f"{run}/nodes/{name}"
                self.nodes[path] = Rows(
                    self.file, path, (), dtype, None, units=units, description=description
                )

    def _scale(self, sizes: TrajectorySizes) -> None:
        """Attach `index` and `t` as scales to the axes that they label."""
        scales = {"n": self.file["index"], "t": self.file["t"]}
        for scale, name in (("n", "index"), ("t", "t")):
            scales[scale].make_scale(name)
        for entry in entries(sizes):
            for axis, letter in enumerate(entry.axes):
                self.file[entry.name].dims[axis].label = letter
                if letter in scales and entry.name != "index":
                    self.file[entry.name].dims[axis].attach_scale(scales[letter])

    def append(
        self, found: Mapping[str, Array], nodes: Mapping[str, Sequence[Array]] | None = None
    ) -> None:
        """Append the next images.

        Args:
            found: by name, the next rows of each dataset.
            nodes: by `{run}/nodes/{name}`, an array for each image.
        """
        for name, rows in self.rows.items():
            rows.append(found[name])
        for name, rows in self.nodes.items():
            assert nodes is not None
            if nodes[name]:
                rows.append(np.concatenate(nodes[name]))
            if name.endswith("/t"):
                self.lengths[name.split("/")[0]] += map(len, nodes[name])

    def close(self) -> None:
        """Write the rows that are left in memory."""
        for rows in [*self.rows.values(), *self.nodes.values()]:
            rows.close()
        for run, lengths in self.lengths.items():
            put(
                self.file,
                f"{run}/nodes/offsets",
                np.cumsum([0, *lengths]),
                units="1",
                description="image i has the nodes offsets[i] up to offsets[i + 1]",
            )


@contextmanager
def writing(
    path: Path,
    settings: Mapping[str, Any],
    sizes: TrajectorySizes,
    axis: str,
    times: Array,
    ends: Sequence[float],
    *,
    device: str,
) -> Iterator[TrajectoryWriter]:
    """Yield a writer; the file appears at `path` if the block ends without an exception.

    Args:
        path: of the file.
        settings: see `files.hdf5.write_hdf5`.
        sizes: of the file; its disk space is reserved at the start.
        axis: `time`, or `depth` for a residual body.
        times: float64 [T].
        ends: of the parts of the causal test and the shares, [K + 1].
        device: that computes.

    Raises:
        UserError: there is too little disk space.
    """
    with stream_hdf5(
        path, KIND, settings, size=sizes.total_bytes, axis=axis, device=device
    ) as file:
        writer = TrajectoryWriter(file, sizes, times, ends)
        yield writer
        writer.close()


def write_not_followed(
    path: Path,
    settings: Mapping[str, Any],
    times: Sequence[float],
    parts: int,
    reasons: Iterable[str],
    *,
    device: str,
) -> None:
    """Write a file without images, for a model whose states cannot be followed.

    Args:
        path: see `writing`.
        settings: see `writing`.
        times: see `writing`.
        parts: number of equal parts of [0, 1] of the causal test and the shares.
        reasons: why they cannot, in sentences.
        device: see `writing`.
    """
    sizes = TrajectorySizes(0, 0, len(times), (1, 1, 1), parts, True, "float16")
    ends = [number / parts for number in range(parts + 1)]
    with writing(path, settings, sizes, "time", np.array(times), ends, device=device) as written:
        written.file.attrs["seconds"] = 0.0
        say_not_measured(written.file, ["The states of this network are not followed.", *reasons])
