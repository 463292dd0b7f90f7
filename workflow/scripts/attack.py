"""Attack the test images in one cell of the grid."""

import time
from pathlib import Path

from node_robustness import attacks, config, devices, models
from node_robustness.evaluation import test_images
from node_robustness.jobs import bar, job
from node_robustness.memory import images_at_a_time
from node_robustness.norms import Norm
from node_robustness.records import write_attack
from node_robustness.storage import sha256

with job(snakemake.log[0]):
    compute = config.load(snakemake.config).compute
    devices.set_threads(compute.threads)
    device = devices.choose_device(compute.device)
    model = models.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, attack = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = test_images(Path(snakemake.input.data), snakemake.params.images, device)
    method = attacks.BasicIterativeMethod(
        norm=Norm(coordinates["norm"]),
        epsilon=coordinates["epsilon"],
        step=attack["step"],
        iterations=attack["iterations"],
        early_stop=attack["early_stop"],
    )
    started = time.perf_counter()
    with (
        models.solving(
            model,
            tolerance=coordinates["tolerance"],
            gradient=attack["gradient"],
            adjoint_tolerance=attack["adjoint_tolerance"],
            adjoint_norm=attack["adjoint_norm"],
        ),
        bar(len(images), "attacked") as progress,
    ):
        found = attacks.attack(
            model,
            images,
            labels,
            method,
            batch_size=images_at_a_time(compute, model, images, labels),
            progress=progress.update,
        )
    settings = {**coordinates, **attack, "weights_sha256": sha256(snakemake.input.weights)}
    write_attack(
        Path(snakemake.output.attack),
        settings,
        test.index,
        test.labels,
        images,
        found,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
