"""The basic iterative method, step by step against torchattacks, to the bit."""

import pytest
import torch
import torchattacks
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fgsm import FastGradientSign
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical

# Sums of these and of the pixels are exact, so that the same iterates have the same bits.
EIGHT, TWO = 8 / 256, 2 / 256


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(54, 4)
    ).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randint(257, (16, 3, 8, 8), generator=generator) / 256


@pytest.fixture
def labels(model, images):
    """The model's predictions, the last four of them wrong."""
    truth = model(images).argmax(1)
    truth[12:] = (truth[12:] + 1) % 4
    return truth


def bim(*, early_stop=True):
    return BasicIterativeMethod(Norm("linf"), EIGHT, TWO, iterations=10, early_stop=early_stop)


@pytest.mark.parametrize("early_stop", [True, False])
def test_where_nothing_succeeds_it_is_torchattacks_bim(model, images, labels, early_stop):
    model[-1].bias.data += 100 * nn.functional.one_hot(labels[:1], 4)[0]
    labels = labels[:1].expand(16)
    expected = torchattacks.BIM(model, EIGHT, TWO, steps=10)(images, labels)
    assert torch.equal(model(expected).argmax(1), labels)
    found = attack(model, images, labels, bim(early_stop=early_stop), batch_size=5)
    assert torch.equal(found.adversarials, expected)


@pytest.mark.parametrize("early_stop", [True, False])
def test_success_wherever_torchattacks_bim_has_it(model, images, labels, early_stop):
    broken = torchattacks.BIM(model, EIGHT, TWO, steps=10)(images, labels)
    theirs = model(broken).argmax(1) != labels
    assert bool(theirs[:12].any())
    assert not bool(theirs.all())
    found = attack(model, images, labels, bim(early_stop=early_stop))
    ours = model(found.adversarials).argmax(1) != labels
    assert not bool((theirs & ~ours).any())
    # The same path: what stands at its end stands there in both.
    assert torch.equal(found.adversarials[~ours], broken[~ours])
    assert torch.equal(found.adversarials[12:], images[12:])


def test_every_step_is_torchattacks_bim(model, images, labels):
    """The first adversarial iterate is the last of a BIM with as many steps."""
    found = attack(model, images, labels, bim())
    assert len(found.iterations[found.success].unique()) > 1
    for steps in range(1, 11):
        rows = found.attacked & (found.iterations == steps)
        theirs = torchattacks.BIM(model, EIGHT, TWO, steps)(images, labels)
        assert torch.equal(found.adversarials[rows], theirs[rows])


def test_a_single_step_is_torchattacks_fgsm(model, images, labels):
    theirs = torchattacks.FGSM(model, TWO)(images[:12], labels[:12])
    found = attack(model, images[:12], labels[:12], FastGradientSign(Norm("linf"), TWO))
    assert torch.equal(found.adversarials, theirs)
