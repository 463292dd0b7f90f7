"""Import the weights of a model from a checkpoint of another program."""

from pathlib import Path

import torch

from node_robustness.data.prepared import load_split
from node_robustness.jobs import devices
from node_robustness.jobs.log import job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import check_that_answers_differ
from node_robustness.models.make import inspected, make_network
from node_robustness.models.state_dicts import import_weights

with job(snakemake.log[0]) as record:
    data = Path(snakemake.input.data)
    devices.set_threads(snakemake.threads)
    checkpoint, architecture = Path(snakemake.input.checkpoint), snakemake.params.architecture
    model = make_network(snakemake.wildcards.model, architecture, data)
    import_weights(model, checkpoint, architecture.get("weights_key"))
    model = inspected(model, data)
    images = torch.from_numpy(load_split(data, "validation").images)
    remedy = "use the weights of a trained network"
    with record.computing():
        check_that_answers_differ(model, images, str(checkpoint), remedy)
    checkpoints.save(model, Path(snakemake.output.weights), Path(snakemake.output.spec))
