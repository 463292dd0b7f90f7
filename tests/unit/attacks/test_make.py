"""From settings to methods, and what single methods promise beyond the contract."""

import math
from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fgsm import FastGradientSign
from node_robustness.attacks.gradients import BackwardApproximation, with_gradient
from node_robustness.attacks.make import make, method_class
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.transfer import Transfer
from node_robustness.config.attack import GradientAttack, SteppedAttack
from node_robustness.config.methods import METHODS
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams

pytestmark = pytest.mark.numerical

NORMS = ["linf", "l2", "l2_rms"]
GENERATOR = torch.Generator()


def images(count, dtype=torch.float64, side=6, low=0.4, high=0.6):
    """Images far from 0 and 1, so that nothing is clipped."""
    noise = torch.rand(count, 1, side, side, dtype=dtype, generator=GENERATOR.manual_seed(1))
    return low + (high - low) * noise


class Linear(nn.Module):
    """Three classes; class 0 wins where the weighted sum of the pixels exceeds a threshold."""

    def __init__(self, shape, dtype=torch.float64):
        super().__init__()
        weight = 0.2 + torch.rand(shape, dtype=dtype, generator=GENERATOR.manual_seed(2))
        self.weight = nn.Parameter(weight)
        self.threshold = 0.45 * weight.sum().item()

    def forward(self, x):
        margin = (x * self.weight).flatten(1).sum(1) - self.threshold
        return torch.stack([margin, torch.zeros_like(margin), -2 * margin.abs() - 1], dim=1)

    def distances(self, x, norm):
        """How far the boundary is from images of class 0, by the dual norm of the weights."""
        with torch.no_grad():
            margins = self.forward(x)[:, 0]
        flat = self.weight.detach().flatten()
        dual = flat.abs().sum() if norm == "linf" else flat.norm()
        return margins / dual / (math.sqrt(len(flat)) if norm == "l2_rms" else 1)


class Constant(nn.Module):
    """Always class 0; the gradient is there and zero."""

    def forward(self, x):
        return x.flatten(1)[:, :1] * 0 + torch.tensor([1.0, 0.0, 0.0], dtype=x.dtype)


class Watched(nn.Module):
    """A model that keeps what passes."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def linear_case(norm):
    x = images(4)
    model = Linear(x.shape[1:])
    y = model(x).argmax(1)
    assert y.tolist() == [0] * 4
    return model, x, y, model.distances(x, norm)


@pytest.mark.parametrize("norm", NORMS)
def test_noise_breaks_a_model_that_has_no_margin(norm):
    model, x, y, distances = linear_case(norm)
    epsilon = 40 * distances.max().item()
    # As far as images are apart.
    epsilon = epsilon if norm == "l2" else min(epsilon, 1.0)
    found = attack(model, x, y, Noise(Norm(norm), epsilon, draws=20))
    assert bool(found.success.any())


def network():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()
    with torch.no_grad():
        model[-1].bias -= model(images(8)).mean(0)
    return model.eval()


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_starts_all_over_the_ball(norm):
    x, y = images(300), torch.zeros(300, dtype=torch.int64)
    model = Watched(Constant())
    attack(model, x, y, ProjectedGradientDescent(Norm(norm), 0.1, 0.01, 1), batch_size=300)
    change = model.seen[1] - x
    sizes = Norm(norm).size(change)
    assert bool((sizes <= 0.1 * (1 + 1e-12)).all())
    if norm == "linf":
        sizes = change.abs().flatten()
    # Uniform: mean and spread within five standard errors.
    error = 0.1 / math.sqrt(12 * len(sizes))
    assert abs(sizes.mean().item() - 0.05) < 5 * error
    assert sizes.std().item() == pytest.approx(0.1 / math.sqrt(12), rel=0.2)
    assert abs(change.mean().item()) < 0.1 / math.sqrt(change.numel()) * 5


def test_pgd_restarts_only_what_still_stands():
    model, x, y, distances = linear_case("linf")
    # Of the four images, the nearest two fall in the first run.
    epsilon = (distances.sort().values[1:3].mean()).item()
    watched = Watched(model)
    how = ProjectedGradientDescent(Norm("linf"), epsilon, epsilon / 2, 6, restarts=3)
    found = attack(watched, x, y, how)
    assert found.success.tolist() == (distances < epsilon).tolist()
    assert [len(seen) for seen in watched.seen[-14:]] == [2] * 14
    assert bool((found.iterations[~found.success] == 18).all())
    assert bool((found.iterations[found.success] <= 6).all())


@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_pgd_without_early_stop_keeps_the_worst_iterate(loss):
    model, x = network(), images(5)
    y = model(x).argmax(1)
    watched = Watched(model)
    how = ProjectedGradientDescent(Norm("linf"), 0.03, 0.02, 7, 2, loss, early_stop=False)
    found = attack(watched, x, y, how)
    assert bool(found.success.any())
    for i in found.success.nonzero().flatten().tolist():
        # After the clean pass, the run that broke it: eight passes of all images that stood.
        run = torch.stack([seen[i] for seen in watched.seen[1:9]])
        logits = model(run)
        losses = F.cross_entropy(logits, y[i].expand(8), reduction="none")
        if loss == "margin":
            others = torch.cat([logits[:, : y[i]], logits[:, y[i] + 1 :]], dim=1)
            losses = others.amax(1) - logits[:, y[i]]
        losses[logits.argmax(1) == y[i]] = -torch.inf
        assert torch.equal(found.adversarials[i], run[losses.argmax()])


@pytest.mark.parametrize("norm", NORMS)
def test_pgds_margin_loss_is_followed_where_cross_entropy_is_flat(norm):
    class Confident(nn.Module):
        """So sure of itself that the softmax is exactly 1."""

        def forward(self, x):
            return 1000 * Linear(x.shape[1:], x.dtype)(x)

    x, y = images(2, torch.float32, low=0.6, high=0.61), torch.tensor([0, 0])
    epsilon = 1.5 * Linear(x.shape[1:], x.dtype).distances(x, norm).max().item()
    plain, margin = (
        attack(
            Confident(),
            x,
            y,
            ProjectedGradientDescent(Norm(norm), epsilon, epsilon / 4, 8, loss=loss),
        )
        for loss in ("ce", "margin")
    )
    assert not bool(plain.success.any())
    assert bool(margin.success.all())


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_one_step_as_long_as_epsilon(norm):
    model, x = network(), images(4)
    y = model(x).argmax(1)
    at = x.clone().requires_grad_()
    F.cross_entropy(model(at), y, reduction="sum").backward()
    watched = Watched(model)
    found = attack(watched, x, y, FastGradientSign(Norm(norm), 0.05))
    gradient = at.grad
    if norm == "linf":
        step = gradient.sign()
    else:
        size = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        step = gradient / size * (6 if norm == "l2_rms" else 1)
    torch.testing.assert_close(found.adversarials, x + 0.05 * step)
    assert len(watched.seen) == 2
    assert found.iterations.tolist() == [1] * 4


def smallest_by_bisection(model, x, y, norm, epsilon, share, iterations, halvings):
    """Image by image, in plain words."""

    def bim(size):
        current = x
        for step in range(1, iterations + 1):
            at = current.clone().requires_grad_()
            logits = model(at)[0]
            others = torch.cat([logits[:y], logits[y + 1 :]])
            (gradient,) = torch.autograd.grad(others.max() - logits[y], at)
            change = current + share * size * norm.direction(gradient) - x
            current = (x + norm.project(change, size)).clamp(0, 1)
            if model(current).argmax(1) != y:
                return current, step
        return None, iterations

    best, spent = bim(epsilon)
    if best is None:
        return x, spent
    low, high, taken = 0.0, norm.size(best - x).item(), spent
    for _ in range(halvings):
        middle = (low + high) / 2
        adversarial, steps = bim(middle)
        taken += steps
        if adversarial is None:
            low = middle
        else:
            best, spent, high = adversarial, taken, norm.size(adversarial - x).item()
    return best, spent


@pytest.mark.parametrize("norm", NORMS)
def test_bisection_is_the_plain_one_image_by_image(norm):
    model, x = network(), images(6)
    y = model(x).argmax(1)
    epsilon = {"linf": 0.02, "l2": 0.06, "l2_rms": 0.02}[norm]
    found = attack(model, x, y, Bisection(Norm(norm), epsilon, 0.3, 4, 7, "margin"))
    for i in range(6):
        case = (model, x[i : i + 1], y[i], Norm(norm), epsilon, 0.3, 4, 7)
        adversarial, spent = smallest_by_bisection(*case)
        assert found.iterations[i] == spent
        if found.success[i]:
            torch.testing.assert_close(found.adversarials[i], adversarial[0], rtol=0, atol=1e-9)
    assert bool(found.success.any())
    assert torch.equal(found.success, model(found.adversarials).argmax(1) != y)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_size_of_epsilon(norm, dtype):
    x, y = images(20, dtype), torch.zeros(20, dtype=torch.int64)
    model = Watched(Constant())
    attack(model, x, y, Noise(Norm(norm), 0.03, draws=3))
    assert len(model.seen) == 4
    for noisy in model.seen[1:]:
        change = noisy - x
        sizes = Norm(norm).size(change)
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.03), rtol=1e-5, atol=0)
        assert bool((sizes <= 0.03 * (1 + 1e-6)).all())
        if norm == "linf":
            torch.testing.assert_close(change.abs(), torch.full_like(change, 0.03))
            assert 0.4 < (change > 0).double().mean() < 0.6
    assert not torch.equal(model.seen[1], model.seen[2])


def test_noise_ends_at_the_first_draw_that_fools():
    class Fragile(nn.Module):
        """Class 0 where the first pixel has not fallen."""

        def forward(self, x):
            first = x[:, 0, 0, 0]
            return torch.stack([first, torch.full_like(first, 0.4)], dim=1)

    x, y = torch.full((30, 1, 2, 2), 0.42), torch.zeros(30, dtype=torch.int64)
    found = attack(Fragile(), x, y, Noise(Norm("linf"), 0.05, draws=4))
    fell = found.adversarials[:, 0, 0, 0] < 0.42
    assert torch.equal(found.success, fell)
    # Each draw is a coin toss.
    assert sorted(set(found.iterations.tolist())) == [1, 2, 3, 4]
    streams = Streams.of(0, range(30))
    for draw in range(1, 5):
        still = found.iterations >= draw
        signs = streams[still].uniform((1, 2, 2), x)[:, 0, 0, 0] < 0.5
        assert torch.equal(signs, (found.iterations == draw)[still] & found.success[still])


class TestTransfer:
    @pytest.mark.parametrize("early_stop", [True, False])
    def test_the_target_evaluates_what_the_source_made(self, early_stop):
        target, x = network(), images(8)
        y = target(x).argmax(1)
        torch.manual_seed(9)
        source = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double().train()
        by = BasicIterativeMethod(Norm("linf"), 0.05, 0.01, 10, early_stop)
        found = attack(target, x, y, Transfer(source, by))
        assert bool(found.success.any())
        assert not bool(found.success.all())
        # The source is wrong about some: its own attack would leave them out.
        assert not bool((source(x).argmax(1) == y).all())
        made = by.search(source, x, y, Streams.of(0, range(8)))
        assert torch.equal(found.adversarials, made.adversarials)
        assert torch.equal(found.adversarial_predictions, target(made.adversarials).argmax(1))
        assert torch.equal(found.success, found.adversarial_predictions != y)
        assert source.training
        assert all(p.requires_grad and p.grad is None for p in source.parameters())

    def test_on_itself_it_is_the_attack_itself(self):
        model, x = network(), images(5)
        y = model(x).argmax(1)
        by = ProjectedGradientDescent(Norm("l2"), 0.1, 0.02, 5, 2, "margin", early_stop=False)
        transferred, own = attack(model, x, y, Transfer(model, by)), attack(model, x, y, by)
        assert bool(own.success.any())
        for item in fields(own):
            first, second = getattr(own, item.name), getattr(transferred, item.name)
            assert first is second or torch.equal(first, second), item.name


@pytest.fixture(scope="module")
def ode():
    torch.manual_seed(3)
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", filters=8)
    model = Classifier(spec).double().eval().requires_grad_(False)
    model.head.linear.bias -= model.at(tolerance=0.1)(images(8, side=8)).mean(0)
    return model


TIGHT = {"method": "dopri5", "tolerance": 1e-6, "steps": None}


class TestGradients:
    x = images(3, side=8)
    y = torch.tensor([0, 1, 2])

    def gradient(self, model):
        at = self.x.clone().requires_grad_()
        logits = model(at)
        nfe = model.nfe
        F.cross_entropy(logits, self.y, reduction="sum").backward()
        return logits.detach(), nfe, at.grad

    @pytest.mark.parametrize("gradient", ["direct", "adjoint"])
    def test_direct_and_adjoint_are_the_models_own(self, ode, gradient):
        settings = {"gradient": gradient, "adjoint_tolerance": 0.01, "adjoint_norm": "seminorm"}
        found = self.gradient(with_gradient(ode, 0.1, settings))
        changes = settings if gradient == "adjoint" else {"gradient": "direct"}
        expected = self.gradient(ode.at(tolerance=0.1, **changes))
        for first, second in zip(found, expected, strict=True):
            assert torch.equal(first, second)
        assert ode.solver.tolerance == 1e-3

    def test_an_attack_without_a_gradient_sees_the_model_at_its_tolerance(self, ode):
        logits = with_gradient(ode, 0.1, {"method": "square"})(self.x)
        assert torch.equal(logits, ode.at(tolerance=0.1)(self.x))

    @pytest.mark.parametrize(
        "surrogate", [TIGHT, {"method": "rk4", "steps": 6}], ids=lambda value: value["method"]
    )
    def test_a_surrogate_gives_its_gradient_at_the_true_logits(self, ode, surrogate):
        model = with_gradient(ode, 10.0, {"gradient": "surrogate", "surrogate": surrogate})
        logits, nfe, gradient = self.gradient(model)
        solved = ode.at(tolerance=10.0)
        assert torch.equal(logits, solved(self.x))
        assert torch.equal(nfe, solved.nfe)
        at = self.x.clone().requires_grad_()
        solved = ode.at(**surrogate)
        stand_in = solved(at)
        assert not torch.allclose(stand_in, logits, rtol=1e-3)
        assert not torch.equal(solved.nfe, nfe)
        # d loss / d logits of cross-entropy, at the true logits, through the stand-in.
        at_true = logits.softmax(1) - F.one_hot(self.y, 4)
        (expected,) = torch.autograd.grad(stand_in, at, at_true)
        torch.testing.assert_close(gradient, expected)

    def test_a_surrogate_is_not_solved_where_no_gradient_is_asked_for(self, ode):
        watched = Watched(ode)
        model = BackwardApproximation(ode.at(tolerance=0.1), watched)
        with torch.no_grad():
            model(self.x)
        assert watched.seen == []

    def test_a_surrogate_that_fails_leaves_the_logits_as_they_are(self, ode):
        failing = ode.at(tolerance=1e-6, max_steps=1)
        logits, _, gradient = self.gradient(BackwardApproximation(ode.at(tolerance=0.1), failing))
        assert torch.equal(logits, ode.at(tolerance=0.1)(self.x))
        assert not bool(Norm("linf").direction(gradient).any())

    def test_a_surrogate_defeats_a_masked_gradient(self):
        class Masked(nn.Module):
            """The same decisions, by steps that no gradient passes."""

            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, x):
                rounded = (self.model(x) * 1000).round() / 1000
                return rounded.detach() + 0 * x.flatten(1)[:, :1]

        model, x, y, distances = linear_case("linf")
        epsilon = 1.2 * distances.max().item()
        how = BasicIterativeMethod(Norm("linf"), epsilon, epsilon / 4, 8)
        assert not bool(attack(Masked(model), x, y, how).success.any())
        assert bool(attack(BackwardApproximation(Masked(model), model), x, y, how).success.all())


def test_every_parameter_of_a_configured_attack_reaches_it():
    """No key of the configuration is silently dropped on the way to a method."""
    gradient = set(GradientAttack.model_fields)
    for name, settings in METHODS.items():
        # The relative step of these has become one in the units of the norm.
        becomes = {"relative_step": "step"} if issubclass(settings, SteppedAttack) else {}
        keys = {becomes.get(key, key) for key in settings.model_fields} - gradient
        assert keys <= {item.name for item in fields(method_class(name))}, name


def test_methods_are_made_with_their_parameters():
    settings = {"method": "pgd", "step": 0.1, "iterations": 3, "restarts": 2, "loss": "margin"}
    made = make(settings | {"early_stop": False, "gradient": "adjoint"}, "l2", 0.5)
    assert made == ProjectedGradientDescent(Norm("l2"), 0.5, 0.1, 3, 2, "margin", early_stop=False)
    source = nn.Identity()
    transfer = make({"method": "transfer", "by": {"method": "fgsm"}}, "linf", 0.5, source)
    assert transfer == Transfer(source, FastGradientSign(Norm("linf"), 0.5))
    assert (transfer.norm, transfer.epsilon) == (Norm("linf"), 0.5)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_onto_balls_of_different_sizes(norm):
    change = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 2, 3, 3)))
    epsilons = torch.tensor([0.01, 0.3, 1.0, 50.0], dtype=torch.float64)
    together = Norm(norm).project(change, epsilons)
    alone = [Norm(norm).project(change[i : i + 1], epsilons[i].item()) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-14, atol=0)
