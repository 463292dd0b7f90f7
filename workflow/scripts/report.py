"""Write the report of an experiment, and the manifest and the costs of what made it."""

import json
from pathlib import Path

import pandas as pd

from node_robustness.config import loading
from node_robustness.figures import costs as costs_drawn
from node_robustness.figures.drawing import draw
from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.log import job
from node_robustness.provenance import costs
from node_robustness.provenance import manifest as provenance_manifest
from node_robustness.report import drawing_code
from node_robustness.report.html import render_report
from node_robustness.scheduling import job_costs
from node_robustness.tables.networks import own_models

with job(snakemake.log[0]):
    experiment = snakemake.wildcards.experiment
    # What all experiments share, and what is this one's.
    folders = [Path(file).parent for file in (snakemake.input.code, snakemake.output.costs)]
    jobs = [one for folder in folders for one in job_costs.read(folder)]
    tables = {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.tables}
    charts = {
        Path(path).stem: json.loads(Path(path).read_text(encoding="utf-8"))
        for path in snakemake.input.figures
    }
    stills = {Path(path).stem: Path(path).read_text("utf-8") for path in snakemake.input.stills}
    tables["costs"] = costs.job_costs(jobs, tables)
    drawn = draw(
        "The figure costs", lambda: costs_drawn.figure(tables["costs"], snakemake.params.models)
    )
    charts["costs"], stills["costs"] = drawn.spec, drawn.svg
    settings = loading.load(snakemake.config).model_dump(mode="json")
    device = provenance_manifest.devices(snakemake.input.clean)
    manifest = provenance_manifest.manifest(
        settings, tables["costs"], tables["budgets"], own_models(tables["networks"]), device
    )
    render_report(
        experiment,
        tables,
        charts,
        manifest,
        snakemake.params.paper,
        Path(snakemake.output.report),
        stills,
        drawing_code.read(snakemake.input.code),
    )
    with atomic_path(snakemake.output.manifest) as path:
        path.write_text(json.dumps(manifest, indent=2) + "\n")
    with atomic_path(snakemake.output.costs) as path:
        tables["costs"].to_csv(path, index=False, float_format="%.10g", lineterminator="\n")
