"""The authors' checkpoints: the workflow gives the logits that their formulas give."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from authors import authors_net
from harness import IMAGES, OON, plan, snakemake, tiny


def test_authors_checkpoint(copied):
    torch.manual_seed(7)
    theirs = authors_net("OON", 4, 1, dropout=True)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoint = {"epoch": 7, "params": {"tol": 1e-3}, "model": theirs.state_dict(), "metrics": {}}
    (copied / "weights").mkdir()
    torch.save(checkpoint, copied / "weights/oon-0.pth")
    config = tiny(models__OON__weights="weights/oon-{seed}.pth")
    targets = {tau: f"{OON}/tau-{name}/clean.h5" for tau, name in ((1e-3, "0.001"), (1.0, "1"))}
    run = snakemake(copied, *targets.values(), config=config)
    assert run.jobs == {"import_weights": 1, "evaluate": 2}

    with h5py.File(copied / "results/tiny/digits/data.h5") as data:
        images = data["test/images"][:][data["indices/test"][:IMAGES]]
    batch = torch.from_numpy(images).float() / 255
    # One image at a time: torchdiffeq would give a batch one step size.
    with torch.no_grad():
        expected = {
            tau: torch.cat([theirs(image, tau) for image in batch.split(1)]).numpy()
            for tau in targets
        }
    assert abs(expected[1e-3] - expected[1.0]).max() > 0.005
    for tau, target in targets.items():
        with h5py.File(copied / target) as clean:
            assert clean["logits"][:] == pytest.approx(expected[tau], rel=1e-4, abs=1e-5)
            np.testing.assert_array_equal(clean["predictions"][:], expected[tau].argmax(1))


def test_weights_from_another_file(copied):
    """Even one that is older than the model: Snakemake compares the path, not only the times."""
    weights = copied / "results/tiny/digits/OON/seed-0/model.safetensors"
    for name in ("a", "b"):
        shutil.copy2(weights, copied / f"{name}.safetensors")
    target = f"{OON}/tau-1/clean.h5"
    run = snakemake(copied, target, config=tiny(models__OON__weights="a.safetensors"))
    assert run.jobs == {"import_weights": 1, "evaluate": 1}
    for name, jobs in (("a", {}), ("b", {"import_weights": 1, "evaluate": 1})):
        config = tiny(models__OON__weights=f"{name}.safetensors")
        assert plan(copied, target, config=config).jobs == jobs
