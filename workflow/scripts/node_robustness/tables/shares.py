"""Tables of which part of the dynamics loses the margin: shares of h(0) and of parts, and patches.

Pure functions of the files, like those of `trajectories`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.statistics import ratios
from node_robustness.tables.frame import BOUNDS, CELL, Rows, bounded, collect, rate
from node_robustness.trajectories.layout import SHARED

START, PART = "h(0)", "part"
"""The players of the game whose shares are measured."""

PATCHES = ("repaired", "inserted")

_SHARES = {
    **CELL,
    **dict.fromkeys(["perturbation", "player"], "str"),
    **dict.fromkeys(["start", "end"], "float64"),
    "n": "int64",
    **{f"{name}{bound}": "float64" for name in ("share", "fraction") for bound in BOUNDS},
    **dict.fromkeys(["half_a", "half_b", "loss", "error"], "float64"),
}
_PATCHES = {
    **CELL,
    **dict.fromkeys(["start", "end"], "float64"),
    **{
        column: kind
        for patch in PATCHES
        for column, kind in {
            f"{patch}_of": "int64",
            patch: "int64",
            **{f"{patch}_{part}": "float64" for part in ("rate", "low", "high")},
        }.items()
    },
}


def share_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate which part of the loss of margin comes from h(0) and from each part of the body.

    Args:
        paths: Files of kind "trajectory".

    Returns:
        One row for every file, ``perturbation`` (`layout.SHARED`) and ``player``: ``h(0)``, or a
        ``part`` of the body from ``start`` to ``end``. Over the ``n`` images that the strong
        adversarial example misleads and whose solves did not fail: the mean ``share`` in logits
        with Student's interval, and the ``fraction`` of the loss (the sum of shares over the sum of
        losses) with Fieller's, NaN where the interval of the mean loss contains 0; the fraction on
        images at even and at odd positions (``half_a``, ``half_b``); the mean ``loss``; and the
        median of |completeness error| over |loss| (``error``). NaN without an image.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    return collect(paths, "trajectory", _share_rows, _SHARES)


def patch_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate what patching an interval of t does to the decision on strong adversarial examples.

    Args:
        paths: Files of kind "trajectory".

    Returns:
        One row a file and interval from ``start`` to ``end``: of how many adversarial examples
        (``repaired_of``, those for which the test could be made) undoing what this interval adds to
        the perturbation restores the decision (``repaired``, as a ``_rate`` with exact 95 %
        bounds); of how many clean images putting it in takes the decision away (``inserted``, as a
        rate, too).

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    return collect(paths, "trajectory", _patch_rows, _PATCHES)


def even_positions(n: int) -> NDArray[np.bool_]:
    """The first of the two halves of n images: those at even positions among the followed ones.

    They are the same images for every network, but for attacks that leave out images which cheaper
    ones broke.
    """
    half: NDArray[np.bool_] = np.arange(n) % 2 == 0
    return half


def _share_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    misled = file["strong/success"][:]
    even = even_positions(len(misled))[misled]
    for perturbation in SHARED:
        loss = _of(file, f"shares/{perturbation}/loss")[misled]
        error = _of(file, f"shares/{perturbation}/error")[misled]
        about = {
            "perturbation": perturbation,
            "n": int(np.isfinite(loss).sum()),
            "loss": ratios.mean(loss).value,
            "error": _median(np.abs(error), np.abs(loss)),
        }
        for player, start, end, shares in _players(file, perturbation):
            own = shares[misled]
            halves = (ratios.fraction(own[half], loss[half]).value for half in (even, ~even))
            yield (
                about
                | {"player": player, "start": start, "end": end}
                | bounded("share", ratios.mean(own))
                | bounded("fraction", ratios.fraction(own, loss))
                | dict(zip(("half_a", "half_b"), halves, strict=True))
            )


def _players(
    file: h5py.File, perturbation: str
) -> Iterator[tuple[str, float, float, NDArray[np.float64]]]:
    """Every player with the t where it begins and ends, and its shares of all images."""
    ends = file["shares/ends"][:]
    yield START, 0.0, 0.0, _of(file, f"shares/{perturbation}/start")
    parts = _of(file, f"shares/{perturbation}/parts")
    for k in range(len(ends) - 1):
        yield PART, float(ends[k]), float(ends[k + 1]), parts[:, k]


def _of(file: h5py.File, name: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = file[name][:].astype(float)
    return values


def _median(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> float:
    known = np.isfinite(top) & np.isfinite(bottom) & (bottom > 0)
    return float(np.median(top[known] / bottom[known])) if known.any() else np.nan


def _patch_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    outcomes = {patch: file[f"causal/{patch}"][:] for patch in PATCHES}
    for i, (start, end) in enumerate(file["causal/intervals"][:]):
        row: dict[str, Any] = {"start": float(start), "end": float(end)}
        for patch, outcome in outcomes.items():
            tried, changed = int((outcome[:, i] >= 0).sum()), int((outcome[:, i] == 1).sum())
            row |= {f"{patch}_of": tried, patch: changed}
            row |= rate(patch, f"{patch}_rate", changed, tried)
        yield row
