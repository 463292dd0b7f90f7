"""Draw the figures of an experiment from its tables."""

from functools import cache
from pathlib import Path

import pandas as pd

from node_robustness.figures.drawing import draw, save_drawing
from node_robustness.figures.experiment import of_experiment
from node_robustness.jobs import forks
from node_robustness.jobs.log import job
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import image_pages

with job(snakemake.log[0]):
    files = snakemake.input
    tables = {Path(path).stem: pd.read_parquet(path) for path in files.tables}
    charts = of_experiment(
        tables,
        lambda: example_table(zip(files.attacks, files.data, strict=True)),
        cache(
            lambda: image_pages(
                zip(files.trajectories, files.followed_attacks, files.followed_data, strict=True)
            )
        ),
        snakemake.params.models,
    )
    folder = Path(snakemake.output[0]).parent

    def save(name: str) -> None:
        """Draw a figure and write its files."""
        figure = draw(f"The figure {name}", charts[name])
        save_drawing(figure, *(folder / f"{name}.{suffix}" for suffix in ("svg", "json")))

    # The catalogue has the figures that take longest at its end.
    forks.for_each(list(charts)[::-1], save, snakemake.threads)
