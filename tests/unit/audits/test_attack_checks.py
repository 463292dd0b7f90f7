"""Checks of attacks, on models of which the answer is known."""

import pytest
import torch
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fgsm import FastGradientSign
from node_robustness.audits.attack_checks import (
    NEAR,
    broken_at_large_epsilon,
    check_attacks,
    neighbours,
)
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import random_images, small_ode

pytestmark = pytest.mark.numerical


class Function(nn.Module):
    nfe = status = None

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        margin = self.function(x)
        return torch.stack([-margin, margin], dim=1)


def around(function, x, labels=None, batch_size=128):
    labels = torch.zeros(len(x), dtype=torch.int64) if labels is None else labels
    streams = Streams.of(0, range(len(x)))
    return neighbours(Function(function), x, labels, streams, batch_size=batch_size)


def test_neighbours_of_another_prediction():
    x = random_images(4)
    level = x.flatten(1).mean(1)

    def edge(seen):  # the first image lies on an edge, the others far from any
        return ((seen.flatten(1).mean(1) - level[0]).abs() < 1e-9).float() - 0.5

    found = around(edge, x)
    assert found.changed.tolist() == [1, 0, 0, 0]
    assert found.variation.tolist() == [2, 0, 0, 0]


def test_the_margin_varies_relative_to_what_it_is():
    x = random_images(4)
    first = around(lambda x: x.flatten(1).mean(1) - 2, x)
    assert not first.changed.any()
    assert ((first.variation > 0) & (first.variation < 0.01)).all()
    # Its slope is ten times as steep and its value the same.
    steeper = around(lambda x: 10 * (x.flatten(1).mean(1) - x.mean()) - 2 + x.mean(), x[:1])
    gentle = around(lambda x: x.flatten(1).mean(1) - 2, x[:1])
    assert steeper.variation[0] > 5 * gentle.variation[0]


def test_a_solve_that_fails_has_no_margin():
    found = around(lambda x: x.flatten(1).mean(1) * torch.nan, random_images(2))
    assert found.variation.isnan().all()


def test_neighbours_are_near_and_depend_on_the_image_alone():
    seen = []

    def note(x):
        seen.append(x)
        return x.flatten(1).sum(1)

    x = random_images(3)
    labels = torch.zeros(3, dtype=torch.int64)
    neighbours(Function(note), x, labels, Streams.of(0, [4, 5, 6]), batch_size=128)
    neighbours(Function(note), x[1:], labels[1:], Streams.of(0, [5, 6]), batch_size=10)
    near = seen[0].view(3, 10, 1, 8, 8)
    assert torch.equal(seen[2], near[1])
    change = (near - x[:, None]).abs()
    assert 0.9 * NEAR < change.max() <= NEAR * (1 + 1e-5)
    assert near.min() >= 0
    assert near.max() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_are_those_of_the_engine(norm):
    model, x = small_ode(), random_images(12)
    with torch.no_grad():
        y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4
    epsilon = 0.02 if norm == "linf" else 0.1
    found = check_attacks(model, x, y, norm=norm, epsilon=epsilon, iterations=4, batch_size=5)
    method = BasicIterativeMethod(Norm(norm), epsilon, epsilon / 4, 4)
    assert torch.equal(found.iterations_success, attack(model, x, y, method).success)
    once = attack(model, x, y, FastGradientSign(Norm(norm), epsilon)).success
    assert torch.equal(found.single_step_success, once)
    assert 0 < found.iterations_success.sum() < 11
    large = broken_at_large_epsilon(model, x, y, iterations=8, batch_size=5)
    assert large.tolist() == [False] + [True] * 11


def test_a_model_without_a_slope_falls_to_nothing():
    model = Function(lambda x: 0 * x.flatten(1).sum(1) - 1)
    x, y = random_images(5), torch.zeros(5, dtype=torch.int64)
    found = check_attacks(model, x, y, norm="l2", epsilon=1, iterations=2, batch_size=9)
    assert not found.iterations_success.any()
    assert not found.single_step_success.any()
    assert not broken_at_large_epsilon(model, x, y, iterations=4, batch_size=9).any()
