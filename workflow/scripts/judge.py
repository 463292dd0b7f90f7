"""Judge the adversarials of one cell at every tolerance."""

import time
from pathlib import Path

import torch

from node_robustness import devices, models
from node_robustness.datasets import load_rows
from node_robustness.jobs import bar, job
from node_robustness.memory import images_at_a_time
from node_robustness.records import read_adversarials, write_judged
from node_robustness.tolerance_matrix import judge

with job(snakemake.log[0]):
    compute, device = devices.set_up(snakemake.config)
    model = models.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    tolerances = snakemake.params.tolerances
    attacked = read_adversarials(Path(snakemake.input.attack))
    images = (
        torch.from_numpy(load_rows(Path(snakemake.input.data), attacked.index)).to(device) / 255
    )
    with models.solving(model, tolerance=min(tolerances)):
        batch_size = images_at_a_time(compute, model, images)
    started = time.perf_counter()
    with bar(2 * len(tolerances) * len(images), "judged") as progress:
        clean, adversarial = (
            judge(model, x, tolerances, batch_size=batch_size, progress=progress.update)
            for x in (images, torch.from_numpy(attacked.images).to(device))
        )
    write_judged(
        Path(snakemake.output.judged),
        attacked.settings,
        attacked,
        tolerances,
        clean,
        adversarial,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
