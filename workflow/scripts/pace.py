"""Take the time of the paper's attack, image by image, in one cell of the grid."""

import time
from pathlib import Path

from node_robustness.attacks.gradients import with_gradient
from node_robustness.attacks.make import make
from node_robustness.audit.pace import measure, write_pace
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints, classifier
from node_robustness.models.evaluation import measured_images

with job(snakemake.log[0]), classifier.backward_solves():
    _, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = measured_images(
        Path(snakemake.input.data), snakemake.params.images, device
    )
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    started = time.perf_counter()
    with bar(len(images), "attacked") as progress:
        found = measure(
            with_gradient(model.at(backend="torchdiffeq"), coordinates["tolerance"], settings),
            images,
            labels,
            make(settings, coordinates["norm"], coordinates["epsilon"]),
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
