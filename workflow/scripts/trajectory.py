"""Follow clean, attacked and noisy images of one cell through the body, and test causes."""

import logging
from pathlib import Path

import numpy as np
import torch

from node_robustness.attacks.files import read_attacked
from node_robustness.data.prepared import load_rows
from node_robustness.files.records import say_not_measured
from node_robustness.jobs import devices
from node_robustness.jobs.log import bar, job
from node_robustness.models import checkpoints
from node_robustness.models.memory import PROBES, images_at_a_time
from node_robustness.perturbations.norms import Norm
from node_robustness.trajectories import probes, writer
from node_robustness.trajectories.measure import Array, FollowedImages, Measurement, Selection
from node_robustness.trajectories.runs import grid

with job(snakemake.log[0]) as record:
    compute, device = devices.set_up(snakemake.config)
    model = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    coordinates, settings = snakemake.params.coordinates, snakemake.params.follow
    data = Path(snakemake.input.data)
    found = read_attacked(Path(snakemake.input.attack), settings["images"])

    def load(rows: Array) -> tuple[Array, Array]:
        """Read the clean and the attacked images at these positions."""
        clean = load_rows(data, found.index[rows]).astype(np.float32) / 255
        return clean, found.images(rows)

    shape = load_rows(data, found.index[:0]).shape[1:]
    images = FollowedImages(
        found.index, found.labels, found.success, found.clean_predictions, shape, load
    )
    selection = Selection.of(
        found.success, **{key: settings[key] for key in ("states", "growth", "causal")}
    )
    fitted = probes.read(Path(snakemake.input.probe)) if snakemake.input.probe else None
    model = model.at(tolerance=coordinates["tolerance"])
    times, parts = grid(settings["times"]), settings["intervals"]
    path, given = Path(snakemake.output.trajectory), {**found.settings, **settings}
    computed_by = devices.describe(device)
    if model.body is None:
        logging.warning("nothing is followed: %s", " ".join(model.limits))
        writer.write_not_followed(path, given, times, parts, model.limits, device=computed_by)
    else:
        some = torch.from_numpy(load(np.arange(min(PROBES, len(found.index))))[0]).to(device)
        measurement = Measurement(
            model,
            times,
            parts,
            Norm(coordinates["norm"]),
            coordinates["epsilon"],
            settings["strengthen"],
            coordinates["seed"],
            settings["tight_tolerance"],
            fitted if fitted and len(fitted.times) else None,
            images_at_a_time(compute, model, some) if len(some) else 1,
        )
        sizes = measurement.sizes(
            len(found.index), len(selection.kept), shape, settings["precision"]
        )
        logging.info(
            "%d images of %.1f kB each, and the states of %d of them of %.1f kB: at most %.1f MB",
            sizes.images,
            sizes.bytes_per_image / 1e3,
            sizes.kept,
            sizes.bytes_per_kept_image / 1e3,
            sizes.total_bytes / 1e6,
        )
        with (
            writer.writing(
                path,
                given,
                sizes,
                measurement.axis,
                measurement.grid,
                measurement.ends,
                device=computed_by,
            ) as written,
            bar(len(found.index), "followed") as progress,
        ):
            with record.computing():
                measurement.record(images, selection, written, progress=progress.update)
            written.file.attrs["seconds"] = record.computing_seconds
            say_not_measured(written.file, measurement.lacks)
