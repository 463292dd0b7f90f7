"""Attack the test images in one cell of the grid, or those of one of its shards."""

from pathlib import Path

import torch

from node_robustness.attacks.engine import attack
from node_robustness.attacks.files import write_attack
from node_robustness.attacks.gradients import gradient_settings, possible, with_gradient
from node_robustness.attacks.make import make
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints, classifier
from node_robustness.models.evaluation import test_images
from node_robustness.models.memory import images_at_a_time
from node_robustness.perturbations.sizes import broken_within

with job(snakemake.log[0]) as record, classifier.backward_solves():
    compute, device = devices.set_up(snakemake.config)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    test, images, labels = test_images(Path(snakemake.input.data), snakemake.params.images, device)
    part = slice(*snakemake.params.get("part", [None]))
    index, images, labels = test.index[part], images[part], labels[part]
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    settings = possible(model, settings)
    provenance = {"weights_sha256": sha256(snakemake.input.weights)}
    source = None
    if snakemake.input.source:
        weights, spec = map(Path, snakemake.input.source)
        source = with_gradient(
            checkpoints.load(weights, spec).to(device),
            settings["source"]["tolerance"],
            settings["by"],
        )
        provenance["source_weights_sha256"] = sha256(weights)
    most_expensive = attacked = with_gradient(model, coordinates["tolerance"], settings)
    if "drawn" in settings:
        source = model.at(**gradient_settings(settings))
        most_expensive = model.at(tolerance=settings["drawn"]["low"])
    skip = None
    if "skips" in settings:
        within = settings["skips"]["within"]
        broken = broken_within(snakemake.input.cheaper, within, index, part)
        skip = torch.from_numpy(broken)
    with record.computing(), bar(len(images), "attacked") as progress:
        found = attack(
            attacked,
            images,
            labels,
            make(settings, coordinates["norm"], coordinates["epsilon"], source),
            index=index,
            seed=coordinates["seed"],
            skip=skip,
            batch_size=images_at_a_time(compute, most_expensive, images, source),
            progress=progress.update,
        )
    write_attack(
        Path(snakemake.output.attack),
        {**coordinates, **settings, **provenance},
        index,
        test.labels[part],
        images,
        found,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
