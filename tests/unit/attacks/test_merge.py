"""A cell that is merged from its shards is the file that one job would have written."""

import h5py
import numpy as np
import pytest
import torch

from node_robustness.attacks.engine import AttackResult
from node_robustness.attacks.files import write_attack
from node_robustness.attacks.merge import merge
from node_robustness.errors import UserError
from node_robustness.files.atomic import sha256

SETTINGS = {"model": "OON", "seed": 1, "tolerance": 0.1, "norm": "linf", "epsilon": 0.3}
IMAGES = 11
INDEX = np.random.default_rng(0).permutation(50)[:IMAGES]
PARTS = [slice(0, 4), slice(4, 8), slice(8, 11)]


def write(path, part=slice(None), settings=SETTINGS, index=INDEX, with_ode=True, **attributes):
    """Write an attack.h5 of some of the images."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand((IMAGES, 1, 4, 4), generator=draw)
    classes = torch.randint(0, 10, (4, IMAGES), generator=draw)
    flags = torch.rand((3, IMAGES), generator=draw) < 0.5
    found = AttackResult(
        clean_predictions=classes[0][part],
        attacked=flags[0][part],
        skipped=flags[1][part],
        success=flags[2][part],
        adversarials=images.flip(0)[part],
        adversarial_predictions=classes[1][part],
        iterations=classes[2][part],
        nfe_clean=classes[3].int()[part] if with_ode else None,
        nfe_adversarial=classes[3].int()[part] + 6 if with_ode else None,
    )
    attributes = {"seconds": 1.5, "device": "a processor"} | attributes
    write_attack(path, settings, index[part], index[part] % 10, images[part], found, **attributes)
    return path


def contents(path):
    """Every dataset with its type, layout and attributes, and the attributes of the file."""
    with h5py.File(path) as file:
        datasets = {
            name: (node.dtype, node.chunks, node[()].tobytes(), dict(node.attrs))
            for name, node in file.items()
        }
        return datasets, dict(file.attrs)


@pytest.mark.parametrize("with_ode", [True, False])
def test_every_dataset_is_that_of_the_whole(tmp_path, with_ode):
    whole = write(tmp_path / "whole.h5", with_ode=with_ode, seconds=4.0)
    shards = [
        write(tmp_path / f"{n}.h5", part, with_ode=with_ode, seconds=n + 1.0, device=device)
        for n, (part, device) in enumerate(zip(PARTS, ["b", "a", "b"], strict=True))
    ]
    merge(shards, tmp_path / "attack.h5", INDEX)
    expected, attributes = contents(whole)
    found, found_attributes = contents(tmp_path / "attack.h5")
    assert found == expected
    assert found_attributes == attributes | {"seconds": 6.0, "device": "a, b"}


def test_a_single_shard(tmp_path):
    shard = write(tmp_path / "0-11.h5")
    merge([shard], tmp_path / "attack.h5", INDEX)
    assert contents(tmp_path / "attack.h5") == contents(shard)


def test_the_same_shards_give_the_same_bytes(tmp_path):
    shards = [write(tmp_path / f"{n}.h5", part) for n, part in enumerate(PARTS)]
    for name in ("one.h5", "another.h5"):
        merge(shards, tmp_path / name, INDEX)
    assert sha256(tmp_path / "one.h5") == sha256(tmp_path / "another.h5")


class TestRefusals:
    @pytest.fixture
    def shards(self, tmp_path):
        return [write(tmp_path / f"attack-{n}.h5", part) for n, part in enumerate(PARTS)]

    @staticmethod
    def refused(shards, message):
        path = shards[0].with_name("attack.h5")
        with pytest.raises(UserError, match=message):
            merge(shards, path, INDEX)
        assert not path.exists()

    def test_one_is_missing(self, shards):
        shards[1].unlink()
        self.refused(shards, r"attack-1\.h5: there is no such file; run snakemake again")

    def test_one_is_damaged(self, shards):
        shards[2].write_bytes(shards[2].read_bytes()[:-100])
        self.refused(shards, r"attack-2\.h5: truncated, damaged or not an HDF5 file; delete it")

    @pytest.mark.parametrize(
        "changes", [{"settings": SETTINGS | {"epsilon": 0.1}}, {"with_ode": False}]
    )
    def test_one_was_made_with_other_settings(self, shards, changes):
        write(shards[1], PARTS[1], **changes)
        message = r"attack-1\.h5: made with other settings than .*attack-0\.h5; delete .*attack-\*"
        self.refused(shards, message)

    @pytest.mark.parametrize("order", [[0, 1], [0, 2, 1], [0, 0, 1, 2], [0, 1, 1]])
    def test_they_are_not_the_images_of_the_cell(self, shards, order):
        chosen = [shards[n] for n in order]
        self.refused(chosen, r"attack\.h5: its shards hold other images than the cell; delete ")

    def test_they_are_of_other_images(self, shards):
        write(shards[1], PARTS[1], index=INDEX + 1)
        self.refused(shards, "hold other images than the cell")
