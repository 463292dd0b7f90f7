"""What the images of a cell say together about its dynamics, with intervals.

Pure functions of the table of images (`trajectories.image_table`).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.statistics.intervals import (
    auc_with_interval,
    median_with_interval,
    roc,
)
from node_robustness.tables.frame import BOUNDS, CELL, bounded, rate, tabulate

SCORES = {"nfe": 1, "first_step": -1}
"""What may give an adversarial example away in the solver's steps: more evaluations, or a shorter
first step. The sign is that of what is suspicious."""

_GROUPS = {"success": "attack", "failed": "attack", "noise": "noise"}
_MEDIANS = (
    "amplification",
    "peak_growth",
    "peak_t",
    "lyapunov_along",
    "flip_head",
    "flip_probe",
    "nfe",
    "accepted",
)
_SUMMARY = {
    **CELL,
    **{"group": "str", "n": "int64"},
    **{f"{name}{part}": "float64" for name in (*_MEDIANS, "over_noise") for part in BOUNDS},
    "flipped": "int64",
    **{f"flipped{part}": "float64" for part in ("_rate", "_low", "_high")},
    **{f"{score}_auc{part}": "float64" for score in SCORES for part in BOUNDS},
}
_ROC = {
    **CELL,
    **{"group": "str", "score": "str"},
    **dict.fromkeys(["false_positive_rate", "true_positive_rate"], "float64"),
}
_ROC_POINTS = 200


def summary_table(images: pd.DataFrame) -> pd.DataFrame:
    """Summarise the followed images of every cell.

    Args:
        images: Result of `trajectories.image_table`.

    Returns:
        One row a cell and ``group`` of ``n`` images: ``success`` and ``failed`` by the attack, and
        ``noise`` (of all images). Medians with 95 % bounds (``_low``, ``_high``) of what the table
        of images has of the group's perturbation; ``over_noise``: of the ratio, image by image, of
        the amplification by the attack and that of the noise; ``flipped`` of the images leave the
        clean decision for good, as the head reads it, and ``flip_*`` is over these.
        ``nfe_auc``, ``first_step_auc``: area under the ROC curve of a detector that suspects more
        evaluations, or a shorter first step, against the clean runs of all images. NaN without
        values, and for bounds of medians of fewer than six images.
    """
    rows = [where | _summary(cell, group) for where, cell in _cells(images) for group in _GROUPS]
    return tabulate(rows, _SUMMARY)


def roc_table(images: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the ROC curves of detectors that look at the solver's steps alone.

    Args:
        images: Result of `trajectories.image_table`.

    Returns:
        For every cell, ``group`` and ``score`` (``nfe``, ``first_step``) that both it and the clean
        runs have, the points of the curve, at most 200.
    """
    rows = []
    for where, cell in _cells(images):
        for group in _GROUPS:
            for score in SCORES:
                clean, suspect = _scores(cell, group, score)
                if not len(clean) or not len(suspect):
                    continue
                false, true, _ = roc(clean, suspect)
                kept = np.linspace(0, len(false) - 1, _ROC_POINTS).round().astype(int)
                rows += [
                    where
                    | {"group": group, "score": score}
                    | {"false_positive_rate": false[i], "true_positive_rate": true[i]}
                    for i in np.unique(kept)
                ]
    return tabulate(rows, _ROC)


def _cells(images: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    for key, cell in images.groupby(list(CELL), sort=False, dropna=False):
        yield dict(zip(CELL, key, strict=True)), cell


def _of_group(cell: pd.DataFrame, group: str) -> pd.DataFrame:
    return cell if group == "noise" else cell[cell.group == group]


def _summary(cell: pd.DataFrame, group: str) -> dict[str, Any]:
    own, run = _of_group(cell, group), _GROUPS[group]
    row: dict[str, Any] = {"group": group, "n": len(own)}
    for name in _MEDIANS:
        row |= bounded(name, median_with_interval(own[f"{name}_{run}"]))
    flipped = int(own[f"flip_head_{run}"].notna().sum())
    row |= {"flipped": flipped} | rate("flipped", "flipped_rate", flipped, len(own))
    if run == "attack":
        over = own.amplification_attack / own.amplification_noise
        row |= bounded("over_noise", median_with_interval(over))
    for score in SCORES:
        clean, suspect = _scores(cell, group, score)
        if len(clean) and len(suspect):
            row |= bounded(f"{score}_auc", auc_with_interval(clean, suspect))
    return row


def _scores(cell: pd.DataFrame, group: str, score: str) -> tuple[pd.Series, pd.Series]:
    """Scores of the clean runs, and of the runs of a group."""
    clean = cell[f"{score}_clean"].dropna()
    suspect = _of_group(cell, group)[f"{score}_{_GROUPS[group]}"].dropna()
    return SCORES[score] * clean, SCORES[score] * suspect
