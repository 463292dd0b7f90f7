"""Import the weights of a model from a checkpoint of another program."""

from pathlib import Path

import torch

from node_robustness.data.prepared import load_split
from node_robustness.jobs import devices
from node_robustness.jobs.log import job
from node_robustness.models import checkpoints, classifier
from node_robustness.models.evaluation import check_that_answers_differ
from node_robustness.models.state_dicts import import_weights

with job(snakemake.log[0]):
    data = Path(snakemake.input.data)
    spec = classifier.spec_for(snakemake.wildcards.model, snakemake.params.architecture, data)
    devices.set_threads(snakemake.threads)
    checkpoint = Path(snakemake.input.checkpoint)
    model = import_weights(spec, checkpoint)
    images = torch.from_numpy(load_split(data, "validation").images)
    remedy = "use the weights of a trained network"
    check_that_answers_differ(model, images, str(checkpoint), remedy)
    checkpoints.save(model, Path(snakemake.output.weights), Path(snakemake.output.spec))
