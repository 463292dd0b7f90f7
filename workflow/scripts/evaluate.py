"""Classify the clean test images at one tolerance."""

from pathlib import Path

from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import evaluate, test_images, write_clean
from node_robustness.models.memory import images_at_a_time

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates = snakemake.params.coordinates
    test, images, _ = test_images(Path(snakemake.input.data), snakemake.params.images, device)
    model = model.at(tolerance=coordinates["tolerance"])
    with record.computing(), bar(len(images), "evaluated") as progress:
        batch_size = images_at_a_time(compute, model, images)
        found = evaluate(model, images, batch_size=batch_size, progress=progress.update)
    settings = {**coordinates, "weights_sha256": sha256(snakemake.input.weights)}
    write_clean(
        Path(snakemake.output.clean),
        settings,
        test.index,
        test.labels,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
