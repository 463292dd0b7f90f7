"""What trajectory files take, before a run, against what they are."""

from pathlib import Path
from shutil import _ntuple_diskusage as usage
from typing import Any

import pytest
import torch
import yaml

from node_robustness.config import config, datasets, loading
from node_robustness.errors import UserError
from node_robustness.grid.cells import Cell
from node_robustness.grid.stages import followed
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.shapes.datasets import Size, size_of
from node_robustness.trajectories import disk_space
from node_robustness.trajectories.measure import Measurement
from node_robustness.trajectories.runs import grid

ROOT = Path(__file__).parents[3]
SIZES = {"digits": 8, "mnist": 28, "cifar10": 32}


def configured(**trajectories: Any) -> config.Config:
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    raw["experiments"]["mnist_paper"]["trajectories"] = trajectories
    return loading.load(raw)


def cell(loaded: config.Config, model: str) -> Cell:
    return next(c for c in followed(loaded, "mnist_paper") if c.model == model)


@pytest.mark.parametrize("source", SIZES)
@pytest.mark.parametrize("model", ["RES", "MIX", "OON"])
@pytest.mark.parametrize("times", [7, [0, 0.5, 1]])
def test_sizes_are_those_of_the_instrument(source, model, times):
    raw = yaml.safe_load((ROOT / "config/mnist.yaml").read_text())
    raw["experiments"]["mnist_paper"]["trajectories"] = {
        "times": times,
        "intervals": 4,
        "states": 3,
    }
    raw["datasets"]["mnist"] = {"source": source, "subset": {"test": 20}}
    loaded = loading.load(raw)
    net = loaded.models[model]
    dataset = size_of(loaded.datasets["mnist"])
    assert dataset is not None
    spec = Spec(dataset.channels, 10, (0.0,), (1.0,), net.downsampling, net.body, 64, net.blocks)
    measured = Measurement(Classifier(spec).eval(), grid(times), 4, Norm("linf"), 0, 1e-5)
    shape = (dataset.channels, SIZES[source], SIZES[source])
    expected = measured.sizes(20, 3, shape, "float16")
    assert disk_space.sizes_of(loaded, cell(loaded, model)) == expected


@pytest.mark.parametrize("side", range(8, 40))
@pytest.mark.parametrize("model", ["RES", "OON"])
def test_states_of_images_of_any_size(side, model):
    net = configured().models[model]
    spec = Spec(1, 10, (0.0,), (1.0,), net.downsampling, net.body, 64, 1)
    state = Classifier(spec).eval().embed(torch.zeros(1, 1, side, side)).shape[1:]
    assert disk_space._state_shape(net, Size(0, 0, 1, side**2)) == tuple(state)


def test_no_more_images_than_are_followed_or_tested():
    followed_few = configured(images=5, states=9)
    sizes = disk_space.sizes_of(followed_few, cell(followed_few, "OON"))
    assert sizes is not None
    assert (sizes.images, sizes.kept) == (5, 5)
    everyone = configured()
    sizes = disk_space.sizes_of(everyone, cell(everyone, "OON"))
    assert sizes is not None
    assert (sizes.images, sizes.kept) == (10_000, 4)


def test_data_of_ones_own_are_not_known():
    own = configured()
    files = {
        f"{split}_{what}": datasets.DataFile(name=f"{split}-{what}", sha256=digit * 64)
        for split, digit in (("train", "0"), ("test", "1"))
        for what in ("images", "labels")
    }
    keys = {"source": "idx", "files": files, "class_names": ["a", "b"], "mirrors": ["file:///x"]}
    own.datasets["mnist"] = datasets.Dataset.model_validate(keys)
    assert disk_space.sizes_of(own, cell(own, "OON")) is None
    lines = disk_space.check_room(own, [cell(own, "OON")], Path("results"))
    assert "not known before the data are prepared" in lines[0]


@pytest.fixture
def disk(monkeypatch):
    """Set how much is free."""

    def leave(free: int) -> None:
        monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage(0, 0, free))

    return leave


def test_a_run_that_does_not_fit_is_refused(tmp_path, disk):
    loaded = configured(images=100)
    cells = [c for c in followed(loaded, "mnist_paper") if c.model == "OON"][:3]
    sizes = disk_space.sizes_of(loaded, cells[0])
    assert sizes is not None
    needed = 3 * (100 * sizes.bytes_an_image + 4 * sizes.bytes_a_kept_image)
    disk(needed)
    lines = disk_space.check_room(loaded, cells, tmp_path / "results")
    assert lines == [
        "Trajectories of OON on mnist, 3 files: up to 100 images of "
        f"{sizes.bytes_an_image / 1e3:,.1f} kB each, 4 of them with states of "
        f"{sizes.bytes_a_kept_image / 1e3:,.1f} kB more",
        f"Trajectories of this run: {needed / 1e6:,.1f} MB at most, and there are "
        f"{needed / 1e6:,.1f} MB free",
    ]
    disk(needed - 1)
    with pytest.raises(
        UserError, match=r"^config: experiments\.mnist_paper\.trajectories: the files"
    ):
        disk_space.check_room(loaded, cells, tmp_path / "results")
    # What a run writes anew frees the space of what was there.
    old = tmp_path / "results" / cells[1].folder / "trajectory.h5"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"x")
    assert disk_space.check_room(loaded, cells, tmp_path / "results")


def test_a_run_without_trajectories_says_nothing(disk):
    disk(0)
    assert disk_space.check_room(configured(), [], Path("results")) == []
