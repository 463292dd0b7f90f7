"""What a run cost: a row for each of its jobs, from Snakemake's benchmark files and the jobs' logs.

Tables hold only what configuration and seeds determine, the same in every run. Costs differ from
run to run, so they are no tables: they lie beside the manifest, and nothing depends on them.
"""

import csv
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.jobs.log import start_and_host
from node_robustness.numbers import from_token, token

_KEYS = {
    **dict.fromkeys(["dataset", "model"], "str"),
    "seed": "Int64",
    "tolerance": "float64",
    **dict.fromkeys(["attack", "norm"], "str"),
    "epsilon": "float64",
}
COLUMNS = {
    "rule": "str",
    **_KEYS,
    **dict.fromkeys(["images", "started_utc", "host"], "str"),
    **dict.fromkeys(["seconds", "cpu_seconds", "max_rss_mb", "nfe_mean"], "float64"),
}
"""The columns of `job_costs` and their types."""

# Of a job on a model; the names of other jobs say nothing that the rule does not.
_NAME = re.compile(
    r"(?P<dataset>[^/]+)/(?P<model>[^/]+)/seed-(?P<seed>\d+)"
    r"(/tau-(?P<tolerance>[^/]+))?"
    r"((/(?P<attack>[^/]+))?/(?P<norm>[^/]+)/eps-(?P<epsilon>[^/]+))?"
    r"(/(?P<images>\d+-\d+))?"
)
# The rules whose files the tables have evaluations of.
_SOLVED = ("evaluate", "attack", "merge")
_NO_TOLERANCE = "none"
_NOT_MEASURED = ("NA", "-")

Place = tuple[str | None, ...]
"""Where a job is in the grid: the values of `_KEYS` as a path spells them, or None."""


def job_costs(benchmarks: Iterable[Path], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tabulate what each job of an experiment cost when it last ran.

    Args:
        benchmarks: Snakemake's benchmark files, ``.../benchmarks/{rule}/....tsv``: tab-separated,
            with a header that has ``s`` (wall seconds), ``cpu_time`` (CPU seconds of all threads)
            and ``max_rss`` (MB), the last two ``NA`` for a job too short to be measured. The log
            of a job lies at the same place under ``logs``.
        tables: ``clean``, ``attacks``, ``randomisation`` and ``detection`` of the experiment. What
            is left of models and cells that are not in them, because the experiment had them once,
            is left out.

    Returns:
        One row a job, sorted by rule and coordinates, with the columns `COLUMNS`; what a job has
        not is missing. ``started_utc`` (ISO 8601) and ``host`` are missing where the log is gone.
        ``nfe_mean``: evaluations of the ODE function an image, of an evaluation the mean over the
        images, of an attack the mean over the adversarials that it found. ``images``: which ones a
        shard of an attack had, such as ``0-50``.
    """
    nfe = _nfe_by_place(tables)
    rows = []
    for path in benchmarks:
        rule, name = _rule_and_name(path)
        found = _NAME.fullmatch(name)
        if found is None:
            rows.append({"rule": rule, **_cost(path)})
            continue
        place = tuple(found[key] for key in _KEYS)
        if place in nfe:
            row = {"rule": rule, **_numbers(place), "images": found["images"], **_cost(path)}
            rows.append(row | ({"nfe_mean": nfe[place]} if rule in _SOLVED else {}))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return frame.sort_values(["rule", *_KEYS, "images"], ignore_index=True)


def stages(costs: pd.DataFrame) -> list[dict[str, Any]]:
    """Sum the costs of jobs by rule.

    Args:
        costs: Result of `job_costs`.

    Returns:
        For every rule ``rule``, ``jobs``, ``started_utc`` of the first one, ``seconds`` and
        ``cpu_seconds`` (sums over the jobs), and ``max_rss_mb`` (the largest of a job); None for
        what is not known of any job.
    """
    return [
        {
            "rule": rule,
            "jobs": len(own),
            "started_utc": min(own.started_utc.dropna(), default=None),
            "seconds": float(own.seconds.sum()),
            "cpu_seconds": _or_none(own.cpu_seconds.sum(min_count=1)),
            "max_rss_mb": _or_none(own.max_rss_mb.max()),
        }
        for rule, own in costs.groupby("rule")
    ]


def _nfe_by_place(tables: Mapping[str, pd.DataFrame]) -> dict[Place, float]:
    """Every place in the grid at which an experiment has jobs; evaluations where they are known."""
    clean = {_place(row): float(row["nfe_mean"]) for row in _rows(tables["clean"])}
    attacked = {_place(row): float(row["nfe_adversarial_mean"]) for row in _rows(tables["attacks"])}
    defences = ("randomisation", "detection")
    defended = [_place(row) for name in defences for row in _rows(tables[name])]
    trained = [(*place[:3], *[None] * (len(_KEYS) - 3)) for place in clean]
    return dict.fromkeys([*trained, *defended], math.nan) | clean | attacked


def _rows(table: pd.DataFrame) -> Iterator[Mapping[Any, Any]]:
    yield from table.to_dict("records")


def _place(row: Mapping[Any, Any]) -> Place:
    """The place of a row of a table."""
    texts = {key: str(row[key]) if key in row else None for key in _KEYS}
    if "tolerance" in row:
        missing = pd.isna(row["tolerance"])
        texts["tolerance"] = _NO_TOLERANCE if missing else token(row["tolerance"])
    if "epsilon" in row:
        texts["epsilon"] = token(row["epsilon"])
    return tuple(texts.values())


def _numbers(place: Place) -> dict[str, Any]:
    """The coordinates of a place, its tolerance and epsilon as numbers."""
    values: dict[str, Any] = dict(zip(_KEYS, place, strict=True))
    for key in ("tolerance", "epsilon"):
        text = values[key]
        values[key] = None if text in (None, _NO_TOLERANCE) else from_token(text)
    return values | {"seed": int(values["seed"])}


def _rule_and_name(path: Path) -> tuple[str, str]:
    # The last such folder: an experiment, or a folder above it, may bear the name too.
    below = path.parts[_index(path) + 1 :]
    return below[0], "/".join(below[1:]).removesuffix(".tsv")


def _index(path: Path) -> int:
    return len(path.parts) - 1 - path.parts[::-1].index("benchmarks")


def _cost(path: Path) -> dict[str, Any]:
    """What a benchmark file and the log of the job say."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    cpu, memory = (
        [float(row[column]) for row in rows if row.get(column, "NA") not in _NOT_MEASURED]
        for column in ("cpu_time", "max_rss")
    )
    parts = list(path.with_suffix(".log").parts)
    parts[_index(path)] = "logs"
    started, host = start_and_host(Path(*parts)) or (None, None)
    return {
        "started_utc": started,
        "host": host,
        "seconds": math.fsum(float(row["s"]) for row in rows),
        "cpu_seconds": math.fsum(cpu) if cpu else math.nan,
        "max_rss_mb": max(memory, default=math.nan),
    }


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
