"""What all tables share: the columns that name a cell, and how rows are collected and written."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from node_robustness.files.atomic import atomic_path
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.files.records import not_measured
from node_robustness.numbers import label
from node_robustness.statistics import proportions
from node_robustness.statistics.proportions import Estimate

SOLVED = {
    "experiment": "str",
    "dataset": "str",
    "model": "str",
    "seed": "int64",
    "tolerance": "float64",
}
OWN, NO_ODE = "own", "no ODE"
"""What stands for a tolerance that there is not: a model solved as its author set it, and a model
without an ODE."""

CELL = {**SOLVED, "attack": "str", "gradient": "str", "norm": "str", "epsilon": "float64"}


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


def tau_of(tolerance: float | None, ode: bool) -> str:
    """A tolerance for people: `0.1`; `own` or `no ODE` where there is none.

    Args:
        tolerance: The tolerance; None or NaN without one.
        ode: Whether the model solves an ODE.
    """
    if tolerance is None or math.isnan(tolerance):
        return OWN if ode else NO_ODE
    return label(float(tolerance))


def tau_words(tau: str) -> str:
    """What `tau_of` says, in a sentence: `τ = 0.1`, `own settings` or `no ODE`."""
    return {OWN: "own settings", NO_ODE: NO_ODE}.get(tau, f"τ = {tau}")


def without_tolerance(frame: pd.DataFrame) -> list[str]:
    """The models of a frame that no tolerance bounds: equal steps, own settings alone, no ODE."""
    bounded = set(frame.model[frame.tolerance.notna()])
    return [model for model in dict.fromkeys(frame.model) if model not in bounded]


def with_results(
    paths: Iterable[Path | str], kind: str
) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Open files one after the other, without those that say why they hold no results.

    Args:
        paths: Files of one kind.
        kind: That kind.

    Yields:
        The open file and its settings.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    for path in paths:
        with open_hdf5(path, kind) as file:
            rows = next((file[name] for name in ("index", "t") if name in file), ())
            if len(rows) or not not_measured(file):
                yield file, read_settings(file)


def lacks(paths: Iterable[Path | str], kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """The settings of those files that lack something, and why, in sentences."""
    for path in paths:
        with open_hdf5(path, kind) as file:
            if why := not_measured(file):
                yield read_settings(file), why


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
    for file, settings in with_results(paths, kind):
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
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name, math.nan) for row in found], dtype=kind)
            for name, kind in columns.items()
        }
    )


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, each as its values by column."""
    # Several times as fast as `to_dict`, which looks at each value of each row.
    columns = {str(name): column.tolist() for name, column in frame.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def natural(value: str | float) -> tuple[Any, ...]:
    """Return a sort key: text with its digits as numbers (cifar10 < cifar100), NaN last."""
    if isinstance(value, str):
        return tuple(
            (0, int(part), "") if part.isdigit() else (1, 0, part)
            for part in re.split(r"([0-9]+)", value)
            if part
        )
    return (math.isnan(value), 0.0 if math.isnan(value) else value)


def rate(prefix: str, name: str, count: float, n: int) -> dict[str, float]:
    """Return a rate as column ``name``, its exact 95 % bounds as ``{prefix}_low``, ``_high``."""
    low, high = proportions.interval(count, n)
    return {name: count / n if n else math.nan, f"{prefix}_low": low, f"{prefix}_high": high}


BOUNDS = ("", "_low", "_high")
"""What follows the name of a value in its column and in those of its bounds."""


def bounded(name: str, estimate: Estimate) -> dict[str, float]:
    """Return a value as column ``name``, its bounds as ``{name}_low``, ``_high``."""
    return {f"{name}{bound}": value for bound, value in zip(BOUNDS, estimate, strict=True)}
