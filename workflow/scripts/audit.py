"""Audit a model at one tolerance: its gradients, and the attacks on it."""

import time
from pathlib import Path

from node_robustness import devices, gradient_audit, models, sanity
from node_robustness.attacks import Streams
from node_robustness.evaluation import measured_images
from node_robustness.jobs import bar, job
from node_robustness.memory import images_at_a_time
from node_robustness.records import write_audit
from node_robustness.storage import sha256

with job(snakemake.log[0]):
    compute, device = devices.set_up(snakemake.config)
    model = models.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, audit = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(Path(snakemake.input.data), audit["images"], device)
    rows, seed = test.index.tolist(), coordinates["seed"]
    with models.solving(model, tolerance=audit["tight_tolerance"]):  # the dearest of the sources
        batch_size = images_at_a_time(compute, model, images)
    sources = gradient_audit.sources(model, audit["tight_tolerance"], audit["rk4_steps"])
    started = time.perf_counter()
    with (
        models.solving(model, tolerance=coordinates["tolerance"]),
        bar(len(images), "audited") as progress,
    ):
        gradients = gradient_audit.audit_gradients(
            model,
            images,
            labels,
            sources,
            random=audit["directions"],
            streams=Streams.of(seed, rows, "directions"),
            batch_size=batch_size,
            progress=progress.update,
        )
        invariance = sanity.batch_invariance(model, images, seed=seed, batch_size=batch_size)
        neighbours = sanity.neighbours_changed(
            model, images, Streams.of(seed, rows, "neighbours"), batch_size=batch_size
        )
        checks = sanity.check_attacks(
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
        "finite_difference_step": gradient_audit.STEP,
        "weights_sha256": sha256(snakemake.input.weights),
    }
    write_audit(
        Path(snakemake.output.audit),
        settings,
        test.index,
        test.labels,
        list(sources),
        gradient_audit.directions(sources, audit["directions"]),
        gradients,
        invariance,
        neighbours,
        checks,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
