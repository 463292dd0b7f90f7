"""The table of the attack on the cost, a pure function of its files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from node_robustness.statistics import proportions
from node_robustness.statistics.intervals import median_with_interval
from node_robustness.tables.frame import SOLVED, Rows, collect

_RUNS = ("clean", "noise", "attacked")
_COLUMNS = {
    **SOLVED,
    **{"norm": "str", "epsilon": "float64", "n": "int64"},
    **{f"nfe_{run}_{part}": "float64" for run in _RUNS for part in ("mean", "max")},
    **{
        f"{name}{part}": "float64"
        for name in ("ratio", "noise_ratio", "increased", "kept")
        for part in ("", "_low", "_high")
    },
    "ratio_max": "float64",
    "successes": "int64",
    "level": "str",
}


def cost_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how much more work an attack causes.

    Args:
        paths: Files of kind "cost".

    Returns:
        One row for every network, tolerance, norm and epsilon: mean and largest number of function
        evaluations over ``n`` images, clean, with random noise and attacked; the median over images
        of ``ratio``, attacked over clean, and of ``noise_ratio``, with their distribution-free 95 %
        intervals, and the largest ratio; the shares of the images whose cost is ``increased`` and
        whose prediction is ``kept``, with exact intervals; ``successes``: images that were right
        and, when attacked, are misclassified.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "cost", _rows, _COLUMNS)


def _rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    nfe = {run: file[f"nfe_{run}"][:].astype(float) for run in _RUNS}
    n = len(nfe["clean"])
    ratio = nfe["attacked"] / nfe["clean"]
    row = {name: settings[name] for name in ("norm", "epsilon")} | {"n": n}
    for run, values in nfe.items():
        row |= {f"nfe_{run}_mean": values.mean(), f"nfe_{run}_max": values.max()}
    for name, values in (("ratio", ratio), ("noise_ratio", nfe["noise"] / nfe["clean"])):
        row |= _estimate(name, *median_with_interval(values))
    same = file["attacked_predictions"][:] == file["clean_predictions"][:]
    for name, holds in (("increased", ratio > 1), ("kept", same)):
        row |= _estimate(name, holds.mean(), *proportions.interval(int(holds.sum()), n))
    row |= {"ratio_max": ratio.max(), "successes": int(file["success"][:].sum())}
    yield row | {"level": "this network"}


def _estimate(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}
