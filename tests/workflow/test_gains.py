"""GAINS' published nets, where their checkpoints and the official files of MNIST are at hand."""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.data.formats import read_idx
from node_robustness.models.evaluation import evaluate
from node_robustness.models.own.modules import build_module
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.state_dicts import fill_own
from node_robustness.perturbations.norms import Norm
from torchdiffeq_alone import ZOO

CHECKPOINTS = os.environ.get("NODE_ROBUSTNESS_GAINS")
MNIST = os.environ.get("NODE_ROBUSTNESS_MNIST")

pytestmark = pytest.mark.skipif(
    CHECKPOINTS is None or MNIST is None,
    reason="NODE_ROBUSTNESS_GAINS and NODE_ROBUSTNESS_MNIST name no folders with their files",
)


@cache
def all_images() -> tuple[Tensor, Tensor]:
    """All test images [n, 1, 28, 28] in [0, 1], and their labels."""
    folder = Path(str(MNIST))
    images = torch.tensor(read_idx(folder / "t10k-images-idx3-ubyte.gz"))
    labels = torch.tensor(read_idx(folder / "t10k-labels-idx1-ubyte.gz"))
    return images.float()[:, None] / 255, labels.long()


@cache
def net(training: str) -> OwnNetwork:
    given = {"channels": 1, "classes": 10}
    module = build_module(str(ZOO / "gains.py"), "build", {}, given)
    fill_own(module, Path(str(CHECKPOINTS)) / f"{training}-12345.pth", "state_dict")
    return OwnNetwork.of(module, all_images()[0][:16])


@pytest.mark.parametrize(
    ("training", "accuracy"), [("standard", 0.9908), ("pgd", 0.9932), ("box", 0.9608)]
)
def test_accuracy_is_that_of_torchdiffeq(training, accuracy):
    """On all images; the checkpoints say 0.9907 and 0.9932 of the first two."""
    images, labels = all_images()
    found = evaluate(net(training), images, batch_size=500).predictions
    assert (found == labels).float().mean() == pytest.approx(accuracy, abs=5e-4)


@pytest.mark.parametrize(
    ("training", "least", "most"), [("standard", 0.15, 0.4), ("pgd", 0.9, 1), ("box", 0.9, 1)]
)
def test_training_against_attacks_shows(training, least, most):
    """Under 20 steps in the L-infinity ball of 0.1, within which the last net is certified."""
    images, labels = (values[:100] for values in all_images())
    method = BasicIterativeMethod(Norm("linf"), 0.1, 0.02, 20)
    found = attack(net(training), images, labels, method)
    broken = found.success | (found.clean_predictions != labels)
    assert least <= 1 - broken.float().mean() <= most


def test_the_certified_net_alone_proves_its_robustness():
    """By interval arithmetic; no attack breaks an image that is proven to be robust."""
    images, labels = (values[:100] for values in all_images())
    proven = {
        training: net(training).module.certify(images, labels, "linf", 0.1).float().mean()
        for training in ("standard", "pgd", "box")
    }
    assert proven["standard"] == proven["pgd"] == 0
    assert 0.9 <= proven["box"] < 1
    method = BasicIterativeMethod(Norm("linf"), 0.1, 0.02, 20)
    found = attack(net("box"), images, labels, method)
    broken = found.success | (found.clean_predictions != labels)
    assert not (net("box").module.certify(images, labels, "linf", 0.1) & broken).any()
    # The bounds close around the logits as the ball does.
    assert (
        net("box").module.certify(images, labels, "linf", 1e-4)
        == (found.clean_predictions == labels)
    ).float().mean() >= 0.98
    assert not net("box").module.certify(images, labels, "l2", 0.1).any()
