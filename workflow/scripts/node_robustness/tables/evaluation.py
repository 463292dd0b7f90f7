"""Tables of an experiment: every cell file becomes a few rows of numbers.

Pure functions of the files: the same files give the same rows in the same order, whatever the
order of the paths.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.grid.paths import TRAINED, read, result
from node_robustness.tables.frame import CELL, SOLVED, Rows, collect, natural, rate, tabulate

_CLEAN = {
    **SOLVED,
    **dict.fromkeys(["n", "correct"], "int64"),
    **dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high"], "float64"),
    **dict.fromkeys(["error", "error_low", "error_high"], "float64"),
    **dict.fromkeys(["nfe_mean", "nfe_sd", "nfe_min", "nfe_median", "nfe_max"], "float64"),
}
_TRAINING = {
    **{name: kind for name, kind in SOLVED.items() if name != "tolerance"},
    **dict.fromkeys(["epochs", "best_epoch"], "int64"),
    **dict.fromkeys(["validation_accuracy", "validation_loss"], "float64"),
    **dict.fromkeys(["train_accuracy", "train_loss", "nfe_mean"], "float64"),
}
_NFE = {**SOLVED, "nfe": "int64", "images": "int64"}
_OF_SUCCESSES = (
    "iterations",
    "perturbation_linf",
    "perturbation_l2",
    "nfe_clean",
    "nfe_adversarial",
)
_ATTACKS = {
    **CELL,
    **dict.fromkeys(["n", "attacked", "skipped", "successes"], "int64"),
    **dict.fromkeys(["success_rate", "success_low", "success_high"], "float64"),
    "robust": "int64",
    **dict.fromkeys(["robust_accuracy", "robust_low", "robust_high"], "float64"),
    **{f"{name}_mean": "float64" for name in _OF_SUCCESSES},
}


def clean_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate accuracy and solver cost on clean images.

    Args:
        paths: Files of kind "clean".

    Returns:
        One row a file, sorted by experiment, dataset, model, seed, tolerance (NaN, for a model
        without an ODE, last). ``n`` images, ``correct`` of them; ``accuracy`` and ``error`` in
        [0, 1] with exact 95 % bounds ``_low`` and ``_high``; ``nfe_*``: evaluations of the ODE
        function an image (``sd`` is the sample standard deviation), NaN without an ODE.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "clean", _clean_rows, _CLEAN)


def training_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how training ended.

    Args:
        paths: Histories, ``.../{experiment}/{dataset}/{model}/seed-{seed}/history.csv``.

    Returns:
        One row a file, sorted by experiment, dataset, model, seed: the ``epochs`` trained and the
        values of the best one by validation accuracy, whose weights were kept (see
        `train.Row`).
    """
    rows = []
    for path in map(Path, paths):
        history = pd.read_csv(path)
        # Of equals the first, as in training.
        ranked = history.sort_values("validation_accuracy", ascending=False, kind="stable")
        best = ranked.iloc[0].to_dict()
        where = read(result(TRAINED, "history.csv"), path)
        row: dict[Any, Any] = where | {"epochs": len(history)}
        rows.append(row | {"best_epoch": best["epoch"]} | best)
    rows.sort(
        key=lambda row: [natural(row[name]) for name in ("experiment", "dataset", "model", "seed")]
    )
    return tabulate(rows, _TRAINING)


def nfe_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Count images by the number of function evaluations that they took.

    Args:
        paths: Files of kind "clean".

    Returns:
        One row for every file and occurring ``nfe``, with the number of ``images``, sorted like
        `clean_table` and by ``nfe``; no rows for models without an ODE.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "clean", _nfe_rows, _NFE)


def attack_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate what attacks achieved.

    Args:
        paths: Files of kind "attack".

    Returns:
        One row a file, sorted by experiment, dataset, model, seed, tolerance, attack, norm,
        epsilon. Of the ``n`` images those that were classified correctly at that tolerance were
        ``attacked``, but for those ``skipped`` because cheaper attacks had broken them;
        ``success_rate`` is ``successes / attacked``, the paper's definition (NaN if none was
        attacked); ``robust_accuracy`` is ``robust / n``, images that stayed correct under this
        attack and, where it skipped any, under those cheaper ones. Both in
        [0, 1] with exact 95 % bounds. ``iterations_mean``, ``perturbation_*_mean`` (plain norms,
        images in [0, 1]) and ``nfe_*_mean`` are over the successes, NaN where there are none.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "attack", _attack_rows, _ATTACKS)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan


def _clean_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    labels = file["labels"][:]
    n, correct = len(labels), int(np.sum(file["predictions"][:] == labels))
    row: dict[str, float] = {"n": n, "correct": correct}
    row |= rate("accuracy", "accuracy", correct, n) | rate("error", "error", n - correct, n)
    if "nfe" in file and n:
        nfe = file["nfe"][:].astype(float)
        row |= {
            "nfe_mean": nfe.mean(),
            "nfe_sd": nfe.std(ddof=1) if n > 1 else math.nan,
            "nfe_min": nfe.min(),
            "nfe_median": np.median(nfe),
            "nfe_max": nfe.max(),
        }
    yield row


def _nfe_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    if "nfe" in file:
        for nfe, images in zip(*np.unique(file["nfe"][:], return_counts=True), strict=True):
            yield {"nfe": int(nfe), "images": int(images)}


def _attack_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    attacked, success = file["attacked"][:], file["success"][:]
    n, tried, successes = len(attacked), int(attacked.sum()), int(success.sum())
    row: dict[str, float] = {"n": n, "attacked": tried, "skipped": int(file["skipped"][:].sum())}
    row["successes"] = successes
    row["robust"] = tried - successes
    row |= rate("success", "success_rate", successes, tried)
    row |= rate("robust", "robust_accuracy", tried - successes, n)
    for name in _OF_SUCCESSES:
        if name in file:
            row[f"{name}_mean"] = _mean(file[name][:][success])
    yield row
