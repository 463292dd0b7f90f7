"""Draw the figures of an experiment from its tables."""

from functools import cache
from pathlib import Path

import pandas as pd

from node_robustness.figures.drawing import draw, draw_still, save_drawing, save_still
from node_robustness.figures.experiment import of_experiment
from node_robustness.figures.images import single_pages
from node_robustness.jobs.failures import attempt
from node_robustness.jobs.log import bar, job
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import image_pages

with job(snakemake.log[0]):
    files = snakemake.input
    tables = {Path(path).stem: pd.read_parquet(path) for path in files.tables}
    pages = cache(
        lambda: image_pages(
            zip(files.trajectories, files.followed_attacks, files.followed_data, strict=True)
        )
    )
    charts = of_experiment(
        tables,
        lambda: example_table(zip(files.attacks, files.data, strict=True)),
        pages,
        snakemake.params.models,
    )
    folder = Path(snakemake.output[0]).parent
    for name, make in charts.items():
        save_drawing(
            draw(f"The figure {name}", make),
            *(folder / f"{name}.{suffix}" for suffix in ("svg", "png", "json")),
        )
    images = Path(snakemake.output.images)
    images.mkdir(parents=True, exist_ok=True)
    single = attempt("The pages of images", lambda: list(single_pages(pages())), lambda _: [])
    with bar(len(single), "drawn") as progress:
        for name, make in single:
            save_still(draw_still(f"The page {name}", make), images / f"{name}.svg")
            progress.update()
