"""PGD by the mean gradient over drawn tolerances: against plain loops, and planted models."""

import math
from copy import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.attacks.engine import attack
from node_robustness.attacks.eot_pgd import ExpectationOverTolerances
from node_robustness.attacks.expectation import expected_gradient, log_uniform
from node_robustness.attacks.gradients import gradient_settings
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import random_images, small_ode

pytestmark = pytest.mark.numerical

LINF = Norm("linf")
LOW, HIGH = 1e-3, 10.0


def test_draws_are_log_uniform():
    drawn = log_uniform(LOW, HIGH)(Streams.of(0, range(50)), 40)
    assert drawn.shape == (50, 40)
    assert drawn.dtype == torch.float64
    logarithms = drawn.log10().flatten()
    assert logarithms.min() >= -3
    assert logarithms.max() <= 1
    counts = torch.histc(logarithms, 4, min=-3, max=1)
    assert (counts - 500).abs().max() < 4 * math.sqrt(2000 * 0.25 * 0.75)


def test_the_expected_gradient_is_the_mean_of_single_ones():
    model, x = small_ode(dtype=torch.float64), random_images(3).double()
    y, taus = torch.arange(3), log_uniform(LOW, HIGH)(Streams.of(1, range(3)), 4)
    losses, gradients = expected_gradient(model, x, y, taus)
    for image in range(3):
        single_losses, single_gradients = [], []
        for tau in taus[image].tolist():
            at = x[image : image + 1].clone().requires_grad_()
            loss = F.cross_entropy(model.at(tolerance=tau)(at), y[image : image + 1])
            single_losses.append(loss.item())
            single_gradients.append(torch.autograd.grad(loss, at)[0][0])
        assert losses[image].item() == pytest.approx(sum(single_losses) / 4, rel=1e-10)
        mean = torch.stack(single_gradients).mean(0)
        torch.testing.assert_close(gradients[image], mean, rtol=1e-8, atol=1e-12)
    assert (gradients[0] - single_gradients[0]).abs().max() > 0


def test_a_failed_draw_has_no_gradient_and_the_largest_loss():
    model, x, y = small_ode(), random_images(2), torch.arange(2)
    taus = torch.tensor([[1e-6, 10.0], [10.0, 10.0]], dtype=torch.float64)
    hasty = model.at(max_steps=6)
    losses, gradients = expected_gradient(hasty, x, y, taus)
    assert losses[0] == math.inf
    assert torch.isfinite(losses[1])
    _, alone = expected_gradient(model, x, y, taus[:, 1:])
    torch.testing.assert_close(gradients[0], alone[0] / 2)
    torch.testing.assert_close(gradients[1], alone[1])


@pytest.mark.parametrize(("norm", "loss"), [("linf", "ce"), ("l2", "margin")])
def test_every_step_is_that_of_a_plain_loop(norm, loss):
    """Image by image and draw by draw, in words; success is evaluated at one tolerance, 0.1."""
    model, x = small_ode(dtype=torch.float64), random_images(4).double()
    epsilon = {"linf": 0.006, "l2": 0.04}[norm]
    solved = model.at(tolerance=0.1)
    y = solved(x).argmax(1)
    how = ExpectationOverTolerances(
        Norm(norm), epsilon, epsilon / 4, 5, 2, loss, False, 2, solved, LOW, HIGH
    )
    found = attack(solved, x, y, how, index=[7, 3, 8, 1], seed=2)
    assert bool(found.success.any())
    assert not bool(found.success.all())

    def loss_of(at, label, tau):
        logits = model.at(tolerance=tau)(at)
        if loss == "ce":
            return F.cross_entropy(logits, label[None])
        others = torch.cat([logits[0, :label], logits[0, label + 1 :]])
        return others.max() - logits[0, label]

    def start(clean, stream):
        if norm == "linf":
            change = epsilon * (2 * stream.uniform(clean.shape[1:], clean) - 1)
        else:
            direction = stream.normal(clean.shape[1:], clean)
            change = stream.uniform((1, 1, 1), clean) * direction / direction.norm() * epsilon
        return (clean + change).clamp(0, 1)

    for image, row in enumerate([7, 3, 8, 1]):
        clean, label, stream = x[image : image + 1], y[image], Streams.of(2, [row])
        best, highest = None, -math.inf
        for _ in range(2):
            current = start(clean, stream)
            for step in range(6):
                with torch.no_grad():
                    wrong = model.at(tolerance=0.1)(current).argmax(1) != label
                height = loss_of(current, label, 0.1).item()
                if wrong and height > highest:
                    best, highest = current, height
                if step == 5:
                    break
                gradients = []
                for tau in log_uniform(LOW, HIGH)(stream, 2)[0].tolist():
                    at = current.clone().requires_grad_()
                    gradients.append(torch.autograd.grad(loss_of(at, label, tau), at)[0])
                uphill = Norm(norm).direction(torch.stack(gradients).mean(0))
                change = current + epsilon / 4 * uphill - clean
                current = (clean + Norm(norm).project(change, epsilon)).clamp(0, 1)
            if best is not None:
                break
        assert bool(found.success[image]) == (best is not None)
        expected = current if best is None else best
        torch.testing.assert_close(found.adversarials[image], expected[0], rtol=0, atol=1e-9)


class Shaken(nn.Module):
    """Two classes by a weighted sum of the pixels, with gradients that the tolerance shakes.

    The shakes are three times the gradient and vanish in the mean over log-uniform tolerances.
    """

    def __init__(self, pixels=64):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = 0.5 + torch.rand(pixels, generator=generator)
        self.phase = 2 * math.pi * torch.rand(pixels, generator=generator)
        self.tolerance = torch.tensor(1.0)

    def at(self, tolerance):
        view = copy(self)
        view.tolerance = tolerance
        return view

    def forward(self, x):
        flat = x.flatten(1)
        tau = self.tolerance.expand(len(x)).float()
        turns = 2 * math.pi * 9 * tau.log10()
        slope = self.weight * (1 + 3 * torch.sin(turns[:, None] + self.phase))
        score = flat @ self.weight - 0.4 * self.weight.sum()
        shaken = (flat * slope).sum(1)
        score = score.detach() + shaken - shaken.detach()
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    def distances(self, x):
        return (x.flatten(1) @ self.weight / self.weight.sum() - 0.4).abs()


def test_the_mean_gradient_breaks_what_a_single_one_does_not():
    model, x = Shaken(), 0.5 + 0.1 * random_images(6)
    y = model(x).argmax(1)
    epsilon = 1.3 * model.distances(x).max().item()
    plain = ProjectedGradientDescent(LINF, epsilon, epsilon / 8, 20, loss="margin")
    assert not bool(attack(model, x, y, plain).success.any())
    drawn = ExpectationOverTolerances(
        LINF,
        epsilon,
        epsilon / 8,
        20,
        loss="margin",
        draws=40,
        source=model,
        low=LOW,
        high=HIGH,
    )
    assert bool(attack(model, x, y, drawn).success.all())


def test_what_cannot_be_broken_stands():
    model, x = Shaken(), 0.5 + 0.1 * random_images(6)
    y = model(x).argmax(1)
    epsilon = 0.95 * model.distances(x).min().item()
    how = ExpectationOverTolerances(
        LINF, epsilon, epsilon / 8, 20, draws=40, source=model, low=LOW, high=HIGH
    )
    found = attack(model, x, y, how)
    assert not bool(found.success.any())
    assert bool((found.adversarial_predictions == y).all())


def test_neither_batches_nor_order_matter_and_progress_ends_where_the_search_does():
    inner, x, rows = small_ode(), random_images(7), [4, 9, 2, 30, 11, 5, 8]
    model = inner.at(tolerance=0.1)
    y = model(x).argmax(1)
    y[2] = (y[2] + 1) % 4
    how = ExpectationOverTolerances(
        LINF, 0.008, 0.002, 4, draws=3, source=inner.at(gradient="direct"), low=LOW, high=HIGH
    )
    counts, seen = [], []
    hook = inner.register_forward_hook(lambda *_: seen.append(sum(counts)))
    whole = attack(model, x, y, how, index=rows, seed=5, batch_size=7, progress=counts.append)
    hook.remove()
    assert 0 < whole.success.sum() < 6
    assert len(seen) <= 1 + how.passes
    assert (sum(counts), max(counts[:-1])) == (7, 1)
    assert seen[-1] > 3
    order = torch.tensor([6, 2, 0, 3])
    some = attack(
        model, x[order], y[order], how, index=[rows[i] for i in order], seed=5, batch_size=2
    )
    for field in ("success", "iterations", "adversarial_predictions", "adversarials"):
        assert torch.equal(getattr(some, field), getattr(whole, field)[order]), field
    other = attack(model, x, y, how, index=rows, seed=6)
    assert not torch.equal(other.adversarials, whole.adversarials)


def test_without_a_tolerance_it_is_pgd():
    model, x = small_ode(), random_images(5)
    y = model(x).argmax(1)
    keys = {"step": 0.005, "iterations": 4, "restarts": 2, "loss": "margin"}
    expected = attack(model, x, y, ProjectedGradientDescent(LINF, 0.02, **keys))
    found = attack(model, x, y, ExpectationOverTolerances(LINF, 0.02, **keys))
    assert torch.equal(found.adversarials, expected.adversarials)
    assert ExpectationOverTolerances(LINF, 0.02, **keys).passes == 2 * 5


def test_adjoint_gradients_are_drawn_at_their_own_tolerances():
    model, x = small_ode(dtype=torch.float64), random_images(2).double()
    y, taus = torch.arange(2), torch.tensor([[0.1, 1.0], [1.0, 0.01]], dtype=torch.float64)
    settings = {"gradient": "adjoint", "adjoint_tolerance": None, "adjoint_norm": "full"}
    _, found = expected_gradient(model.at(**gradient_settings(settings)), x, y, taus)
    for image in range(2):
        singles = []
        for tau in taus[image].tolist():
            at = x[image : image + 1].clone().requires_grad_()
            solved = model.at(tolerance=tau, gradient="adjoint")
            loss = F.cross_entropy(solved(at), y[image : image + 1])
            singles.append(torch.autograd.grad(loss, at)[0][0])
        torch.testing.assert_close(found[image], sum(singles) / 2, rtol=1e-8, atol=1e-12)
