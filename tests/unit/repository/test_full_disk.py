"""Every writer on a full disk: a line that names the file, what was there stays, nothing is left.

The disk is a real one of a few megabytes where one may be mounted (as root, on Linux); a limit on
the size of files, which every system has, is tested too.
"""

import hashlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from node_robustness.attacks.merge import merge
from node_robustness.config.models import Training
from node_robustness.data.downloads import RemoteFile, fetch
from node_robustness.errors import UserError
from node_robustness.figures.drawing import render, save_drawing, save_pixels
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.models import checkpoints, classifier
from node_robustness.provenance.costs import job_costs
from node_robustness.report.html import render_report
from node_robustness.tables.frame import write_table
from node_robustness.training import train
from samples import MANIFEST, tiny_tables

Full = Callable[[], object]


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory) -> Iterator[Path]:
    """A disk of eight megabytes, empty."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield folder
    # Lazy: PyArrow holds the file that it could not write until Python collects it.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def limit() -> Iterator[None]:
    """Let no file grow beyond eight bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Use up a disk to its last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as stream:
        for size in (2**16, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                pass
    try:
        yield
    finally:
        ballast.unlink()


class Written:
    """The writers: each writes one file, of a version, and any other file it makes elsewhere."""

    def __init__(self, elsewhere: Path) -> None:
        self.elsewhere = elsewhere

    def hdf5(self, path: Path, version: int) -> None:
        with write_hdf5(path, "attack", {"version": version}, seconds=1.0, device="cpu") as file:
            index = np.arange(5000) + version
            put(file, "index", index, units="1", description="rows")

    def merged(self, path: Path, version: int) -> None:
        shard = self.elsewhere / "attack-0-5000.h5"
        self.hdf5(shard, version)
        merge([shard], path, np.arange(5000) + version)

    def weights(self, path: Path, version: int) -> None:
        checkpoints.save(_classifier(version), path, self.elsewhere / "model.json")

    def spec(self, path: Path, version: int) -> None:
        checkpoints.save(_classifier(version), self.elsewhere / "model.safetensors", path)

    def checkpoint(self, path: Path, version: int) -> None:
        images = torch.zeros((8, 3, 4, 4), dtype=torch.uint8), torch.arange(8) % 2
        net = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
        settings = Training(epochs=version, batch_size=4)
        cpu = torch.device("cpu")
        train.train(
            net, images, images, settings, seed=0, checkpoint=path, device=cpu, progress=False
        )

    def history(self, path: Path, version: int) -> None:
        row = dict.fromkeys(train.Row.__annotations__, version)
        train.write_history([row], path)

    def csv(self, path: Path, version: int) -> None:
        write_table(_frame(version), path, self.elsewhere / "table.parquet", {})

    def parquet(self, path: Path, version: int) -> None:
        write_table(_frame(version), self.elsewhere / "table.csv", path, {})

    def svg(self, path: Path, version: int) -> None:
        save_drawing(render(_chart(version)), path, self.elsewhere / "c.json")

    def png(self, path: Path, version: int) -> None:
        self.svg(self.elsewhere / "c.svg", version)
        save_pixels("The PNG", self.elsewhere / "c.svg", path)

    def vega(self, path: Path, version: int) -> None:
        save_drawing(render(_chart(version)), self.elsewhere / "c.svg", path)

    def download(self, path: Path, version: int) -> None:
        there = self.elsewhere / "mirror.bin"
        there.write_bytes(bytes([version]) * 5000)
        digest = hashlib.sha256(there.read_bytes()).hexdigest()
        fetch(RemoteFile(path.name, digest, (there.as_uri(),)), path.parent, progress=False)


def _classifier(version: int) -> classifier.Classifier:
    torch.manual_seed(version)
    spec = classifier.Spec(1, 2 + version, (0.0,), (1.0,), "convolution", "ode", 4)
    return classifier.Classifier(spec)


def _frame(version: int) -> pd.DataFrame:
    return pd.DataFrame({"a": np.arange(5000) * version})


def _chart(version: int) -> alt.VConcatChart:
    points = pd.DataFrame({"x": range(1000), "y": np.arange(1000) * version})
    return alt.vconcat(alt.Chart(points).mark_point().encode(x="x", y="y"))


# Those before which another file is written elsewhere, which the limit would forbid.
SECOND = ["merged", "spec", "parquet", "svg", "png", "download"]
FIRST = [name for name in vars(Written) if not name.startswith("_") and name not in SECOND]


def check(write: Callable[[Path, int], object], path: Path, full: Full) -> None:
    """Write a file, then another version in its place without space, then with it."""
    write(path, 1)
    before = path.read_bytes()
    with full(), pytest.raises(UserError, match="no space left to write it; free") as told:
        write(path, 2)
    assert str(told.value).startswith(f"{path}: ")
    assert len(str(told.value).splitlines()) == 1
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    write(path, 2)
    assert path.read_bytes() != before


@pytest.mark.parametrize("name", FIRST)
def test_a_limit(tmp_path, name):
    for folder in ("elsewhere", "here"):
        (tmp_path / folder).mkdir()
    check(getattr(Written(tmp_path / "elsewhere"), name), tmp_path / "here/file", limit)


@pytest.mark.parametrize("name", [*FIRST, *SECOND])
def test_a_disk(small_disk, tmp_path, name):
    path = small_disk / name / "file"
    check(getattr(Written(tmp_path), name), path, partial(filled, small_disk))


def test_the_report(small_disk):
    tables = tiny_tables()
    tables["costs"] = job_costs([], tables)

    def write(path: Path, version: int) -> None:
        manifest = MANIFEST | {"host": f"host {version}"}
        render_report("tiny", tables, {}, manifest, None, path)

    check(write, small_disk / "report/report.html", partial(filled, small_disk))


def test_a_folder_that_cannot_be_made(small_disk):
    """It takes space as well: here an inode, of which the disk has only a few."""
    subprocess.run(
        ["mount", "-o", f"remount,nr_inodes={_inodes(small_disk)}", str(small_disk)], check=True
    )
    path = small_disk / "new/folder/attack.h5"
    with pytest.raises(UserError, match=r"new/folder/attack\.h5: no space left"):
        Written(small_disk).hdf5(path, 1)
    assert not path.parent.parent.exists()


def _inodes(disk: Path) -> int:
    """How many inodes of a disk are in use."""
    known = os.statvfs(disk)
    return known.f_files - known.f_ffree
