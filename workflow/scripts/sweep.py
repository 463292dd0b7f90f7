"""Repeat the paper's attack with its adjoint solved at other tolerances than the forward solve."""

from pathlib import Path

from node_robustness.attacks.make import make
from node_robustness.audits.adjoint_sweep import Sweep, sweep, why_not, write_sweep
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    model = model.at(tolerance=coordinates["tolerance"])
    test, images, labels = measured_images(Path(snakemake.input.data), settings["images"], device)
    backward, lacks = settings["backward_tolerances"], why_not(model)
    index, answers, found = test.index[:0], test.labels[:0], Sweep.of_nothing(backward)
    if not lacks:
        index, answers = test.index, test.labels
        batch_size = min(
            images_at_a_time(compute, model.at(gradient=gradient), images)
            for gradient in ("direct", "adjoint")
        )
        with record.computing(), bar(len(images) * (len(backward) + 1), "attacked") as progress:
            found = sweep(
                model,
                images,
                labels,
                make(settings, coordinates["norm"], coordinates["epsilon"]),
                backward,
                adjoint_norm=settings["adjoint_norm"],
                index=index.tolist(),
                seed=coordinates["seed"],
                batch_size=batch_size,
                progress=progress.update,
            )
    write_sweep(
        Path(snakemake.output.sweep),
        {**coordinates, **settings, "weights_sha256": sha256(snakemake.input.weights)},
        index,
        answers,
        found,
        lacks,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
