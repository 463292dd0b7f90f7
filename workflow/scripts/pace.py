"""Take the time of the paper's attack, image by image, in one cell of the grid."""

import time
from pathlib import Path

from node_robustness import attacks, devices, models
from node_robustness.evaluation import measured_images
from node_robustness.jobs import bar, job
from node_robustness.pace import measure
from node_robustness.records import write_pace
from node_robustness.storage import sha256

with job(snakemake.log[0]), models.backward_solves():
    _, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(
        Path(snakemake.input.data), snakemake.params.images, device
    )
    model = models.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    started = time.perf_counter()
    with bar(len(images), "attacked") as progress:
        found = measure(
            model,
            attacks.with_gradient(model, coordinates["tolerance"], settings),
            images,
            labels,
            attacks.make(settings, coordinates["norm"], coordinates["epsilon"]),
            index=test.index.tolist(),
            seed=coordinates["seed"],
            progress=progress.update,
        )
    provenance = {"weights_sha256": sha256(snakemake.input.weights)}
    write_pace(
        Path(snakemake.output.pace),
        {**coordinates, **settings, **provenance},
        test.index,
        test.labels,
        found,
        seconds=time.perf_counter() - started,
        device=devices.describe(device),
    )
