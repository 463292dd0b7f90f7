"""What a run spends outside model computation, with and without the warm start of jobs.

    python benchmarks/overhead.py [--cores 2] [--configfile config/config.yaml]
                                  [--output results/benchmarks/overhead.json]

Runs the workflow from nothing in a temporary folder, once with `compute.warm_start` and once
without it, one after the other. Of each it compares three numbers of seconds of one core: what the
cores offered (cores times wall time), what the jobs took by their own records, and what they
computed with models (training, evaluation, attacks, trajectories, audits). A job's start is the
time until its own code runs: the interpreter and the imports of libraries and of this package.
Nothing else should run meanwhile.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import results

sys.path.append(str(results.ROOT / "workflow/scripts"))
from node_robustness.scheduling import job_costs

Table = list[dict[str, Any]]


def run(folder: Path, configfile: Path, cores: int, *, warm: bool) -> float:
    """Run the workflow in a folder; its wall time in seconds."""
    settings = yaml.safe_load(configfile.read_text())
    settings["compute"] = (settings.get("compute") or {}) | {"warm_start": warm}
    written = folder / "config.yaml"
    written.write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(results.ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(written), "--cores", str(cores)]
    started = time.perf_counter()
    with (folder / "snakemake.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return time.perf_counter() - started


def records(folder: Path) -> pd.DataFrame:
    """What the jobs of a run recorded, a row each."""
    costs = [
        cost
        for part in (folder / "resources", *(folder / "results").iterdir())
        for cost in job_costs.read(part)
    ]
    return pd.DataFrame([{"rule": cost.rule, **vars(cost.spent)} for cost in costs])


def shares(jobs: pd.DataFrame, wall: float, cores: int) -> dict[str, float]:
    """Where the time went that the cores offered, and what a job cost besides computation."""
    offered = cores * wall
    spent, computing, start = (
        float(jobs[name].sum()) for name in ("seconds", "computing_seconds", "start_seconds")
    )
    return {
        "jobs": len(jobs),
        "wall_seconds": wall,
        "outside_computation_in_jobs": 1 - computing / spent,
        "computation": computing / offered,
        "start": start / offered,
        "rest_of_jobs": (spent - start - computing) / offered,
        "between_jobs": 1 - spent / offered,
        "start_seconds_of_a_job": start / len(jobs),
        "shortest_job_seconds": float(jobs.seconds.min()),
        "max_rss_mb": float(jobs.max_rss_mb.max()),
    }


def by_rule(jobs: pd.DataFrame) -> Table:
    """Means of the jobs of each rule."""
    groups = jobs.groupby("rule")[["seconds", "start_seconds", "computing_seconds", "max_rss_mb"]]
    table = groups.mean().reset_index()
    table.insert(1, "jobs", groups.size().to_numpy())
    rows: Table = table.to_dict("records")
    return rows


def main() -> None:
    """Run twice and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--configfile", type=Path, default=results.ROOT / "config/config.yaml")
    parser.add_argument(
        "--output", type=Path, default=results.FOLDER / "overhead.json", help="the JSON file"
    )
    arguments = parser.parse_args()
    runs, rules = [], []
    for warm in (True, False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wall = run(folder, arguments.configfile.resolve(), arguments.cores, warm=warm)
            jobs = records(folder)
        found = {"warm_start": warm, **shares(jobs, wall, arguments.cores)}
        runs.append(found)
        rules += [{"warm_start": warm, **row} for row in by_rule(jobs)]
        print(found, file=sys.stderr, flush=True)
    report = {
        "machine": {"processors": os.cpu_count(), "python": platform.python_version()},
        "cores": arguments.cores,
        "configuration": arguments.configfile.name,
        "tables": {"Runs": runs, "Rules": rules},
    }
    results.write(report, arguments.output)
    for title, rows in (("Runs", runs), ("Rules, means of their jobs", rules)):
        print(title, pd.DataFrame(rows).round(3).to_string(), sep="\n")


if __name__ == "__main__":
    main()
