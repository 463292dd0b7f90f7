"""Look for images that make the solver of a model evaluate its function more often."""

from pathlib import Path

from node_robustness.audits.cost import CostSearch, attack_cost, why_not, write_cost
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.memory import images_at_a_time
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    model = model.at(tolerance=coordinates["tolerance"])
    test, images, _ = measured_images(Path(snakemake.input.data), settings["images"], device)
    lacks = why_not(model)
    some = slice(0 if lacks else None)
    index, labels, images = test.index[some], test.labels[some], images[some]
    search = CostSearch(
        norm=Norm(coordinates["norm"]),
        epsilon=coordinates["epsilon"],
        step=settings["step"],
        queries=settings["queries"],
        iterations=settings["iterations"],
    )
    batch_size = 1 if lacks else images_at_a_time(compute, model, images)
    with record.computing(), bar(len(images), "attacked") as progress:
        found = attack_cost(
            model,
            images,
            search,
            lambda purpose: Streams.of(coordinates["seed"], index.tolist(), purpose),
            batch_size=batch_size,
            progress=progress.update,
        )
    write_cost(
        Path(snakemake.output.cost),
        {**coordinates, **settings, "weights_sha256": sha256(snakemake.input.weights)},
        index,
        labels,
        images,
        found,
        lacks,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
