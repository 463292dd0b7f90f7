"""Collect the cells of an experiment into tables."""

from pathlib import Path

from node_robustness import tables
from node_robustness.jobs import job
from node_robustness.storage import SOFTWARE

with job(snakemake.log[0]):
    made_by = {"software": SOFTWARE, "experiment": snakemake.wildcards.experiment}
    cells = snakemake.input
    collected = {
        "clean": tables.clean_table(cells.clean),
        "nfe": tables.nfe_table(cells.clean),
        "attacks": tables.attack_table(cells.attacks),
        "trajectories": tables.trajectory_table(cells.trajectories),
    }
    folder = Path(snakemake.output[0]).parent
    for name, table in collected.items():
        tables.write_table(table, folder / f"{name}.csv", folder / f"{name}.parquet", made_by)
