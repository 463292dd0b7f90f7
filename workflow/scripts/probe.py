"""Fit linear probes of h(t) on validation images, for one model at one tolerance."""

import logging
from pathlib import Path

import torch

from node_robustness.data.prepared import load_split
from node_robustness.files.atomic import sha256
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints, classifier
from node_robustness.models.memory import images_at_a_time
from node_robustness.ode.small_batches import ROWS
from node_robustness.trajectories import probes
from node_robustness.trajectories.probe_fitting import TooFewError, fit
from node_robustness.trajectories.runs import grid

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.settings
    split = load_split(Path(snakemake.input.data), "validation", settings["images"])
    images = torch.from_numpy(split.images).to(device) / 255
    times = grid(settings["times"])
    model = model.at(tolerance=coordinates["tolerance"])
    found, lacks = probes.Probes.none(0, 0), model.limits
    if model.body is not None:
        with (
            record.computing(),
            classifier.frozen(model),
            bar(len(images), "read") as progress,
        ):
            # Each image has a state at each time. Fewer than ROWS images would be padded.
            batch_size = max(ROWS, images_at_a_time(compute, model, images) // len(times))
            at, features, head = probes.features_along(
                model, images, times, batch_size=batch_size, progress=progress.update
            )
        lacks = ()
        try:
            with record.computing():
                found = fit(at, features, head, split.labels)
        except TooFewError as error:
            # Probes are on by default, and nothing depends on them.
            logging.warning("there are no probes: %s", error)
            found = probes.Probes.none(features.shape[2], head.shape[2])
    probes.write(
        Path(snakemake.output.probe),
        {**coordinates, **settings, "weights_sha256": sha256(snakemake.input.weights)},
        found,
        lacks,
        seconds=record.computing_seconds,
        device=devices.describe(device),
    )
