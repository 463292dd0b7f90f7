"""Tables of an experiment: every cell file becomes a few rows of numbers.

Pure functions of the files: the same files give the same rows in the same order, whatever the
order of the paths.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from node_robustness.statistics import wilson
from node_robustness.storage import atomic_path, open_hdf5, read_settings

SOLVED = {
    "experiment": "str",
    "dataset": "str",
    "model": "str",
    "seed": "int64",
    "tolerance": "float64",
}
CELL = {**SOLVED, "attack": "str", "gradient": "str", "norm": "str", "epsilon": "float64"}

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
        [0, 1] with 95 % Wilson bounds ``_low`` and ``_high``; ``nfe_*``: evaluations of the ODE
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
        figures of the best one by validation accuracy, whose weights were kept (see
        `training.Row`).
    """
    rows = []
    for path in map(Path, paths):
        history = pd.read_csv(path)
        # Of equals the first, as in training.
        ranked = history.sort_values("validation_accuracy", ascending=False, kind="stable")
        best = ranked.iloc[0].to_dict()
        experiment, dataset, model, seed = path.parts[-5:-1]
        where = {"experiment": experiment, "dataset": dataset, "model": model}
        row = where | {"seed": int(seed.removeprefix("seed-")), "epochs": len(history)}
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
        [0, 1] with 95 % Wilson bounds. ``iterations_mean``, ``perturbation_*_mean`` (plain norms,
        images in [0, 1]) and ``nfe_*_mean`` are over the successes, NaN where there are none.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "attack", _attack_rows, _ATTACKS)


def write_table(
    frame: pd.DataFrame,
    csv_path: Path | str,
    parquet_path: Path | str,
    provenance: Mapping[str, Any],
) -> None:
    """Write a table as CSV (ten significant digits, no comments) and as Parquet (exact).

    Args:
        frame: The table.
        csv_path: Where the CSV goes.
        parquet_path: Where the Parquet file goes.
        provenance: What made the table, as JSON under the Parquet metadata key
            ``node_robustness``; a CSV has no place for it that every reader would skip.
    """
    table = pa.Table.from_pandas(frame, preserve_index=False)
    made_by = json.dumps(provenance, sort_keys=True).encode()
    table = table.replace_schema_metadata({**table.schema.metadata, b"node_robustness": made_by})
    with atomic_path(csv_path) as path:
        frame.to_csv(path, index=False, float_format="%.10g", lineterminator="\n")
    with atomic_path(parquet_path) as path:
        pq.write_table(table, path)


Rows = Iterator[dict[str, Any]]


def collect(
    paths: Iterable[Path | str],
    kind: str,
    rows: Callable[[h5py.File, dict[str, Any]], Rows],
    columns: Mapping[str, str],
) -> pd.DataFrame:
    """Make a table from files, each of which gives some rows.

    Args:
        paths: Files of one kind, in any order.
        kind: That kind.
        rows: From an open file and its settings to its rows; the coordinates of its cell are
            added here.
        columns: The type of every column, in their order.

    Returns:
        The rows of all files, sorted by the coordinates of their cells.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    found = []
    for path in paths:
        with open_hdf5(path, kind) as file:
            settings = read_settings(file)
            where = {name: settings[name] for name in CELL if name in columns and name in settings}
            found += [where | row for row in rows(file, settings)]
    # Sorting is stable: rows of one cell keep the order in which the file gave them.
    return tabulate(sorted(found, key=place), columns)


def place(row: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """Return the sort key of a row: its coordinates, and what else tells rows of a cell apart."""
    known = (row[column] for column in (*CELL, "t", "nfe") if column in row)
    return [natural(math.nan if value is None else value) for value in known]


def tabulate(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Make a table of rows, in the order given.

    Args:
        rows: Values by column; None is a tolerance that there is not.
        columns: The type of every column, in their order.

    Returns:
        The table, with NaN where a row has no value.
    """
    found = [
        {**row, "tolerance": math.nan} if row.get("tolerance", 0) is None else row for row in rows
    ]
    return pd.DataFrame(found, columns=list(columns)).astype(dict(columns))


def natural(value: str | float) -> tuple[Any, ...]:
    """Return a sort key: text with its digits as numbers (cifar10 < cifar100), NaN last."""
    if isinstance(value, str):
        return tuple(
            (0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"([0-9]+)", value)
            if part
        )
    return (math.isnan(value), 0.0 if math.isnan(value) else value)


def _mean(values: NDArray[Any]) -> float:
    return float(np.mean(values, dtype=np.float64)) if len(values) else math.nan


def rate(prefix: str, name: str, count: float, n: int) -> dict[str, float]:
    """Return a rate as column ``name``, its 95 % Wilson bounds as ``{prefix}_low``, ``_high``."""
    low, high = wilson(count, n)
    return {name: count / n if n else math.nan, f"{prefix}_low": low, f"{prefix}_high": high}


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
