"""Collect the cells of an experiment into tables."""

from pathlib import Path

from node_robustness.files.atomic import SOFTWARE
from node_robustness.jobs import forks
from node_robustness.jobs.log import job
from node_robustness.tables.frame import write_table
from node_robustness.verdict.experiment import Part, parts

with job(snakemake.log[0]):
    made_by = {"software": SOFTWARE, "experiment": snakemake.wildcards.experiment}
    params = snakemake.params
    folder = Path(snakemake.output[0]).parent

    def save(part: Part) -> None:
        """Make some tables and write them."""
        for name, table in part().items():
            write_table(table, folder / f"{name}.csv", folder / f"{name}.parquet", made_by)

    made = parts(snakemake.input, params.paper, params.training_tolerances, params.primary_epsilons)
    forks.for_each(made, save, snakemake.threads)
