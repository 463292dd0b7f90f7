"""An audit by the library has the numbers of a run of the workflow."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from harness import snakemake, tiny
from node_robustness.library import audit
from node_robustness.models import checkpoints
from node_robustness.models.evaluation import measured_images

OWN = """
import torch
from torch import nn
from torchdiffeq import odeint


class Dynamics(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, t, h):
        return torch.tanh(self.conv(h)) * (1 + t)


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.embed = nn.Conv2d(channels, 4, 3, 2, 1)
        self.dynamics = Dynamics()
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        t = torch.tensor([0.0, 1.0])
        h = odeint(self.dynamics, self.embed(x), t, rtol=1e-2, atol=1e-3)
        return self.head(h[-1].flatten(1))
"""
ATTACKS = {
    "bim": {"method": "bim", "iterations": 4, "step": 0.05},
    "square": {"method": "square", "queries": 20},
}
EPSILONS = [0.3]
IMAGES = 8


@pytest.mark.filterwarnings("ignore:accuracy")
@pytest.mark.parametrize("model", ["OON", "theirs"])
def test_the_numbers_are_those_of_a_run(model, fresh, monkeypatch):
    fresh.mkdir()
    monkeypatch.chdir(fresh)
    (fresh / "net.py").write_text(OWN)
    own = {"module": "net.py", "build": "Net"}
    config = tiny(
        experiments__tiny__models=[model],
        experiments__tiny__tolerances=[0.1],
        experiments__tiny__attacks=list(ATTACKS),
        experiments__tiny__norms=["linf"],
        experiments__tiny__epsilons=EPSILONS,
        experiments__tiny__audit={},
        datasets__digits__subset__test=IMAGES,
        attacks=ATTACKS,
        models__theirs=own,
    )
    for section in ("trajectories", "matrix", "randomisation", "detection"):
        config["experiments"]["tiny"][section] = None
    snakemake(fresh, "results/tiny/tables/verdicts.parquet", config=config)

    place = fresh / f"results/tiny/digits/{model}/seed-0"
    network = checkpoints.load(place / "model.safetensors", place / "model.json")
    data = fresh / "results/tiny/digits/data.h5"
    split, images, labels = measured_images(data, IMAGES, torch.device("cpu"))
    kept = fresh / "library"
    table = audit(
        network,
        images,
        labels,
        name=model,
        tolerances=[0.1],
        epsilons=EPSILONS,
        attacks=ATTACKS,
        index=split.index,
        folder=kept,
        progress=False,
    )
    theirs = pd.read_parquet(fresh / "results/tiny/tables/verdicts.parquet")
    names = ["experiment", "dataset"]
    pd.testing.assert_frame_equal(table.drop(columns=names), theirs.drop(columns=names))

    files = sorted(place.rglob("tau-*/**/*.h5"))
    assert len(files) == (2 if model == "theirs" else 1) * (2 + len(ATTACKS) * len(EPSILONS))
    for path in files:
        own_path = kept / f"results/audit/images/{model}/seed-0" / path.relative_to(place)
        assert_same_arrays(path, own_path)


def assert_same_arrays(first: Path, second: Path) -> None:
    def arrays(path: Path) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
            )
        return found

    one, other = arrays(first), arrays(second)
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=f"{first} {name}")
