"""What goes wrong ends with one line that names the culprit and the remedy, and leaves nothing.

No mistake shows a traceback, and none leaves a file that looks like a result.
"""

import argparse
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import pytest
import torch
import yaml

from authors import authors_net
from harness import (
    OON,
    ROOT,
    TABLES,
    TINY,
    Run,
    attempt,
    complaint,
    files,
    noise,
    own_dataset,
    snakemake,
    tiny,
)
from node_robustness.config.methods import BUILT_IN
from node_robustness.config.presets import PRESETS

DATA = "results/tiny/digits/data.h5"
CLEAN = f"{OON}/tau-1/clean.h5"
# A cell without a trajectory, so that only the tables read it.
ATTACK = f"{OON}/tau-1/bim/l2_rms/eps-0.3/attack.h5"
TABLE = "results/tiny/tables/attacks.csv"
MADE = {f"results/tiny/tables/{name}.{suffix}" for name in TABLES for suffix in ("csv", "parquet")}
REMEDY = "delete it and run snakemake again"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"experiments__tiny__tolerence": [1]},
            "experiments.tiny.tolerence: unknown key; did you mean 'tolerances'?",
        ),
        (
            {"experiments__tiny__datasets": ["digit"]},
            "experiments.tiny.datasets: 'digit' is not defined under datasets (there is: digits)",
        ),
        (
            {"experiments__tiny__models": ["MIX"]},
            "experiments.tiny.models: 'MIX' is not defined under models (there is: RES, OON)",
        ),
        (
            {"experiments__tiny__attacks": ["gpd"]},
            "experiments.tiny.attacks: 'gpd' is not defined under attacks or presets (there is: "
            f"{', '.join([*BUILT_IN, 'bim', *PRESETS])})",
        ),
        (
            {"experiments__tiny__epsilons": [0.1, -0.3]},
            "experiments.tiny.epsilons: -0.3 must be greater than 0",
        ),
        (
            {"experiments__tiny__tolerances": [0]},
            "experiments.tiny.tolerances: 0 must be greater than 0",
        ),
        (
            {"experiments__tiny__norms": []},
            "experiments.tiny.norms: is empty: list at least one",
        ),
        (
            {"experiments__tiny__tolerances": ["1e-3", 1, 0.001]},
            "experiments.tiny.tolerances: 0.001 is listed twice (as 1e-3 and as 0.001): remove one",
        ),
        (
            {"datasets__digits__source": "mnits"},
            "datasets.digits.source: 'mnits' is not known; choose from 'digits', 'mnist', "
            "'fashion_mnist', 'cifar10', 'cifar100', 'idx' or 'cifar_binary'",
        ),
        (
            {"experiments__tiny__trajectories__times": 10**9},
            "experiments.tiny.trajectories.times: 1000000000 must be 10000 or less",
        ),
        (
            {"experiments__tiny__trajectories__intervals": 101},
            "experiments.tiny.trajectories.intervals: 101 must be 100 or less",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_configuration(fresh, change, line):
    run = attempt(fresh, config=tiny(**change))
    assert complaint(run) == f"config: {line}"
    assert files(fresh) == set()


def test_several_mistakes_are_a_line_each(fresh):
    run = attempt(fresh, config=tiny(compute__batch_size=0, training__epochs="many"))
    assert run.returncode != 0
    assert "\nconfig: compute.batch_size: 0 must be 1 or more\n" in run.output
    assert "\nconfig: training.epochs: 'many' is not a whole number" in run.output


def test_a_key_that_stands_twice(fresh, tmp_path):
    """In any of the files that are given, or in a value of `--config`."""
    configs = [tmp_path / "one.yaml", tmp_path / "two.json"]
    configs[0].write_text(yaml.safe_dump(TINY))
    configs[1].write_text('{"training": {"epochs": 1},\n "training": {"momentum": 0}}')
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--directory", str(fresh)]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", *map(str, configs)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert complaint(Run(run.returncode, run.stdout + run.stderr)) == (
        f"config: {configs[1]}: training stands more than once, in lines 1 and 2, and only the "
        "last would count: keep one"
    )
    run = attempt(fresh, options=("--dry-run", "--config", 'training={"epochs": 1, "epochs": 2}'))
    assert complaint(run) == "config: --config training: epochs stands twice: remove one of the two"
    assert files(fresh) == set()


def test_device_that_is_not_there(copied):
    before = files(copied)
    absent = "mps" if torch.cuda.is_available() else "cuda"
    config = tiny(compute__device=absent)
    run = attempt(copied, CLEAN, config=config, options=("--force",))
    assert complaint(run) == (
        f"error: compute.device: {absent} is not there (PyTorch {torch.__version__} finds none); "
        "set it to auto or cpu"
    )
    assert files(copied) == before - {CLEAN}


def downloaded(fresh):
    """What is there but for the code of the charts, which is written meanwhile."""
    return files(fresh) - {"resources/vega.js"}


class TestDownloads:
    """A dataset of our own, so that there are no other mirrors to go to."""

    @pytest.fixture
    def dataset(self, tmp_path):
        return own_dataset(tmp_path / "mirror", *noise(60, 6, 0))

    @staticmethod
    def attempt(folder, dataset):
        config = tiny(datasets={"own": dataset}, experiments__tiny__datasets=["own"])
        return attempt(folder, config=config)

    def test_mirrors_that_are_down(self, fresh, dataset, tmp_path):
        with socket.socket() as closed:
            # Bound, so that nobody else takes the port, but never listening.
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            missing = (tmp_path / "nowhere").as_uri()
            run = self.attempt(fresh, dataset | {"mirrors": [missing, url]})
        assert complaint(run) == (
            f"error: train-images: no mirror gave it: {missing}/train-images (no such file, or "
            f"not readable); {url}/train-images (connection failed); put the file into "
            "resources/own yourself or add a working one to the dataset's `mirrors`"
        )
        assert downloaded(fresh) == set()

    def test_a_download_that_breaks_off(self, fresh, dataset, tmp_path):
        with served(tmp_path / "mirror", missing=10) as url:
            run = self.attempt(fresh, dataset | {"mirrors": [url]})
        line = complaint(run)
        assert f"{url}/train-images (the download broke off); put the file into" in line
        assert downloaded(fresh) == set()

    def test_the_same_server_with_all_bytes(self, fresh, dataset, tmp_path):
        with served(tmp_path / "mirror", missing=0) as url:
            config = tiny(
                datasets={"own": dataset | {"mirrors": [url]}}, experiments__tiny__datasets=["own"]
            )
            assert attempt(fresh, "resources/own/verified.json", config=config).returncode == 0

    def test_wrong_checksum(self, fresh, dataset, tmp_path):
        path = tmp_path / "mirror/test-labels"
        dataset["files"]["test_labels"]["sha256"] = "0" * 64
        run = self.attempt(fresh, dataset)
        line = complaint(run)
        assert line.startswith(f"error: test-labels: no mirror gave it: {path.as_uri()} (wrong ")
        # The files that were right are kept for the next run.
        assert downloaded(fresh) == {
            f"resources/own/{name}" for name in ("train-images", "train-labels", "test-images")
        }


@contextmanager
def served(folder: Path, missing: int) -> Iterator[str]:
    """A folder on a local HTTP server that promises more bytes than it sends."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (folder / self.path.strip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - missing])

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_full_disk(fresh):
    """A limit on the size of files stands in for it."""
    run = attempt(fresh, DATA, file_kilobytes=40, as_a_user=True)
    assert complaint(run) == (
        f"error: {DATA}: no space left to write it; free space on that disk (or raise the quota "
        "or file-size limit) and run snakemake again"
    )
    assert files(fresh) == {"resources/digits/verified.json"}


class TestDamagedFiles:
    """In a finished run, found by the job that reads them."""

    @staticmethod
    def read(folder, target, damaged):
        before = files(folder)
        line = complaint(attempt(folder, target, options=("--force",)))
        made = MADE if target == TABLE else {target}
        assert files(folder) == before - made
        return line.removeprefix(f"error: {damaged}: ")

    @pytest.mark.parametrize(("reader", "path"), [(TABLE, ATTACK), (CLEAN, DATA)])
    def test_truncated(self, copied, reader, path):
        before = (copied / path).stat()
        os.truncate(copied / path, before.st_size // 2)
        # A newer file would run more than its reader.
        os.utime(copied / path, ns=(before.st_atime_ns, before.st_mtime_ns))
        found = self.read(copied, reader, path)
        assert found == f"truncated, damaged or not an HDF5 file; {REMEDY}"

    def test_somebody_elses(self, copied):
        with h5py.File(copied / ATTACK, "w") as file:
            file["success"] = [True]
        found = self.read(copied, TABLE, ATTACK)
        assert found == f"an HDF5 file that node-robustness did not write; {REMEDY}"

    def test_of_an_earlier_layout(self, copied):
        """Which `snakemake --touch` accepts, since it does not look into files."""
        with h5py.File(copied / ATTACK, "r+") as file:
            file.attrs["schema_version"] = 1
            del file["skipped"]
        snakemake(copied, config=TINY, options=("--touch",))
        found = self.read(copied, TABLE, ATTACK)
        assert found == f"has schema version 1, this version of node-robustness reads 2; {REMEDY}"


class TestImportedWeights:
    def test_no_such_file(self, fresh):
        config = tiny(models__OON__weights="weights/oon-{seed}.pth")
        run = attempt(fresh, config=config)
        assert complaint(run) == (
            "config: models.OON.weights: there is no file weights/oon-0.pth in "
            f"{fresh.resolve()}: correct the path, or remove the key to train the model"
        )
        assert files(fresh) == set()

    def test_with_more_than_weights(self, fresh):
        """PyTorch's own words advise to run the code in the file."""
        fresh.mkdir()
        state = authors_net("OON", 4, 1, True).state_dict()
        torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, fresh / "oon.pth")
        target = f"{OON}/model.safetensors"
        run = attempt(fresh, target, config=tiny(models__OON__weights="oon.pth"))
        assert complaint(run) == (
            "error: oon.pth: cannot be read as a checkpoint of weights: it also holds "
            "argparse.Namespace, and reading that could run any code: save its state dict "
            "alone: torch.save({'model': model.state_dict()}, file)"
        )
        assert "weights_only" not in run.output
        assert not any(name.endswith(".safetensors") for name in files(fresh))

    def test_of_another_shape(self, copied):
        torch.save({"model": authors_net("OON", 8, 1, True).state_dict()}, copied / "oon.pth")
        before = files(copied)
        target = f"{OON}/model.safetensors"
        run = attempt(copied, target, config=tiny(models__OON__weights="oon.pth"))
        assert complaint(run) == (
            "error: oon.pth: downsampling.weight has shape [8, 1, 4, 4] where the model has "
            "[4, 1, 4, 4]: check filters and the dataset of the model"
        )
        assert files(copied) == before - {target, f"{OON}/model.json"}


class TestSmallImages:
    """From which a model cannot learn: found before any training."""

    def test_whose_size_is_configured(self, fresh):
        own = {"source": "cifar_binary", "mirrors": ["file:///nowhere"], "class_names": ["a", "b"]}
        own["files"] = {
            name: {"name": name, "sha256": digit * 64}
            for name, digit in (("train", "0"), ("test", "1"))
        }
        config = tiny(
            datasets={"own": {**own, "image_shape": [1, 6, 6]}}, experiments__tiny__datasets=["own"]
        )
        assert complaint(attempt(fresh, config=config)) == (
            "config: models.RES: cannot learn from the images of own, which are 6x6 (height x "
            "width): GroupNorm has 1 of 3 values in a group: give it images of 7x7 or larger, or "
            "set filters to 96, or set downsampling to convolution"
        )
        assert files(fresh) == set()

    def test_whose_size_the_files_tell(self, fresh, tmp_path):
        own = own_dataset(tmp_path / "mirror", *noise(60, 6, 0))
        run = attempt(
            fresh, config=tiny(datasets={"own": own}, experiments__tiny__datasets=["own"])
        )
        assert re.findall("Error in rule (.*):", run.output) == ["prepare"]
        assert complaint(run).startswith("error: models.RES: cannot learn from the images of own, ")
        assert not any(name.startswith("results") for name in files(fresh))


def test_colours_of_grey_images(fresh, tmp_path):
    images, labels = noise(60, 8, 0)
    own = own_dataset(tmp_path / "mirror", images[:, :1], labels)
    config = tiny(
        datasets={"own": own},
        experiments__tiny__datasets=["own"],
        training__augmentation={"hue": 0.1},
    )
    run = attempt(fresh, config=config)
    assert re.findall("Error in rule (.*):", run.output) == ["prepare"]
    assert complaint(run) == (
        "error: training, for model RES: augmentation.hue: needs RGB images, and those of own have "
        "1 channel(s): set it to 0"
    )
    assert not any(name.startswith("results") for name in files(fresh))


class TestSubsets:
    """More images than there are: of known data before the run, of your own before any training."""

    LINE = (
        "datasets.{}.subset.test: {} images are asked for, {} are available: lower it or leave it "
        "out"
    )

    def test_of_known_data(self, fresh):
        run = attempt(fresh, config=tiny(datasets__digits__subset__test=360))
        assert complaint(run) == f"config: {self.LINE.format('digits', 360, 359)}"
        assert files(fresh) == set()

    def test_of_your_own(self, fresh, tmp_path):
        config = self.of_own(tmp_path)
        target = "results/tiny/own/OON/seed-0/model.safetensors"
        config["datasets"]["own"]["subset"] = {"test": 21}
        run = attempt(fresh, target, config=config)
        assert re.findall("Error in rule (.*):", run.output) == ["prepare"]
        line = self.LINE.format("own", 21, 20)
        assert complaint(run) == f"error: {line}"
        assert not any(name.endswith(".h5") for name in files(fresh))
        # Once they are prepared, before the run.
        config["datasets"]["own"]["subset"] = {"test": 20}
        snakemake(fresh, "results/tiny/own/data.h5", config=config)
        before = files(fresh)
        config["datasets"]["own"]["subset"] = {"test": 21}
        run = attempt(fresh, target, config=config)
        assert "Error in rule" not in run.output
        assert f"config: {line}" in run.output
        assert files(fresh) == before

    def test_of_a_section(self, fresh, tmp_path):
        config = self.of_own(tmp_path)
        config["experiments"]["tiny"]["randomisation"] = {"images": 64}
        run = attempt(fresh, "results/tiny/own/data.h5", config=config)
        assert complaint(run) == (
            "error: experiments.tiny.randomisation.images: 64 images are asked for, own has 20 to "
            "test: lower it or leave it out"
        )

    @staticmethod
    def of_own(folder):
        dataset = own_dataset(folder / "mirror", *noise(60, 8, 0))
        return tiny(datasets={"own": dataset}, experiments__tiny__datasets=["own"])
