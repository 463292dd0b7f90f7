"""Take a model's weights from a checkpoint made elsewhere."""

from pathlib import Path

from node_robustness import models
from node_robustness.jobs import job

with job(snakemake.log[0]):
    data = Path(snakemake.input.data)
    spec = models.spec_for(snakemake.wildcards.model, snakemake.params.architecture, data)
    model = models.import_weights(spec, Path(snakemake.input.checkpoint))
    models.save(model, Path(snakemake.output.weights), Path(snakemake.output.spec))
