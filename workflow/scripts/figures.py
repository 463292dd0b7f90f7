"""Draw the figures of an experiment from its tables."""

from pathlib import Path

import pandas as pd

from node_robustness import figures
from node_robustness.examples import example_table
from node_robustness.image_pages import image_pages
from node_robustness.jobs import bar, job

with job(snakemake.log[0]):
    tables = {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.tables}
    examples = example_table(zip(snakemake.input.attacks, snakemake.input.data, strict=True))
    pages = image_pages(
        zip(
            snakemake.input.trajectories,
            snakemake.input.followed_attacks,
            snakemake.input.followed_data,
            strict=True,
        )
    )
    models = snakemake.params.models
    published = figures.published(tables["attacks"], tables["ladder"])
    charts = {
        "verdicts": figures.verdict_figure(tables["verdicts"], models),
        "protocols": figures.protocol_figure(tables["verdicts"], models),
        "ladder": figures.ladder_figure(tables["ladder"], models),
        "curves": figures.curve_figure(tables["curves"], models),
        "audit": figures.audit_figure(tables["audit"], models),
        "matrix": figures.matrix_figure(tables["matrix"], models),
        "randomisation": figures.randomisation_figure(tables["randomisation"], models),
        "detection": figures.detection_figure(tables["roc"], models),
        "checks": figures.check_figure(tables["checks"], models),
        "clean": figures.clean_figure(tables["clean"], models),
        "nfe": figures.nfe_figure(tables["nfe"], models),
        "success": figures.success_figure(published, models),
        "robust": figures.robust_figure(published, tables["clean"], models),
        "trajectories": figures.trajectory_figure(tables["trajectories"], models),
        "growth": figures.growth_figure(tables["trajectories"], models),
        "margins": figures.margin_figure(tables["trajectories"], tables["probes"], models),
        "responsible": figures.responsible_figure(
            *(tables[name] for name in ("responsible", "trajectories", "trajectory_summary")),
            models,
        ),
        "adaptive_cost": figures.adaptive_cost_figure(
            *(tables[name] for name in ("trajectory_images", "trajectories", "trajectory_roc")),
            models,
        ),
        "images": figures.image_figure(pages, models),
        "examples": figures.example_figure(examples, models),
    }
    folder = Path(snakemake.output[0]).parent
    for name, chart in charts.items():
        figures.save_chart(
            chart, *(folder / f"{name}.{suffix}" for suffix in ("svg", "png", "json"))
        )
    images = Path(snakemake.output.images)
    images.mkdir(parents=True, exist_ok=True)
    with bar(len(pages.images), "drawn") as progress:
        for name, chart in figures.single_pages(pages):
            figures.save_still(chart, images / f"{name}.svg")
            progress.update()
