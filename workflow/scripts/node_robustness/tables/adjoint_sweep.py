"""The table of the adjoint-tolerance sweep, a pure function of its files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from node_robustness.statistics import paired, proportions
from node_robustness.tables.frame import CELL, Rows, collect

_COLUMNS = {
    **CELL,
    "backward_tolerance": "float64",
    **dict.fromkeys(["n", "correct", "successes"], "int64"),
    **dict.fromkeys(["robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"], "float64"),
    **dict.fromkeys(["difference", "difference_low", "difference_high"], "float64"),
    "cosine_median": "float64",
    "level": "str",
}


def sweep_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate what the paper's attack leaves with its adjoint solved at several tolerances.

    Args:
        paths: Files of kind "adjoint_sweep".

    Returns:
        One row for every network, forward ``tolerance``, norm, epsilon and ``gradient``
        (``direct``, or ``adjoint`` at a ``backward_tolerance``): of ``n`` images those classified
        ``correct`` without an attack, the ``successes`` among these, ``robust_accuracy`` with its
        exact 95 % interval over images, its ``difference`` to that under the direct gradient with
        an interval for the same images, and the median cosine with the direct gradient at the
        clean images.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "adjoint_sweep", _rows, _COLUMNS)


def _rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    correct, success = file["correct"][:], file["success"][:]
    robust = correct[:, None] & ~success
    n, left = len(robust), robust.sum(0)
    low, high = proportions.interval(left, n)
    # The first column is the direct gradient.
    gained, lost = (robust & ~robust[:, :1]).sum(0), (robust[:, :1] & ~robust).sum(0)
    less, more = paired.interval(gained, lost, n)
    for column, tolerance in enumerate(file["backward_tolerances"][:]):
        cosine = file["cosine"][:, column]
        known = cosine[np.isfinite(cosine)]
        row = {
            "norm": settings["norm"],
            "epsilon": settings["epsilon"],
            "gradient": "adjoint" if column else "direct",
            "backward_tolerance": float(tolerance),
            "n": n,
            "correct": int(correct.sum()),
            "successes": int(success[:, column].sum()),
            "robust_accuracy": left[column] / n,
            "robust_accuracy_low": low[column],
            "robust_accuracy_high": high[column],
            "cosine_median": float(np.median(known)) if len(known) else np.nan,
            "level": "this network",
        }
        if column:
            difference = (gained[column] - lost[column]) / n
            row |= {"difference": difference}
            row |= {"difference_low": less[column], "difference_high": more[column]}
        yield row
