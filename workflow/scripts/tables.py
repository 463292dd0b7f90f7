"""Collect the cells of an experiment into tables."""

from pathlib import Path

from node_robustness.files.atomic import SOFTWARE
from node_robustness.jobs.log import job
from node_robustness.tables.frame import write_table
from node_robustness.verdict.experiment import of_experiment

with job(snakemake.log[0]):
    made_by = {"software": SOFTWARE, "experiment": snakemake.wildcards.experiment}
    params = snakemake.params
    tables = of_experiment(snakemake.input, params.paper, params.training_tolerances)
    folder = Path(snakemake.output[0]).parent
    for name, table in tables.items():
        write_table(table, folder / f"{name}.csv", folder / f"{name}.parquet", made_by)
