"""Detect adversarial examples of a model, made by attacks that know more or less of it."""

from pathlib import Path

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.audits.detection import Search, detect, write_detection
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time
from node_robustness.perturbations.norms import Norm

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, detection = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(Path(snakemake.input.data), detection["images"], device)
    method = BasicIterativeMethod(
        norm=Norm(coordinates["norm"]),
        epsilon=coordinates["epsilon"],
        step=detection["step"],
        iterations=detection["iterations"],
    )
    batch_size = images_at_a_time(compute, model.at(tolerance=min(detection["tolerances"])), images)
    with record.computing(), bar(len(images), "attacked") as progress:
        found = detect(
            model,
            images,
            labels,
            method,
            Search(detection["searches"], detection["search_iterations"]),
            tolerance=coordinates["tolerance"],
            tolerances=detection["tolerances"],
            batch_size=batch_size,
            progress=progress.update,
        )
    settings = {**coordinates, **detection, "weights_sha256": sha256(snakemake.input.weights)}
    write_detection(
        Path(snakemake.output.detection),
        settings,
        test.index,
        test.labels,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
