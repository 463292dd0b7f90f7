"""Checks of attacks and of the solver's promise, on models of which the answer is known."""

import pytest
import torch
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fgsm import FastGradientSign
from node_robustness.audit.attack_checks import (
    NEAR,
    batch_invariance,
    check_attacks,
    neighbours_changed,
)
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

pytestmark = pytest.mark.numerical


def images(count, side=8):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, side, side, generator=generator)


def network():
    torch.manual_seed(3)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", 8)).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(images(16)).mean(0)
    return model


class Function(nn.Module):
    nfe = status = None

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        margin = self.function(x)
        return torch.stack([-margin, margin], dim=1)


@pytest.mark.parametrize("tau", [1e-3, 10.0])
def test_our_solver_is_invariant(tau):
    model = network().at(tolerance=tau)
    found = batch_invariance(model, images(7), seed=0, batch_size=4)
    assert found.logit_difference.max() < 1e-4
    assert not found.prediction_differs.any()
    assert not found.nfe_differs.any()


def test_a_joint_solve_is_not():
    model = network().at(tolerance=0.1, backend="torchdiffeq")
    found = batch_invariance(model, images(7), seed=0, batch_size=7)
    assert found.logit_difference.max() > 1e-3
    assert found.nfe_differs.any()


def test_predictions_that_depend_on_the_batch_are_seen():
    model = Function(lambda x: x.flatten(1).mean(1) - x.mean())
    found = batch_invariance(model, images(9), seed=0, batch_size=9)
    assert found.prediction_differs.any()
    assert not found.nfe_differs.any()


def test_neighbours():
    x = images(4)
    steady = Function(lambda x: x.flatten(1).mean(1) - 2)
    assert not neighbours_changed(steady, x, Streams.of(0, range(4)), batch_size=8).any()
    level = x.flatten(1).mean(1)

    def edge(seen):  # the first image lies on an edge, the others far from any
        return (seen.flatten(1).mean(1) - level[0]).abs() < 1e-9

    changed = neighbours_changed(
        Function(lambda x: edge(x).float() - 0.5), x, Streams.of(0, range(4)), batch_size=128
    )
    assert changed.tolist() == [1, 0, 0, 0]


def test_neighbours_are_near_and_depend_on_the_image_alone():
    seen = []

    def note(x):
        seen.append(x)
        return x.flatten(1).sum(1)

    x = images(3)
    neighbours_changed(Function(note), x, Streams.of(0, [4, 5, 6]), batch_size=128)
    neighbours_changed(Function(note), x[1:], Streams.of(0, [5, 6]), batch_size=10)
    neighbours = seen[0].view(3, 10, 1, 8, 8)
    assert torch.equal(seen[2], neighbours[1])
    change = (neighbours - x[:, None]).abs()
    assert 0.9 * NEAR < change.max() <= NEAR * (1 + 1e-5)
    assert neighbours.min() >= 0
    assert neighbours.max() <= 1


def test_attacks_are_those_of_the_engine():
    model, x = network(), images(12)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    found = check_attacks(model, x, y, norm="linf", epsilon=0.02, iterations=2, batch_size=5)
    for column, iterations in enumerate((2, 4)):
        method = BasicIterativeMethod(Norm("linf"), 0.02, 0.005, iterations)
        expected = attack(model, x, y, method).success
        assert torch.equal(found.iterations_success[:, column], expected)
    assert found.iterations_success[:, 0].sum() < found.iterations_success[:, 1].sum()
    once = attack(model, x, y, FastGradientSign(Norm("linf"), 0.02)).success
    assert torch.equal(found.single_step_success, once)
    assert found.correct.tolist() == [False] + [True] * 11
    assert torch.equal(found.large_epsilon_success, found.correct)
    assert found.planted_success.all()


def test_a_model_without_a_slope_falls_to_nothing_but_the_planted_one_does():
    model = Function(lambda x: 0 * x.flatten(1).sum(1) - 1)
    x = torch.cat([images(5), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])
    y = torch.zeros(7, dtype=torch.int64)
    found = check_attacks(model, x, y, norm="l2", epsilon=1, iterations=2, batch_size=9)
    assert found.correct.all()
    assert not found.iterations_success.any()
    assert not found.single_step_success.any()
    assert not found.large_epsilon_success.any()
    assert found.planted_success.all()
