"""Follow h(t) of the clean and adversarial images of one cell."""

import time
from pathlib import Path

import torch

from node_robustness import devices, models
from node_robustness.datasets import load_rows
from node_robustness.jobs import bar, job
from node_robustness.records import read_adversarials, write_trajectories
from node_robustness.trajectories.distances import follow

with job(snakemake.log[0]):
    _, device = devices.set_up(snakemake.config)
    model = models.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates = snakemake.params.coordinates
    adversarials = read_adversarials(Path(snakemake.input.attack))
    clean = load_rows(Path(snakemake.input.data), adversarials.index)
    started = time.perf_counter()
    with (
        models.solving(model, tolerance=coordinates["tolerance"]),
        bar(len(clean), "followed") as progress,
    ):
        found = follow(
            model,
            torch.from_numpy(clean).to(device) / 255,
            torch.from_numpy(adversarials.images).to(device),
            **snakemake.params.follow,
            progress=progress.update,
        )
    settings = {
        **adversarials.settings,
        **snakemake.params.follow,
    }
    write_trajectories(
        Path(snakemake.output.trajectory),
        settings,
        adversarials.index,
        found,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
