"""Your own datasets, in the two formats that are read, from a mirror on the same disk."""

import io
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from harness import attempt, complaint, files, noise, own_dataset, snakemake, tiny
from node_robustness.files.atomic import sha256


def own_archive(folder: Path, images: np.ndarray, labels: np.ndarray) -> dict:
    """Write an archive of CIFAR's binary batches, the first 20 images the test set."""
    folder.mkdir()
    rows = [
        bytes([9, label]) + image.tobytes() for image, label in zip(images, labels, strict=True)
    ]
    batches = {"test_batch.bin": rows[:20], "batch_1.bin": rows[20:40], "batch_2.bin": rows[40:]}
    path = folder / "tiles.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, records in batches.items():
            member = tarfile.TarInfo(f"tiles/{name}")
            data = b"".join(records)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return {
        "source": "cifar_binary",
        "mirrors": [folder.as_uri()],
        "files": {"archive": {"name": path.name, "sha256": sha256(path)}},
        "class_names": ["field", "forest", "town"],
        "image_shape": [3, 8, 8],
        "label_bytes": 2,
    }


LETTERS, TILES = noise(80, 10, 1), noise(90, 8, 2)


@pytest.fixture
def config(tmp_path):
    return tiny(
        datasets={
            "letters": own_dataset(tmp_path / "letters", *LETTERS),
            "tiles": own_archive(tmp_path / "tiles", *TILES),
        },
        experiments__tiny__datasets=["letters", "tiles"],
    )


def test_from_files_to_logits(fresh, config):
    results = fresh / "results/tiny"
    targets = [f"results/tiny/{name}/OON/seed-0/tau-1/clean.h5" for name in ("letters", "tiles")]
    snakemake(fresh, *targets, config=config)
    for name, (images, labels) in (("letters", LETTERS), ("tiles", TILES)):
        with h5py.File(results / name / "data.h5") as data:
            np.testing.assert_array_equal(data["test/images"][:], images[:20])
            np.testing.assert_array_equal(data["test/labels"][:], labels[:20])
            np.testing.assert_array_equal(data["train/images"][:], images[20:])
            np.testing.assert_array_equal(data["train/labels"][:], labels[20:])
            classes = data["class_names"].asstr()[:].tolist()
            order = data["indices/test"][:]
        assert classes == config["datasets"][name]["class_names"]
        with h5py.File(results / name / "OON/seed-0/tau-1/clean.h5") as clean:
            np.testing.assert_array_equal(clean["labels"][:], labels[order])
            assert clean["logits"].shape == (20, 3)
            assert np.isfinite(clean["logits"][:]).all()
            assert (clean["nfe"][:] > 0).all()


def test_one_flipped_bit(fresh, config, tmp_path):
    path = tmp_path / "tiles/tiles.tar.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    run = attempt(fresh, "results/tiny/tiles/data.h5", config=config)
    assert complaint(run) == (
        f"error: tiles.tar.gz: no mirror gave it: {path.as_uri()} (wrong checksum "
        f"{sha256(path)}); put the file into resources/tiles yourself or add a working one to the "
        "dataset's `mirrors`, or correct the sha256 of your own file if it is the right one"
    )
    assert files(fresh) == set()


def test_files_that_were_replaced_are_not_read(fresh, config):
    """Though the record says that they were right when they were fetched."""
    snakemake(fresh, "resources/letters/verified.json", config=config)
    path = fresh / "resources/letters/test-images"
    right = sha256(path)
    path.write_bytes((fresh / "resources/letters/train-images").read_bytes())
    run = attempt(fresh, "results/tiny/letters/data.h5", config=config)
    assert complaint(run) == (
        f"error: resources/letters/test-images: has another SHA-256 than {right}; run snakemake "
        "with --forcerun fetch"
    )
    snakemake(fresh, "results/tiny/letters/data.h5", config=config, options=("--forcerun", "fetch"))


def test_two_datasets_of_your_own_with_files_of_the_same_names(fresh, tmp_path):
    other = noise(70, 10, 3)
    config = tiny(
        datasets={
            "letters": own_dataset(tmp_path / "letters", *LETTERS),
            "other": own_dataset(tmp_path / "other", *other),
            "official": {"source": "digits"},
        },
        experiments__tiny__datasets=["official", "letters", "other"],
    )
    targets = [f"results/tiny/{name}/data.h5" for name in ("official", "letters", "other")]
    snakemake(fresh, *targets, config=config)
    for name, (images, _) in (("letters", LETTERS), ("other", other)):
        with h5py.File(fresh / f"results/tiny/{name}/data.h5") as data:
            np.testing.assert_array_equal(data["train/images"][:], images[20:])
    with h5py.File(fresh / targets[0]) as data:
        assert data["train/images"].shape == (1438, 1, 8, 8)


def test_defaults_ask_for_no_more_images_than_there_are(fresh, tmp_path):
    """Of 8 images 7 are trained on and one is for validation, and 20 to test."""
    few = {"iterations": 2}
    followed = {"norms": ["linf"], "times": 3, "growth": 1, "causal": 1, "strengthen": 1}
    config = tiny(
        datasets={"few": own_dataset(tmp_path / "few", *noise(28, 8, 4))},
        experiments__tiny__datasets=["few"],
        experiments__tiny__models=["OON"],
        experiments__tiny__audit={**few, "apgd_iterations": 2},
        experiments__tiny__randomisation={**few, "draws": 1, "evaluation_draws": 2},
        experiments__tiny__detection={**few, "searches": 1, "search_iterations": 1},
        experiments__tiny__trajectories=followed,
        training__batch_size=128,
    )
    model = "results/tiny/few/OON/seed-0"
    cell = f"{model}/tau-1/bim/linf/eps-0.3"
    measured = {
        "audit": f"{model}/tau-1/audit.h5",
        "randomised": f"{model}/randomised/linf/eps-0.3/randomised.h5",
        "detection": f"{model}/tau-1/detection/linf/eps-0.3/detection.h5",
    }
    snakemake(fresh, *measured.values(), f"{cell}/trajectory.h5", config=config)
    for path in measured.values():
        with h5py.File(fresh / path) as file:
            assert len(file["index"]) == 20
    with h5py.File(fresh / f"{model}/tau-1/probe.h5") as file:
        assert len(file["t"]) == 0
    with h5py.File(fresh / f"{cell}/trajectory.h5") as file:
        assert np.isnan(file["clean/margin/probe"][:]).all()
