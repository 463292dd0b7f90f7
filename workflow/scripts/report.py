"""Write the report of an experiment, and the manifest of what made it."""

import json
from pathlib import Path

import pandas as pd

from node_robustness import config, provenance
from node_robustness.jobs import job
from node_robustness.report import render_report
from node_robustness.storage import atomic_path

with job(snakemake.log[0]):
    experiment = snakemake.wildcards.experiment
    benchmarks = [
        path
        for folder in ("resources", f"results/{experiment}")
        for path in Path(folder, "benchmarks").rglob("*.tsv")
    ]
    settings = config.load(snakemake.config).model_dump(mode="json", exclude_unset=True)
    device = provenance.devices(snakemake.input.clean)
    manifest = provenance.manifest(settings, benchmarks, device)
    render_report(
        experiment,
        {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.tables},
        {
            Path(path).stem: json.loads(Path(path).read_text(encoding="utf-8"))
            for path in snakemake.input.figures
        },
        manifest,
        snakemake.params.paper,
        Path(snakemake.output.report),
    )
    with atomic_path(snakemake.output.manifest) as path:
        path.write_text(json.dumps(manifest, indent=2) + "\n")
