"""Train a model from its seed; a killed job resumes at its last complete epoch."""

from pathlib import Path

import torch

from node_robustness import config, devices, models, training
from node_robustness.datasets import load_split
from node_robustness.evaluation import check_that_answers_differ
from node_robustness.jobs import job

with job(snakemake.log[0]):
    _, device = devices.set_up(snakemake.config, training=True)
    data, seed = Path(snakemake.input.data), int(snakemake.wildcards.seed)
    subset = snakemake.params.subset
    splits = {name: load_split(data, name, subset[name]) for name in ("train", "validation")}
    images = {
        name: (torch.from_numpy(split.images), torch.from_numpy(split.labels))
        for name, split in splits.items()
    }
    torch.manual_seed(seed)
    spec = models.spec_for(snakemake.wildcards.model, snakemake.params.architecture, data)
    model = models.Classifier(spec)
    checkpoint = Path(snakemake.params.checkpoint) / "checkpoint.safetensors"
    history = training.train(
        model,
        images["train"],
        images["validation"],
        config.Training.model_validate(snakemake.params.training),
        seed=seed,
        checkpoint=checkpoint,
        device=device,
    )
    check_that_answers_differ(
        model,
        images["validation"][0],
        f"models.{snakemake.wildcards.model}, seed {seed}",
        "it has learned nothing: change its training (such as learning_rate), or take another seed",
    )
    training.write_history(history, Path(snakemake.output.history))
    models.save(model, Path(snakemake.output.weights), Path(snakemake.output.spec))
    checkpoint.unlink(missing_ok=True)
