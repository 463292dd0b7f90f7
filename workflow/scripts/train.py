"""Train a model from its seed; an interrupted job resumes after its last complete epoch."""

from pathlib import Path

import torch

from node_robustness.config import models
from node_robustness.data.prepared import load_split
from node_robustness.jobs import devices
from node_robustness.jobs.log import job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import check_that_answers_differ
from node_robustness.models.make import inspected, make_network
from node_robustness.training import train

with job(snakemake.log[0]) as record:
    _, device = devices.set_up(snakemake.config, training=True)
    data, seed = Path(snakemake.input.data), int(snakemake.wildcards.seed)
    subset = snakemake.params.subset
    splits = {name: load_split(data, name, subset[name]) for name in ("train", "validation")}
    images = {
        name: (torch.from_numpy(split.images), torch.from_numpy(split.labels))
        for name, split in splits.items()
    }
    torch.manual_seed(seed)
    model = make_network(snakemake.wildcards.model, snakemake.params.architecture, data)
    checkpoint = Path(snakemake.params.checkpoint) / "checkpoint.safetensors"
    history = train.train(
        model,
        images["train"],
        images["validation"],
        models.Training.model_validate(snakemake.params.training),
        seed=seed,
        checkpoint=checkpoint,
        device=device,
        record=record,
    )
    with record.computing():
        check_that_answers_differ(
            model,
            images["validation"][0],
            f"models.{snakemake.wildcards.model}, seed {seed}",
            "it has learned nothing: change its training (such as learning_rate), or use another "
            "seed",
        )
    train.write_history(history, Path(snakemake.output.history))
    model = inspected(model, data)
    checkpoints.save(model, Path(snakemake.output.weights), Path(snakemake.output.spec))
    checkpoint.unlink(missing_ok=True)
