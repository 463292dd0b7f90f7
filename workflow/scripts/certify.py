"""Ask an own model which images no perturbation misleads."""

from pathlib import Path

from node_robustness.audits.certificate import certify, write_certificate
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import test_images
from node_robustness.models.memory import images_at_a_time

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    test, images, labels = test_images(Path(snakemake.input.data), settings["images"], device)
    with record.computing(), bar(len(images), "certified") as progress:
        found = certify(
            model.module,
            settings["method"],
            images,
            labels,
            coordinates["norm"],
            coordinates["epsilon"],
            f"models.{coordinates['model']}.certify",
            batch_size=images_at_a_time(compute, model, images),
            progress=progress.update,
        )
    write_certificate(
        Path(snakemake.output.certified),
        {**coordinates, **settings, "weights_sha256": sha256(snakemake.input.weights)},
        test.index,
        test.labels,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
