"""Draw the figures of an experiment from its tables."""

from pathlib import Path

import pandas as pd

from node_robustness import figures
from node_robustness.examples import example_table
from node_robustness.jobs import job

with job(snakemake.log[0]):
    tables = {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.tables}
    examples = example_table(zip(snakemake.input.attacks, snakemake.input.data, strict=True))
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
        "examples": figures.example_figure(examples, models),
    }
    folder = Path(snakemake.output[0]).parent
    for name, chart in charts.items():
        figures.save_chart(
            chart, *(folder / f"{name}.{suffix}" for suffix in ("svg", "png", "json"))
        )
