"""The layout of trajectory.h5, and how it is written batch by batch.

docs/files.md describes it for readers. Nothing is kept in memory but rows that do not fill a chunk.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from node_robustness.storage import Rows, put, stream_hdf5

Array = npt.NDArray[Any]

KIND = "trajectory"
PAIRS = ("attack", "noise")
RUNS = ("clean", *PAIRS)
DISTANCES = ("l2", "relative_l2", "cosine")

_NODES = 32  # of a run of an image, for the size that is stated; it needs as many as it needs
_FIXED_BYTES = 2**21  # of HDF5's own structures, and of what does not grow with the images


@dataclass(frozen=True)
class Sizes:
    """What fixes the size of a dump.

    Attributes:
        images: N.
        kept: M, images whose states are kept.
        times: T.
        state: [C, H, W].
        intervals: I, of the causal test.
        ode: whether there is an ODE, and so a solver.
        precision: of the states, `float16` or `float32`.
    """

    images: int
    kept: int
    times: int
    state: tuple[int, int, int]
    intervals: int
    ode: bool
    precision: str

    @property
    def bytes_an_image(self) -> int:
        """What an image takes that is followed, before compression."""
        return self._of("n") + (len(RUNS) * 8 + len(PAIRS) * 12) * _NODES * self.ode

    @property
    def bytes_a_kept_image(self) -> int:
        """What an image takes on top of it whose states are kept, before compression."""
        return self._of("m")

    @property
    def total_bytes(self) -> int:
        """What the file takes at most; less by what compression saves."""
        rows = self.images * self.bytes_an_image + self.kept * self.bytes_a_kept_image
        return _FIXED_BYTES + rows + rows // 50

    def _of(self, first: str) -> int:
        return sum(
            prod(self.shape(entry)) * np.dtype(entry.dtype).itemsize
            for entry in entries(self)
            if entry.axes[0] == first
        )

    def shape(self, entry: "Entry") -> tuple[int, ...]:
        """The shape of a row."""
        c, h, w = self.state
        length = {"t": self.times, "i": self.intervals, "c": c, "h": h, "w": w, "2": 2}
        return tuple(length[axis] for axis in entry.axes[1:])


@dataclass(frozen=True)
class Entry:
    """A dataset with a row for each image.

    Attributes:
        name: path in the file.
        axes: of its dimensions, a letter each: n images or m kept ones first, then t times, i
            intervals, c h w of a state.
        dtype: of its values.
        units: see `storage.put`.
        description: likewise.
    """

    name: str
    axes: str
    dtype: str
    units: str
    description: str


def entries(sizes: Sizes) -> Iterator[Entry]:
    """All datasets with a row for each image, in their order in the file."""
    yield Entry("index", "n", "int64", "1", "row of test/* in data.h5")
    yield Entry("labels", "n", "int64", "1", "index into class_names")
    yield Entry("success", "n", "bool", "1", "the attack found an adversarial")
    yield Entry("clean_predictions", "n", "int64", "1", "class of the clean run at t = 1")
    yield Entry("kept", "m", "int64", "1", "position among the n of the m images with states")
    for pair in PAIRS:
        distance = f"of the states of {pair} and clean run"
        yield Entry(f"{pair}/distance/l2", "nt", "float32", "1", f"Euclidean distance {distance}")
        yield Entry(
            f"{pair}/distance/relative_l2", "nt", "float32", "1", "the same over |clean state|"
        )
        yield Entry(
            f"{pair}/distance/cosine", "nt", "float32", "1", f"cosine of the angle {distance}"
        )
        yield from _growth(pair, sizes.ode)
    for end in ("upper", "lower"):
        description = f"{end} bound of growth/jacobian at the clean state, by Lanczos"
        yield Entry(f"growth/log_norm_{end}", "nt", "float32", "1 / t", description)
    description = "largest finite-time Lyapunov exponent of the clean run, over [0, 1]"
    yield Entry("lyapunov_largest", "n", "float32", "1 / t", description)
    for run in RUNS:
        for reader in ("head", "probe"):
            description = f"logit of the clean class less the largest other, by the {reader}"
            yield Entry(f"{run}/margin/{reader}", "nt", "float32", "1", description)
    for pair in PAIRS:
        for reader in ("head", "probe"):
            description = f"from which t on the {reader} decides otherwise than for the clean run"
            yield Entry(f"{pair}/flip_time/{reader}", "n", "float32", "t", description)
    if sizes.ode:
        for run in RUNS:
            yield Entry(f"{run}/nfe", "n", "int32", "1", "function evaluations")
            yield Entry(f"{run}/accepted", "n", "int32", "1", "accepted steps")
            yield Entry(f"{run}/rejected", "n", "int32", "1", "rejected steps")
    outcome = "1 yes, 0 no, -1 undetermined"
    yield Entry("causal/repaired", "ni", "int8", "1", f"repair restores the decision: {outcome}")
    yield Entry("causal/inserted", "ni", "int8", "1", f"insertion takes it away: {outcome}")
    description = "shortest interval whose repair restores the decision"
    yield Entry("causal/responsible", "n2", "float64", "t", description)
    description = "share of the others of its length whose repair restores it"
    yield Entry("causal/random_repaired", "n", "float32", "1", description)
    share = "share of the margin that the repair of it alone restores"
    yield Entry("causal/channels", "mc", "float32", "1", share)
    yield Entry("causal/places", "mhw", "float32", "1", share)
    for run in ("clean", "attack"):
        yield Entry(f"states/{run}", "mtchw", sizes.precision, "1", "h(t) of the kept images")


def _growth(pair: str, ode: bool) -> Iterator[Entry]:
    rate = "d/dt log |d|, d the difference of the states"
    yield Entry(f"{pair}/growth/rate", "nt", "float32", "1 / t", rate)
    jacobian = "<d, J d> / <d, d>, J the Jacobian at the clean state"
    yield Entry(f"{pair}/growth/jacobian", "nt", "float32", "1 / t", jacobian)
    along = "finite-time Lyapunov exponent along d(0), over [0, 1]"
    if ode:
        for distance in ("l2", "relative_l2"):
            description = f"distance/{distance} solved at a tight tolerance"
            yield Entry(f"{pair}/tight/{distance}", "nt", "float32", "1", description)
    yield Entry(f"{pair}/lyapunov_along", "n", "float32", "1 / t", along)


class Dump:
    """A trajectory.h5 that is being written; rows are appended in the order of the images."""

    def __init__(
        self, file: h5py.File, sizes: Sizes, times: Array, intervals: Sequence[Sequence[float]]
    ) -> None:
        self.file = file
        put(file, "t", times, units="1", description=f"{file.attrs['axis']} along the body")
        put(
            file,
            "causal/intervals",
            np.array(intervals, np.float64).reshape(-1, 2),
            units="t",
            description="intervals that are patched: from, to",
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
                at = "there (a last one beyond 1 counts as 1)"
                ragged |= {name: ("float32", "1", f"distance/{name} {at}") for name in DISTANCES}
            for name, (dtype, units, description) in ragged.items():
                path = f"{run}/nodes/{name}"
                self.nodes[path] = Rows(
                    self.file, path, (), dtype, None, units=units, description=description
                )

    def _scale(self, sizes: Sizes) -> None:
        """Make `index` and `t` the scales of the axes that they number."""
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
            found: by name, the next rows of every dataset.
            nodes: by `{run}/nodes/{name}`, an array for each of the images.
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
        """Write what is left in memory."""
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
    sizes: Sizes,
    axis: str,
    times: Array,
    intervals: Sequence[Sequence[float]],
    *,
    device: str,
) -> Iterator[Dump]:
    """Yield a dump that appears at `path` once the block ends without an exception.

    Args:
        path: of the file.
        settings: see `storage.write_hdf5`.
        sizes: of the dump; the space for it is taken at once.
        axis: `time`, or `depth` of a residual body.
        times: float64 [T].
        intervals: [I, 2].
        device: what computes.

    Raises:
        UserError: the disk has no room for it.
    """
    with stream_hdf5(
        path, KIND, settings, size=sizes.total_bytes, axis=axis, device=device
    ) as file:
        dump = Dump(file, sizes, times, intervals)
        yield dump
        dump.close()
