"""Record what is claimed of a model's robustness, and what that rests on."""

import json
from pathlib import Path

import pandas as pd

from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.log import job
from node_robustness.verdict.claims import claim

with job(snakemake.log[0]):
    record = claim(
        {Path(path).stem: pd.read_parquet(path) for path in snakemake.input.tables},
        dict(snakemake.wildcards.items()),
        snakemake.params.paper,
    )
    with atomic_path(snakemake.output.claim) as path:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
