"""How much of a run's time is spent outside model computation: imports, files, scheduling.

    python benchmarks/overhead.py --cores 2 [--configfile config/config.yaml] [--output out.json]

Runs the workflow from nothing in a temporary folder and compares three numbers of seconds of one
core: what the cores offered (cores times wall time), what the jobs took, and what the models took
inside them (training epochs, evaluation, attacks, trajectories).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import pandas as pd

import results


def run(folder: Path, configfile: Path, cores: int) -> float:
    """Run the workflow in a folder; its wall time in seconds."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(results.ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(configfile), "--cores", str(cores)]
    with (folder / "snakemake.log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return time.perf_counter() - started


def model_seconds(folder: Path) -> dict[str, float]:
    """Seconds of model computation by rule."""
    found: dict[str, float] = {
        "train": sum(pd.read_csv(p).seconds.sum() for p in folder.rglob("history.csv"))
    }
    for rule, name in (("evaluate", "clean"), ("attack", "attack"), ("trajectory", "trajectory")):
        found[rule] = 0.0
        for path in folder.rglob(f"{name}.h5"):
            with h5py.File(path) as file:
                found[rule] += float(file.attrs["seconds"])
    return found


def job_seconds(folder: Path) -> pd.DataFrame:
    """Wall seconds, number and largest memory of the jobs by rule, from Snakemake's benchmarks."""
    rows = []
    for path in folder.rglob("benchmarks/**/*.tsv"):
        rule = path.parts[len(path.parts) - path.parts[::-1].index("benchmarks")]
        row = pd.read_csv(path, sep="\t", na_values="NA").iloc[0]
        rows.append({"rule": rule, "jobs": 1, "seconds": row["s"], "max_rss_mb": row["max_rss"]})
    table = pd.DataFrame(rows)
    return table.groupby("rule").agg(
        jobs=("jobs", "sum"), seconds=("seconds", "sum"), max_rss_mb=("max_rss_mb", "max")
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--configfile", type=Path, default=results.ROOT / "config/config.yaml")
    parser.add_argument("--output", type=Path, help="also write a JSON file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wall = run(folder, arguments.configfile.resolve(), arguments.cores)
        table = job_seconds(folder)
        table["model_seconds"] = pd.Series(model_seconds(folder)).reindex(table.index).fillna(0.0)
    offered = arguments.cores * wall
    model, jobs = float(table.model_seconds.sum()), float(table.seconds.sum())
    shares = {
        "cores": arguments.cores,
        "wall_seconds": round(wall, 1),
        "model_share": round(model / offered, 3),
        "in_jobs_share": round((jobs - model) / offered, 3),
        "between_jobs_share": round((offered - jobs) / offered, 3),
        "max_rss_mb": round(float(table.max_rss_mb.max())),
    }
    print(table.round(1).to_string())
    print(f"\nwall time {wall:.1f} s on {arguments.cores} cores; of the time that they offered:")
    print(f"  {shares['model_share']:6.1%} model computation")
    print(f"  {shares['in_jobs_share']:6.1%} the rest of the jobs: imports, files, tables, charts")
    print(f"  {shares['between_jobs_share']:6.1%} between jobs: Snakemake, idle cores")
    print(f"largest memory of a job: {shares['max_rss_mb']} MB")
    if arguments.output:
        results.write(shares, arguments.output)


if __name__ == "__main__":
    main()
