"""Audit a model at one tolerance: its gradients, and the attacks on it."""

import time
from pathlib import Path

from node_robustness.audit import attack_checks
from node_robustness.audit import gradients as audit_gradients
from node_robustness.audit.files import write_audit
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time
from node_robustness.perturbations.streams import Streams

with job(snakemake.log[0]):
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, audit = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(Path(snakemake.input.data), audit["images"], device)
    rows, seed = test.index.tolist(), coordinates["seed"]
    # The most expensive of the sources.
    tight = model.at(tolerance=audit["tight_tolerance"])
    batch_size = images_at_a_time(compute, tight, images)
    model = model.at(tolerance=coordinates["tolerance"])
    sources = audit_gradients.sources(model, audit["tight_tolerance"], audit["rk4_steps"])
    started = time.perf_counter()
    with bar(len(images), "audited") as progress:
        gradients = audit_gradients.audit_gradients(
            model,
            images,
            labels,
            sources,
            random=audit["directions"],
            streams=Streams.of(seed, rows, "directions"),
            batch_size=batch_size,
            progress=progress.update,
        )
        invariance = attack_checks.batch_invariance(model, images, seed=seed, batch_size=batch_size)
        neighbours = attack_checks.neighbours_changed(
            model, images, Streams.of(seed, rows, "neighbours"), batch_size=batch_size
        )
        checks = attack_checks.check_attacks(
            model,
            images,
            labels,
            norm=audit["norm"],
            epsilon=audit["epsilon"],
            iterations=audit["iterations"],
            batch_size=batch_size,
        )
    settings = {
        **coordinates,
        **audit,
        "finite_difference_step": audit_gradients.STEP,
        "weights_sha256": sha256(snakemake.input.weights),
    }
    write_audit(
        Path(snakemake.output.audit),
        settings,
        test.index,
        test.labels,
        list(sources),
        audit_gradients.directions(sources, audit["directions"]),
        gradients,
        invariance,
        neighbours,
        checks,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
