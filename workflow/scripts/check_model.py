"""Check a user's own model before anything is measured on it."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

from node_robustness.files.atomic import atomic_path
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.jobs import devices
from node_robustness.jobs.log import job
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images
from node_robustness.models.own.checks import IMAGES, Expected, check_model, refuse

with job(snakemake.log[0]) as record:
    _, device = devices.set_up(snakemake.config)
    architecture, data = snakemake.params.architecture, Path(snakemake.input.data)
    logging.info("%s is code and runs with your rights", architecture["module"])
    network = checkpoints.load(Path(snakemake.input.weights), Path(snakemake.input.spec)).to(device)
    _, images, labels = measured_images(data, IMAGES, device)
    with open_hdf5(data, "data") as file:
        settings, classes = read_settings(file), len(file["class_names"])
    expected = Expected(classes, settings["mean"], settings["std"], architecture["ode"])
    found = []
    with record.computing():
        for check in check_model(network, images, labels, expected):
            logging.info("%s", check)
            found.append(check)
    # Without a file Snakemake stops what needs it, and a rerun checks again.
    refuse(found, f"models.{snakemake.wildcards.model}")
    with atomic_path(snakemake.output.checked) as path:
        path.write_text(json.dumps([asdict(check) for check in found], indent=2) + "\n")
