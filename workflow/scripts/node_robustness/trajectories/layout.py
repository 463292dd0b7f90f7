"""The datasets of trajectory.h5, and their size on disk.

docs/files.md describes the datasets, docs/trajectories.md gives the size as a formula.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

KIND = "trajectory"
PAIRS = ("attack", "noise")
RUNS = ("clean", *PAIRS)
SHARED = ("strong", "noise", "swapped")
"""The perturbations whose loss of margin is shared out: the full-strength adversarial example,
noise of its norm, and the difference of the next image from its clean one."""
DISTANCES = ("l2", "relative_l2", "cosine")

_BYTES = {"bool": 1, "int8": 1, "float16": 2, "float32": 4, "int32": 4, "float64": 8, "int64": 8}
_NODES = 32  # assumed for each run of an image in the estimated size; there may be more
_FIXED_BYTES = 2**21  # of HDF5's structures, and of datasets that do not grow with the images


@dataclass(frozen=True)
class TrajectorySizes:
    """The values that determine the size of a trajectory.h5.

    Attributes:
        images: N.
        kept: M, the number of images whose states are kept.
        times: T.
        state: [C, H, W].
        parts: K, of the shares; patches cover the intervals between their ends.
        ode: whether the model has an ODE.
        precision: dtype of the states, `float16` or `float32`.
    """

    images: int
    kept: int
    times: int
    state: tuple[int, int, int]
    parts: int
    ode: bool
    precision: str

    @property
    def intervals(self) -> int:
        """I, the number of intervals between the ends of the parts."""
        return self.parts * (self.parts + 1) // 2

    @property
    def bytes_per_image(self) -> int:
        """Bytes of each image, before compression."""
        return self._of("n") + (len(RUNS) * 8 + len(PAIRS) * 12) * _NODES * self.ode

    @property
    def bytes_per_kept_image(self) -> int:
        """Additional bytes of an image whose states are kept, before compression."""
        return self._of("m")

    @property
    def row_bytes(self) -> int:
        """Bytes of all images, before compression."""
        return self.images * self.bytes_per_image + self.kept * self.bytes_per_kept_image

    @property
    def total_bytes(self) -> int:
        """Largest size of the file, without compression."""
        return _FIXED_BYTES + self.row_bytes + self.row_bytes // 50

    def _of(self, first: str) -> int:
        return sum(
            prod(self.shape(entry)) * _BYTES[entry.dtype]
            for entry in entries(self)
            if entry.axes[0] == first
        )

    def shape(self, entry: "Entry") -> tuple[int, ...]:
        """The shape of one row of a dataset."""
        c, h, w = self.state
        length = {"t": self.times, "i": self.intervals, "k": self.parts}
        length |= {"c": c, "h": h, "w": w}
        return tuple(length[axis] for axis in entry.axes[1:])


@dataclass(frozen=True)
class Entry:
    """A dataset with a row for each image.

    Attributes:
        name: path in the file.
        axes: a letter for each dimension: n images or m kept images first, then t times, i
            intervals, k parts, c h w of a state.
        dtype: of the values.
        units: see `files.hdf5.put`.
        description: see `files.hdf5.put`.
    """

    name: str
    axes: str
    dtype: str
    units: str
    description: str


def entries(sizes: TrajectorySizes) -> Iterator[Entry]:
    """All datasets with a row for each image, in the order of the file."""
    yield Entry("index", "n", "int64", "1", "row of test/* in data.h5")
    yield Entry("labels", "n", "int64", "1", "index into class_names")
    yield Entry("success", "n", "bool", "1", "the attack found an adversarial example")
    yield Entry("clean_predictions", "n", "int64", "1", "class of the clean run at t = 1")
    yield Entry("kept", "m", "int64", "1", "positions, among n, of the m images with states")
    for pair in PAIRS:
        distance = f"of the states of {pair} and clean run"
        yield Entry(f"{pair}/distance/l2", "nt", "float32", "1", f"Euclidean distance {distance}")
        yield Entry(
            f"{pair}/distance/relative_l2", "nt", "float32", "1", "the same over |clean state|"
        )
        yield Entry(
            f"{pair}/distance/cosine", "nt", "float32", "1", f"cosine of the angle {distance}"
        )
        yield from _growth_entries(pair, sizes.ode)
    yield from _shares_entries()
    for end in ("upper", "lower"):
        description = f"{end} bound of growth/jacobian at the clean state, by Lanczos"
        yield Entry(f"growth/log_norm_{end}", "nt", "float32", "1 / t", description)
    description = "largest finite-time Lyapunov exponent of the clean run, over [0, 1]"
    yield Entry("lyapunov_largest", "n", "float32", "1 / t", description)
    for run in RUNS:
        for reader in ("head", "probe"):
            description = f"logit of the clean class minus the largest other, by the {reader}"
            yield Entry(f"{run}/margin/{reader}", "nt", "float32", "1", description)
    for pair in PAIRS:
        for reader in ("head", "probe"):
            description = f"time from which the {reader} decides differently from the clean run"
            yield Entry(f"{pair}/flip_time/{reader}", "n", "float32", "t", description)
    if sizes.ode:
        for run in RUNS:
            yield Entry(f"{run}/nfe", "n", "int32", "1", "function evaluations")
            yield Entry(f"{run}/accepted", "n", "int32", "1", "accepted steps")
            yield Entry(f"{run}/rejected", "n", "int32", "1", "rejected steps")
    outcome = "1 yes, 0 no, -1 undetermined"
    yield Entry("causal/repaired", "ni", "int8", "1", f"repair restores the decision: {outcome}")
    yield Entry("causal/inserted", "ni", "int8", "1", f"insertion takes it away: {outcome}")
    share = "share of the margin that its repair alone restores"
    yield Entry("causal/channels", "mc", "float32", "1", share)
    yield Entry("causal/places", "mhw", "float32", "1", share)
    for run in ("clean", "attack"):
        yield Entry(f"states/{run}", "mtchw", sizes.precision, "1", "h(t) of the kept images")


def _shares_entries() -> Iterator[Entry]:
    yield Entry("strong/success", "n", "bool", "1", "the strong example misleads the model")
    margin = "logit of the clean class minus the largest other"
    yield Entry("strong/margin", "n", "float32", "logit", f"{margin}, of the strong example")
    for norm, size in (("linf", "largest change of a pixel"), ("l2", "Euclidean norm")):
        yield Entry(f"strong/perturbation_{norm}", "n", "float32", "intensity", size)
    yield Entry("shares/margin", "n", "float32", "logit", f"{margin}, of the clean image")
    for name in SHARED:
        of = f"share in the loss of margin by {name}"
        yield Entry(f"shares/{name}/start", "n", "float32", "logit", f"{of}: of h(0)")
        yield Entry(f"shares/{name}/parts", "nk", "float32", "logit", f"{of}: of each part of t")
        loss = "margin of the clean image minus that of the perturbed one"
        yield Entry(f"shares/{name}/loss", "n", "float32", "logit", loss)
        yield Entry(f"shares/{name}/error", "n", "float32", "logit", "sum of shares minus loss")


def _growth_entries(pair: str, ode: bool) -> Iterator[Entry]:
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
