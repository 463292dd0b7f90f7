"""Our engine in the place of torchattacks' own attacks."""

import re
from pathlib import Path

import pytest
import torch
import torchattacks
from torch import nn

import node_robustness
from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.bim import BasicIterativeMethod, FastGradientSign
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.carlini_wagner import CarliniWagner
from node_robustness.attacks.engine import attack
from node_robustness.attacks.expectation import ExpectationOverTolerances, log_uniform
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.square import Square
from node_robustness.attacks.torchattacks import (
    AutoProjectedGradient,
    BasicIterative,
    CarliniWagnerL2,
    ExpectationOverDrawnTolerances,
    FastAdaptiveBoundary,
    FastGradient,
    ProjectedGradient,
    RandomNoise,
    SmallestByBisection,
    SquareAttack,
    Transferred,
)
from node_robustness.attacks.transfer import Transfer
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical

# Sums of these and of the pixels are exact, so that the same iterates have the same bits.
EIGHT, TWO = 8 / 256, 2 / 256


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(54, 4)
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


def test_where_nothing_succeeds_it_is_torchattacks_bim(model, images, labels):
    model[-1].bias.data += 100 * nn.functional.one_hot(labels[:1], 4)[0]
    labels = labels[:1].expand(16)
    expected = torchattacks.BIM(model, EIGHT, TWO, steps=10)(images, labels)
    assert torch.equal(model(expected).argmax(1), labels)
    for early_stop in (True, False):
        adversary = BasicIterative(model, "linf", EIGHT, TWO, 10, early_stop, batch_size=5)
        assert torch.equal(adversary(images, labels), expected)


def test_success_wherever_torchattacks_bim_has_it(model, images, labels):
    broken = torchattacks.BIM(model, EIGHT, TWO, steps=10)(images, labels)
    theirs = model(broken).argmax(1) != labels
    assert bool(theirs[:12].any())
    assert not bool(theirs.all())
    for early_stop in (True, False):
        found = BasicIterative(model, "linf", EIGHT, TWO, 10, early_stop)(images, labels)
        ours = model(found).argmax(1) != labels
        assert not bool((theirs & ~ours).any())
        # The same path: what stands at its end stands there in both.
        assert torch.equal(found[~ours], broken[~ours])
        assert torch.equal(found[12:], images[12:])


def test_every_step_is_torchattacks_bim(model, images, labels):
    """The first adversarial iterate is the last of a BIM with as many steps."""
    found = attack(
        model, images, labels, BasicIterativeMethod(Norm("linf"), EIGHT, TWO, iterations=10)
    )
    assert len(found.iterations[found.success].unique()) > 1
    for steps in range(1, 11):
        rows = found.attacked & (found.iterations == steps)
        theirs = torchattacks.BIM(model, EIGHT, TWO, steps)(images, labels)
        assert torch.equal(found.adversarials[rows], theirs[rows])


@pytest.mark.parametrize("norm", ["linf", "l2", "l2_rms"])
def test_all_parameters_are_handed_on(model, images, labels, norm):
    adversary = BasicIterative(model, norm, eps=0.05, alpha=0.01, steps=3, early_stop=False)
    method = BasicIterativeMethod(Norm(norm), 0.05, 0.01, 3, early_stop=False)
    expected = attack(model, images, labels, method).adversarials
    assert torch.equal(adversary(images, labels), expected)
    assert "eps=0.05" in repr(adversary)
    assert f"norm={norm}" in repr(adversary)


L2, LINF = Norm("l2"), Norm("linf")
OTHERS = [
    (FastGradient, ("l2", 0.5), FastGradientSign(L2, 0.5)),
    (
        ProjectedGradient,
        ("l2", 0.5, 0.1, 3, 2, "margin", False, 7),
        ProjectedGradientDescent(L2, 0.5, 0.1, 3, 2, "margin", False),
    ),
    (AutoProjectedGradient, ("l2", 0.5, 9, 2, "ce", None, 7), AutoPGD(L2, 0.5, "ce", 9, 2)),
    (
        AutoProjectedGradient,
        ("linf", TWO, 9, 1, "dlr", 2),
        AutoPGD(LINF, TWO, "dlr", 9, 1, targets=2),
    ),
    (SquareAttack, ("l2", 0.5, 20, 7), Square(L2, 0.5, 20)),
    (FastAdaptiveBoundary, ("l2", 0.5, 9, 2), FAB(L2, 0.5, 9, 2)),
    (CarliniWagnerL2, ("l2", 2, 60, 4, 0.1, 0.01), CarliniWagner(L2, 2, 60, 4, 0.1, 0.01)),
    (
        SmallestByBisection,
        ("l2", 0.5, 0.3, 3, 4, "margin"),
        Bisection(L2, 0.5, 0.3, 3, 4, "margin"),
    ),
    (RandomNoise, ("l2", 0.5, 5, 7), Noise(L2, 0.5, 5)),
]


@pytest.mark.parametrize(("adapter", "arguments", "method"), OTHERS)
def test_every_attack_is_handed_on(model, images, labels, adapter, arguments, method):
    adversary = adapter(model, *arguments, batch_size=5)
    assert adversary.method() == method
    expected = attack(model, images, labels, method, seed=adversary.seed).adversarials
    torch.testing.assert_close(adversary(images, labels), expected)
    assert bool((expected != images).any())


def test_a_transferred_attack_is_made_on_its_own_model(model, images, labels):
    torch.manual_seed(5)
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    by = BasicIterative(other, "l2", 0.5, 0.1, 5, early_stop=False)
    expected = attack(model, images, labels, Transfer(other, by.method())).adversarials
    assert torch.equal(Transferred(model, by)(images, labels), expected)
    assert bool((expected[:12] != images[:12]).any())


def test_drawn_tolerances_are_handed_on(images):
    torch.manual_seed(2)
    ode = Classifier(Spec(3, 4, (0.5,) * 3, (0.3,) * 3, "convolution", "ode", 8)).eval()
    labels = ode(images).argmax(1)
    arguments = (0.01, 0.002, 3, 2, "margin")
    method = ExpectationOverTolerances(
        LINF, *arguments, draws=2, source=ode, draw=log_uniform(1e-2, 10)
    )
    adversary = ExpectationOverDrawnTolerances(
        ode, 1e-2, 10, "linf", *arguments, draws=2, seed=7, batch_size=5
    )
    expected = attack(ode, images, labels, method, seed=7).adversarials
    assert bool((expected != images).any())
    assert torch.equal(adversary(images, labels), expected)


def test_fgsm_is_torchattacks_fgsm(model, images, labels):
    expected = torchattacks.FGSM(model, TWO)(images[:12], labels[:12])
    assert torch.equal(FastGradient(model, eps=TWO)(images[:12], labels[:12]), expected)


def test_models_with_normalisation_outside(model, images, labels):
    mean, std = [0.5, 0.25, 0.5], [0.5, 0.25, 0.25]
    outside = BasicIterative(model)
    outside.set_normalization_used(mean, std)
    normalised = outside.normalize(images)
    labels = model(normalised).argmax(1)

    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(outside.normalize(x))

    expected = BasicIterative(Inside())(images, labels)
    assert bool((expected != images).any())
    torch.testing.assert_close(outside(normalised, labels), outside.normalize(expected))


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model, images, labels, training):
    expected = BasicIterative(model)(images, labels)
    model.train(training)
    model[0].weight.requires_grad_(False)
    found = BasicIterative(model)(images, labels)
    assert torch.equal(found, expected)
    assert [module.training for module in model.modules()] == [training] * 7
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert not found.requires_grad


def test_works_in_torchattacks_wrappers(model, images, labels):
    ours = BasicIterative(model, eps=TWO, alpha=TWO, steps=1)
    both = torchattacks.MultiAttack([ours, torchattacks.BIM(model, 4 * EIGHT, EIGHT, steps=20)])
    alone = model(ours(images, labels)).argmax(1) != labels
    together = model(both(images, labels)).argmax(1) != labels
    assert not bool((alone & ~together).any())
    assert together.sum() > alone.sum()


def test_is_untargeted_only(model):
    with pytest.raises(ValueError, match="Targeted mode is not supported"):
        BasicIterative(model).set_mode_targeted_by_label()


def test_nothing_else_imports_torchattacks():
    scripts = Path(node_robustness.__file__).parents[1]
    importers = [
        path.name
        for path in scripts.rglob("*.py")
        if re.search(r"^\s*(from|import) torchattacks\b", path.read_text(), re.MULTILINE)
    ]
    assert importers == ["torchattacks.py"]
