"""Adversarial examples that no attack of the network and norm at hand found, but that are known.

An adversarial example in one norm has a size in the others; one that was made at another tolerance
may fool this one, too; and audits, detectors and other measurements attack as well.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.perturbations.sizes import Bools, Floats, measured
from node_robustness.tables.frame import SOLVED, with_results

_LINF, _L2, _SUCCESS = "perturbation_linf", "perturbation_l2", "success"


@dataclass(frozen=True)
class KnownExamples:
    """Perturbed images of one network at one tolerance, and which of them fool it.

    Attributes:
        where: Experiment, dataset, model, seed and tolerance of the network that is fooled.
        source: What found them.
        index: Rows of the images in the test set, int64 [m]; a row may occur several times.
        success: Whether the network misclassifies the perturbed image, bool [m].
        linf: Largest change of a pixel, [m].
        l2: Euclidean norm of the change, [m].
    """

    where: dict[str, Any]
    source: str
    index: NDArray[np.int64]
    success: Bools
    linf: Floats
    l2: Floats

    def smallest(self, index: NDArray[np.int64], norm: str, pixels: int) -> Floats:
        """The smallest size of a success on each of the images `index`, infinite where none, [n].

        Args:
            index: Rows of the images in the test set, int64 [n], each once.
            norm: In which sizes are measured.
            pixels: Values of an image.
        """
        order = np.argsort(index)
        at = np.searchsorted(index, self.index, sorter=order).clip(max=len(index) - 1)
        rows = order[at]
        counts = self.success & (index[rows] == self.index)
        found = np.full(len(index), np.inf)
        np.minimum.at(found, rows[counts], measured(self.linf, self.l2, norm, pixels)[counts])
        return found


def recorded(paths: Iterable[Path | str], kind: str, group: str = "") -> list[KnownExamples]:
    """Read the perturbed images of measurements that record their sizes.

    Args:
        paths: Files of a kind with ``success``, ``perturbation_linf`` and ``perturbation_l2``,
            each an array [n] or [n, ...], or a group of such arrays by name.
        kind: That kind.
        group: Where these stand in the file; at its root if empty.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    found = []
    for file, settings in with_results(paths, kind):
        where = {name: settings[name] for name in SOLVED}
        index = file["index"][:]
        found_in = file[group] if group else file
        names = list(found_in[_LINF]) if isinstance(found_in[_LINF], h5py.Group) else [""]
        for name in names:
            success, linf, l2 = (found_in[f"{part}/{name}".rstrip("/")][:] for part in _PARTS)
            each = success[0].size if len(success) else 1
            found.append(
                KnownExamples(
                    where,
                    " ".join(filter(None, (kind, group, name))),
                    np.repeat(index, each),
                    success.ravel().astype(bool),
                    linf.ravel(),
                    l2.ravel(),
                )
            )
    return found


_PARTS = (_SUCCESS, _LINF, _L2)


def reevaluated(
    paths: Iterable[Path | str],
    sizes: Mapping[tuple[Any, ...], tuple[NDArray[np.int64], Floats, Floats]],
) -> list[KnownExamples]:
    """Read which adversarial examples of one tolerance fool others.

    Args:
        paths: Files of kind "reevaluated".
        sizes: By the values of `frame.CELL` but the gradient, of the attack cell: the rows of its
            images in the test set, and the sizes of what it returned, L-infinity and L2, all [n].

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    found = []
    for path in paths:
        with open_hdf5(path, "reevaluated") as file:
            settings = read_settings(file)
            index, labels = file["index"][:], file["labels"][:]
            fooled = file["adversarial_predictions"][:] != labels[:, None]
            tolerances = file["tolerances"][:]
        key = cell_key(settings)
        if key not in sizes:
            continue
        rows, linf, l2 = sizes[key]
        order = np.argsort(rows)
        at = order[np.searchsorted(rows, index, sorter=order)]
        for column, tolerance in enumerate(tolerances.tolist()):
            where = {name: settings[name] for name in SOLVED} | {"tolerance": tolerance}
            found.append(
                KnownExamples(
                    where,
                    f"{settings['attack']} at tau {settings['tolerance']:g}",
                    index,
                    fooled[:, column],
                    linf[at],
                    l2[at],
                )
            )
    return found


def cell_key(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells attack cells apart."""
    return tuple(settings[name] for name in (*SOLVED, "attack", "norm", "epsilon"))
