"""What a run cost: a row for each of its jobs, from Snakemake's benchmark files and the jobs' logs.

Tables hold only what configuration and seeds determine, the same in every run. Costs differ from
run to run, so they are no tables: they lie next to the manifest, and nothing depends on them.
"""

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.grid import paths
from node_robustness.jobs.log import start_and_host

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

# The rules whose files the tables have evaluations of.
_SOLVED = ("evaluate", "attack", "merge")
_NOT_MEASURED = ("NA", "-")


def job_costs(benchmarks: Iterable[Path], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tabulate what each job of an experiment cost when it last ran.

    Args:
        benchmarks: Snakemake's benchmark files, ``.../benchmarks/{rule}/....tsv``: tab-separated,
            with a header that has ``s`` (wall seconds), ``cpu_time`` (CPU seconds of all threads)
            and ``max_rss`` (MB), the last two ``NA`` for a job too short to be measured. The log
            of a job lies at the same place under ``logs``.
        tables: ``clean``, ``attacks``, ``randomisation``, ``detection``, ``adjoint_sweep`` and
            ``cost`` of the experiment. What is left of models and cells that are not in them,
            because the experiment had them once, is left out.

    Returns:
        One row a job, sorted by rule and coordinates, with the columns `COLUMNS`; what a job has
        not is missing. ``started_utc`` (ISO 8601) and ``host`` are missing where the log is gone.
        ``nfe_mean``: evaluations of the ODE function an image, of an evaluation the mean over the
        images, of an attack the mean over the adversarial examples. ``images``: those of a shard of
        an attack, such as ``0-50``.
    """
    nfe = _nfe_by_place(tables)
    rows = []
    for path in benchmarks:
        rule, place = paths.rule_and_place(path)
        # The places of other jobs say nothing that the rule does not.
        found = paths.read_place(place) or {}
        images = found.pop("shard", None)
        place = place.removesuffix(f"/{images}")
        if not found or place in nfe:
            evaluations = nfe.get(place) if rule in _SOLVED else None
            row = {"rule": rule, **found, "images": images, "nfe_mean": evaluations}
            rows.append(row | _cost(path))
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


def _nfe_by_place(tables: Mapping[str, pd.DataFrame]) -> dict[str, float | None]:
    """Every place in the grid at which an experiment has jobs; evaluations where they are known."""
    clean, attacks, randomised, detected, swept, cost = (
        [
            {key: None if pd.isna(value) else value for key, value in row.items()}
            for row in tables[name].to_dict("records")
        ]
        for name in ("clean", "attacks", "randomisation", "detection", "adjoint_sweep", "cost")
    )
    return {
        **{paths.fill(paths.TRAINED, row): math.nan for row in clean},
        **{paths.fill(paths.SOLVED, row): row["nfe_mean"] for row in clean},
        **{paths.fill(paths.CELL, row): row["nfe_adversarial_mean"] for row in attacks},
        **{paths.fill(paths.RANDOMISED, row): math.nan for row in randomised},
        **{paths.fill(paths.DETECTED, row): math.nan for row in detected},
        **{paths.fill(paths.SWEPT, row): math.nan for row in swept},
        **{paths.fill(paths.COST, row): math.nan for row in cost},
    }


def _cost(path: Path) -> dict[str, Any]:
    """What a benchmark file and the log of the job say."""
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    cpu, memory = (
        [float(row[column]) for row in rows if row.get(column, "NA") not in _NOT_MEASURED]
        for column in ("cpu_time", "max_rss")
    )
    started, host = start_and_host(paths.log_of(path)) or (None, None)
    return {
        "started_utc": started,
        "host": host,
        "seconds": math.fsum(float(row["s"]) for row in rows),
        "cpu_seconds": math.fsum(cpu) if cpu else math.nan,
        "max_rss_mb": max(memory, default=math.nan),
    }


def _or_none(value: float) -> float | None:
    return None if pd.isna(value) else float(value)
