"""Audit a model at one tolerance: its gradients, and the attacks on it."""

from pathlib import Path

from node_robustness.audits.files import write_audit
from node_robustness.audits.gradients import STEP
from node_robustness.audits.network import audit_network
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, audit = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(Path(snakemake.input.data), audit["images"], device)
    # The most expensive of the sources.
    tight = model.at(tolerance=audit["tight_tolerance"])
    batch_size = images_at_a_time(compute, tight, images)
    model = model.at(tolerance=coordinates["tolerance"])
    with record.computing(), bar(len(images), "audited") as progress:
        found = audit_network(
            model,
            images,
            labels,
            test.index.tolist(),
            audit,
            seed=coordinates["seed"],
            batch_size=batch_size,
            progress=progress.update,
        )
    settings = {
        **coordinates,
        **audit,
        "finite_difference_step": STEP,
        "weights_sha256": sha256(snakemake.input.weights),
    }
    write_audit(
        Path(snakemake.output.audit),
        settings,
        test.index,
        test.labels,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
