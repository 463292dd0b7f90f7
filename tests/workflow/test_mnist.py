"""The paper's experiment on MNIST in small, where the official files are at hand."""

import json
import os
from pathlib import Path

import h5py
import pytest
import yaml

from harness import ROOT, snakemake

FOLDER = os.environ.get("NODE_ROBUSTNESS_MNIST")


@pytest.mark.skipif(FOLDER is None, reason="NODE_ROBUSTNESS_MNIST names no folder with its files")
def test_mnist_to_the_end(fresh):
    config = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    mnist = {
        "mirrors": [Path(str(FOLDER)).resolve().as_uri()],
        "subset": {"train": 200, "validation": 100, "test": 10},
    }
    changes = {
        "datasets": {"mnist": mnist},
        "training": {"epochs": 1},
        "experiments": {"mnist_paper": {"tolerances": [0.1], "epsilons": [0.1]}},
    }
    options = [f"{section}={json.dumps(change)}" for section, change in changes.items()]
    run = snakemake(fresh, config=config, options=("--config", *options))
    assert run.jobs["train"] == 3
    assert run.jobs["attack"] == 6
    results = fresh / "results/mnist_paper"
    assert (results / "report.html").exists()
    with h5py.File(results / "mnist/data.h5") as data:
        assert data["train/images"].shape == (60_000, 1, 28, 28)
        assert data["test/images"].shape == (10_000, 1, 28, 28)
        assert data["indices/validation"].shape == (5000,)
