"""What a run cost: a row for each of its jobs, from the records in the jobs' logs.

Tables hold only what configuration and seeds determine, the same in every run. Costs differ from
run to run, so they are no tables: they lie next to the manifest, and nothing depends on them.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from node_robustness.grid import paths
from node_robustness.scheduling.job_costs import JobCost

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
    **dict.fromkeys(["seconds", "start_seconds", "computing_seconds"], "float64"),
    **dict.fromkeys(["cpu_seconds", "max_rss_mb", "nfe_mean"], "float64"),
}
"""The columns of `job_costs` and their types."""

_SUMMED = ("seconds", "start_seconds", "computing_seconds", "cpu_seconds")
# The rules whose files the tables have evaluations of.
_SOLVED = ("evaluate", "attack", "merge")


def job_costs(jobs: Iterable[JobCost], tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tabulate what each job of an experiment cost when it last ran.

    Args:
        jobs: Result of `scheduling.job_costs.read`, of the experiment and of the resources.
        tables: ``clean``, ``attacks``, ``randomisation``, ``detection``, ``adjoint_sweep`` and
            ``cost`` of the experiment. What is left of models and cells that are not in them,
            because the experiment had them once, is left out.

    Returns:
        One row a job, sorted by rule and coordinates, with the columns `COLUMNS`; what a job has
        not is missing. For the costs see `scheduling.job_costs.Spent`. ``nfe_mean``: evaluations of
        the ODE function an image, of an evaluation the mean over the images, of an attack the mean
        over the adversarial examples. ``images``: those of a shard of an attack, such as ``0-50``.
    """
    nfe = _nfe_by_place(tables)
    rows = []
    for job in jobs:
        images = job.coordinates.get("shard")
        place = job.place.removesuffix(f"/{images}")
        # The places of jobs without coordinates say nothing that the rule does not.
        if not job.coordinates or place in nfe:
            evaluations = nfe.get(place) if job.rule in _SOLVED else None
            row = {"rule": job.rule, **job.coordinates, "images": images, "nfe_mean": evaluations}
            rows.append(row | asdict(job.spent))
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    return frame.sort_values(["rule", *_KEYS, "images"], ignore_index=True)


def stages(costs: pd.DataFrame) -> list[dict[str, Any]]:
    """Sum the costs of jobs by rule.

    Args:
        costs: Result of `job_costs`.

    Returns:
        For every rule ``rule``, ``jobs``, ``started_utc`` of the first one, ``seconds``,
        ``start_seconds``, ``computing_seconds`` and ``cpu_seconds`` (sums over the jobs), and
        ``max_rss_mb`` (the largest of a job).
    """
    return [
        {
            "rule": rule,
            "jobs": len(own),
            "started_utc": min(own.started_utc),
            **{name: float(own[name].sum()) for name in _SUMMED},
            "max_rss_mb": float(own.max_rss_mb.max()),
        }
        for rule, own in costs.groupby("rule")
    ]


def share_outside_computation(costs: pd.DataFrame) -> float | None:
    """Which part of the time of all jobs was no model computation; None without jobs.

    Args:
        costs: Result of `job_costs`.
    """
    if costs.empty:
        return None
    return 1 - float(costs.computing_seconds.sum() / costs.seconds.sum())


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
