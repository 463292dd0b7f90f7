"""Recorded attacks: what is recorded is what the attack did, and what it missed is seen."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.method import Found, Pass
from node_robustness.audits.attack_paths import attack_paths
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import Constant, predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

BIM = BasicIterativeMethod(Norm("linf"), 0.006, 0.0015, 6)
APGD = AutoPGD(Norm("l2"), 0.03, "ce", 12)


def paths(model, x, y, method, iterates, batch_size=128):
    streams = Streams.of(3, range(len(x)))
    return attack_paths(model, x, y, method, streams, iterates=iterates, batch_size=batch_size)


@pytest.mark.parametrize(
    ("method", "iterates", "gradient"), [(BIM, 7, "adjoint"), (APGD, 13, "direct")]
)
def test_recording_changes_nothing(method, iterates, gradient):
    model, x = small_ode().at(tolerance=0.1, gradient=gradient), random_images(10)
    y = predicted(model, x)
    found = paths(model, x, y, method, iterates, batch_size=4)
    expected = attack(model, x, y, method, seed=3, batch_size=4)
    assert torch.equal(found.success, expected.success)
    assert torch.equal(found.adversarials, expected.adversarials)
    change = (found.adversarials - x).flatten(1)
    assert torch.equal(found.perturbation_linf, change.abs().amax(1))
    torch.testing.assert_close(found.perturbation_l2, Norm("l2").size(change))
    assert 0 < found.success.sum() < 10
    assert torch.equal(found.reached, found.success)
    # A path ends at its first adversarial iterate.
    steps = (~found.loss.isnan()).sum(1) - 1
    assert torch.equal(steps[found.success], expected.iterations[found.success])
    assert (steps[~found.success] == iterates - 1).all()
    assert not found.no_gradient.any()


def test_losses_and_gradients_are_those_of_the_iterates():
    model, x = small_ode().at(tolerance=0.1), random_images(6)
    y = predicted(model, x)
    found = paths(model, x, y, replace(BIM, epsilon=1e-3, step=2.5e-4), 7)
    assert not found.success.any()
    current = x.clone()
    for iterate in range(7):
        at = current.clone().requires_grad_()
        losses = F.cross_entropy(model(at), y, reduction="none")
        (gradient,) = torch.autograd.grad(losses.sum(), at)
        torch.testing.assert_close(found.loss[:, iterate], losses.detach())
        if iterate == 3:
            torch.testing.assert_close(found.halfway, current)
            torch.testing.assert_close(found.halfway_gradient, gradient)
        current = x + (current + 2.5e-4 * gradient.sign() - x).clamp(-1e-3, 1e-3)
        current = current.clamp(0, 1)


def test_a_gradient_that_vanishes_is_seen():
    x = random_images(3)
    found = paths(Constant(), x, torch.zeros(3, dtype=torch.int64), BIM, 7)
    assert found.no_gradient.all()
    assert not found.reached.any()
    assert (found.loss.diff(dim=1) == 0).all()


class Flat(nn.Module):
    """Has a slope but where the image is not what it was: no gradient after the first step."""

    def __init__(self, x):
        super().__init__()
        self.x = x

    def forward(self, x):
        same = (x.detach() - self.x[: len(x)]).flatten(1).abs().amax(1) == 0
        slope = torch.where(same, x.flatten(1).mean(1), x.detach().flatten(1).mean(1))
        return torch.stack([5 - slope, slope + 0 * x.flatten(1).sum(1)], dim=1)


def test_a_gradient_that_vanishes_on_the_way_is_seen():
    x = random_images(3)
    found = paths(Flat(x), x, torch.zeros(3, dtype=torch.int64), BIM, 7)
    assert found.no_gradient.all()
    assert not paths(
        Flat(x), x, torch.zeros(3, dtype=torch.int64), replace(BIM, iterations=1), 2
    ).no_gradient.any()


class Forgetful(BasicIterativeMethod):
    """Returns the image itself, whatever it met."""

    def search(self, model, images, labels, streams):
        found = super().search(model, images, labels, streams)
        return Found(
            images,
            torch.zeros_like(found.success),
            found.iterations,
            labels,
            found.nfe,
        )


def test_an_adversarial_iterate_that_an_attack_does_not_return_is_seen():
    model, x = small_ode(), random_images(10)
    y = predicted(model, x)
    found = paths(model, x, y, Forgetful(Norm("linf"), 0.1, 0.025, 6), 7)
    assert not found.success.any()
    assert found.reached.any()


class TooFar(BasicIterativeMethod):
    """Evaluates images twice as far as it may."""

    def search(self, model, images, labels, streams):
        wide = replace(self, epsilon=2 * self.epsilon)
        found = BasicIterativeMethod.search(wide, model, images, labels, streams)
        return Found(images, torch.zeros_like(found.success), found.iterations, labels, found.nfe)


def test_an_iterate_beyond_epsilon_is_no_success():
    model, x = small_ode(), random_images(10)
    y = predicted(model, x)
    method = TooFar(Norm("linf"), 0.01, 0.02, 1)
    found = paths(model, x, y, method, 2)
    assert not found.reached.any()
    assert attack(model, x, y, BasicIterativeMethod(Norm("linf"), 0.02, 0.02, 1)).success.any()


class Greedy(BasicIterativeMethod):
    """Goes on with images that are done."""

    def search(self, model, images, labels, streams):
        for _ in range(3):
            Pass.over(model, images.round(), differentiable=False)
        raise AssertionError


def test_an_attack_of_another_kind_is_refused():
    model, x = small_ode(), random_images(10)
    with pytest.raises(ValueError, match=r"Greedy .* cannot be recorded"):
        paths(model, x, predicted(model, x), Greedy(Norm("linf"), 1.0, 0.5, 6), 7)


def test_no_image_has_no_path():
    found = paths(small_ode(), random_images(1)[:0], torch.zeros(0, dtype=torch.int64), BIM, 7)
    assert found.loss.shape == (0, 7)
    assert found.success.shape == (0,)


def test_a_solve_that_fails_is_an_adversarial_example():
    model, x = small_ode(), random_images(6)
    y = predicted(model, x)
    with torch.no_grad():
        model(x)
    found = paths(model.at(max_steps=1, tolerance=1e-6), x, y, BIM, 7)
    assert found.success.all()
    assert found.reached.all()
