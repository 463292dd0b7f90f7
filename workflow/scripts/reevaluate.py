"""Evaluate the adversarial examples of one cell at every tolerance."""

from pathlib import Path

import torch

from node_robustness.attacks.files import read_adversarials
from node_robustness.audits.tolerance_matrix import reevaluate, write_reevaluated
from node_robustness.data.prepared import load_rows
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.memory import images_at_a_time

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    tolerances = snakemake.params.tolerances
    attacked = read_adversarials(Path(snakemake.input.attack))
    images = (
        torch.from_numpy(load_rows(Path(snakemake.input.data), attacked.index)).to(device) / 255
    )
    batch_size = images_at_a_time(compute, model.at(tolerance=min(tolerances)), images)
    with record.computing(), bar(2 * len(tolerances) * len(images), "evaluated") as progress:
        clean, adversarial = (
            reevaluate(model, x, tolerances, batch_size=batch_size, progress=progress.update)
            for x in (images, torch.from_numpy(attacked.images).to(device))
        )
    write_reevaluated(
        Path(snakemake.output.reevaluated),
        attacked.settings,
        attacked,
        tolerances,
        clean,
        adversarial,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
