"""The attack engine against a plain loop over one image, and its promises."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.models.classifier import Classifier, Spec, frozen
from node_robustness.models.predictions import NO_CLASS, classes
from node_robustness.perturbations.norms import Norm

pytestmark = pytest.mark.numerical

NORMS = ["linf", "l2", "l2_rms"]
DESIGNS = {
    "RES": ("residual", "residual"),
    "MIX": ("residual", "ode"),
    "OON": ("convolution", "ode"),
}
TAUS = [1e-3, 0.1, 10.0]
# Downsampling leaves 8x8 images a state of 2x2, whose normalisation over four values amplifies
# rounding by many orders of magnitude when the solver's tolerance is loose.
SIDE = {"RES": 8, "MIX": 12, "OON": 8}


def images(count, dtype=torch.float64, side=8):
    """Random images with some pixels that are exactly 0 or 1."""
    noise = torch.rand(
        count, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )
    return (1.4 * noise - 0.2).clamp(0, 1).to(dtype)


def network(design, dtype=torch.float64, tolerance=1e-3):
    """A random classifier whose predictions differ from image to image, by small margins."""
    torch.manual_seed(3)
    downsampling, body = DESIGNS[design]
    spec = Spec(1, 4, (0.4,), (0.3,), downsampling, body, filters=8, blocks=2, tolerance=tolerance)
    model = Classifier(spec).eval()
    with torch.no_grad():
        model.head.linear.bias -= model.at(tolerance=0.1)(
            images(16, torch.float32, SIDE[design])
        ).mean(0)
    return model.to(dtype)


def predictions(model, x):
    """The classes of images one at a time."""
    with torch.no_grad():
        return torch.cat([model(x[i : i + 1]).argmax(1) for i in range(len(x))])


def method(norm="linf", epsilon=0.1, step=0.05, iterations=10, early_stop=True):
    return BasicIterativeMethod(Norm(norm), epsilon, step, iterations, early_stop)


class Linear(nn.Module):
    """Two classes; class 0 wins where the weighted sum of the pixels exceeds a threshold."""

    def __init__(self, weight, threshold):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.threshold = threshold

    def forward(self, x):
        margin = (x * self.weight).flatten(1).sum(1) - self.threshold
        return torch.stack([margin / 2, -margin / 2], dim=1)


class Constant(nn.Module):
    """Always class 0, whatever the image; the gradient is there and zero."""

    def forward(self, x):
        return x.flatten(1)[:, :1] * 0 + torch.tensor([1.0, 0.0, 0.0], dtype=x.dtype)


class Scripted(nn.Module):
    """Pass after pass, the margins of class 0 over class 1 that it is made to give."""

    def __init__(self, *margins):
        super().__init__()
        self.margins = margins
        self.seen = []
        self.with_gradient = []

    def forward(self, x):
        margin = self.margins[len(self.seen)] - 1e-9 * x.flatten(1).sum(1)
        self.seen.append(x.detach().clone())
        self.with_gradient.append(torch.is_grad_enabled())
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


class Watched(nn.Module):
    """A model that notes how many images pass."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.passes = []

    def forward(self, x):
        self.passes.append(len(x))
        return self.model(x)


def papers_attack(model, x, y, norm, epsilon, step, iterations):
    """The published procedure for one image [1, C, H, W] that is classified correctly."""
    scale = math.sqrt(x.numel()) if norm == "l2_rms" else 1.0
    current = x.clone()
    for iteration in range(1, iterations + 1):
        at = current.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(model(at), y), at)
        if norm == "linf":
            current = current + step * gradient.sign()
            current = x + (current - x).clamp(-epsilon, epsilon)
        else:
            current = current + step * gradient / (gradient.norm() / scale)
            size = max((current - x).norm().item() / scale, 1e-12)
            current = x + (current - x) * min(1.0, epsilon / size)
        current = current.clamp(0, 1)
        with torch.no_grad():
            if model(current).argmax(1) != y:
                return True, iteration, current
    return False, iterations, current


# Small enough that some images stand and others fall.
EPSILON = {"linf": 0.01, "l2": 0.1, "l2_rms": 0.01}
SHRINK = {"RES": 1.0, "MIX": 0.3, "OON": 1.0}


# Every norm meets every design, and every tolerance an ODE of each design.
PAIRED = {
    "RES": [(None, norm) for norm in NORMS],
    "MIX": list(zip(TAUS, NORMS, strict=True)),
    "OON": list(zip(TAUS, [*NORMS[1:], NORMS[0]], strict=True)),
}


@pytest.mark.parametrize("design", PAIRED)
def test_is_the_papers_attack_image_by_image(design):
    model, x = network(design), images(3, side=SIDE[design])
    successes = []
    for tau, norm in PAIRED[design]:
        epsilon = EPSILON[norm] * SHRINK[design]
        step = epsilon / 3
        solved = model.at(tolerance=tau, backend="torchdiffeq", gradient="adjoint")
        y = predictions(solved, x)
        expected = [
            papers_attack(solved, x[i : i + 1], y[i : i + 1], norm, epsilon, step, 4)
            for i in range(len(x))
        ]
        solved = model.at(tolerance=tau, gradient="adjoint")
        found = attack(solved, x, y, method(norm, epsilon, step, 4))
        assert bool(found.attacked.all())
        assert found.success.tolist() == [success for success, _, _ in expected]
        assert found.iterations.tolist() == [iterations for _, iterations, _ in expected]
        adversarials = torch.cat([adversarial for _, _, adversarial in expected])
        torch.testing.assert_close(found.adversarials, adversarials, rtol=0, atol=1e-10)
        successes += found.success.tolist()
    assert any(successes)
    assert not all(successes)


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_neither_the_batch_size_nor_the_order_matters(dtype, gradient):
    model, x = network("OON", dtype), images(6, dtype)
    how = method("linf", 0.02, 0.005, iterations=5)
    solved = model.at(tolerance=0.1, gradient=gradient)
    y = predictions(solved, x)
    y[3] = (y[3] + 1) % 4
    whole = attack(solved, x, y, how)
    assert bool(whole.success.any())
    assert not bool(whole.success[whole.attacked].all())
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    others = [
        (torch.arange(6), attack(solved, x, y, how, batch_size=1)),
        (order.argsort(), attack(solved, x[order], y[order], how, batch_size=4)),
    ]
    for rows, other in others:
        for name in ("clean_predictions", "attacked", "success", "adversarial_predictions"):
            assert torch.equal(getattr(other, name)[rows], getattr(whole, name)), name
        if dtype == torch.float64:
            for name in ("iterations", "nfe_clean", "nfe_adversarial", "adversarials"):
                assert torch.equal(getattr(other, name)[rows], getattr(whole, name)), name


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
@pytest.mark.parametrize("tau", TAUS)
def test_the_record_agrees_with_a_fresh_look_at_the_images(tau, gradient):
    model, x = network("OON"), images(6)
    solved = model.at(tolerance=tau, gradient=gradient)
    y = predictions(solved, x)
    y[2] = (y[2] + 1) % 4
    found = attack(solved, x, y, method("linf", 0.02, 0.01, iterations=4))
    for name, inputs in (("clean", x), ("adversarial", found.adversarials)):
        with torch.no_grad():
            logits = solved(inputs)
        nfe = getattr(found, f"nfe_{name}")
        assert nfe.dtype == torch.int32
        assert torch.equal(nfe, solved.nfe)
        assert torch.equal(getattr(found, f"{name}_predictions"), logits.argmax(1))
    assert torch.equal(found.attacked, found.clean_predictions == y)
    assert torch.equal(found.success, found.attacked & (found.adversarial_predictions != y))
    assert bool(found.success.any())


def test_a_model_without_an_ode_has_no_function_evaluations():
    model, x = network("RES"), images(3)
    found = attack(model, x, predictions(model, x), method(), batch_size=2)
    assert found.nfe_clean is None
    assert found.nfe_adversarial is None


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_on_a_linear_model(norm):
    weight = torch.tensor([3.0, -1.0, 0.5, -2.0], dtype=torch.float64).view(1, 1, 2, 2)
    x = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    direction = {
        "linf": weight.sign(),
        "l2": weight / weight.norm(),
        "l2_rms": weight / (weight.norm() / 2),
    }[norm]
    model, y = Linear(weight, -100.0), torch.tensor([0])
    free = attack(model, x, y, method(norm, 0.2, 0.1, iterations=1))
    torch.testing.assert_close(free.adversarials, x - 0.1 * direction)
    projected = attack(model, x, y, method(norm, 0.05, 0.1, iterations=3))
    torch.testing.assert_close(projected.adversarials, x - 0.05 * direction)
    clipped = attack(model, x, y, method(norm, 2.0, 1.0, iterations=1))
    torch.testing.assert_close(clipped.adversarials, (x - direction).clamp(0, 1))


def test_a_stopped_image_keeps_its_first_adversarial():
    weight = torch.tensor([1.0, -1.0, 1.0, 1.0], dtype=torch.float64).view(1, 1, 2, 2)
    x = torch.full((4, 1, 2, 2), 0.5, dtype=torch.float64)
    x[:, 0, 0, 0] += torch.tensor([0.1, 0.25, 0.4, -0.05])
    # Each step of 0.02 takes 0.08 off the margins, which are 0.1, 0.25, 0.4 and below 0.
    model, y = Watched(Linear(weight, 1.0)), torch.zeros(4, dtype=torch.int64)
    found = attack(model, x, y, method("linf", 0.3, 0.02, iterations=4))
    assert found.attacked.tolist() == [True, True, True, False]
    assert found.success.tolist() == [True, True, False, False]
    assert found.iterations.tolist() == [2, 4, 4, 0]
    assert found.adversarial_predictions.tolist() == [1, 1, 0, 1]
    moves = 0.02 * found.iterations.view(-1, 1, 1, 1) * weight
    torch.testing.assert_close(found.adversarials, x - moves)
    assert model.passes == [4, 3, 3, 2, 2]


@pytest.mark.parametrize(
    ("margins", "first", "kept"),
    [
        ((1, 0.5, -1, -3, -2, 1), 2, 3),  # the last iterate is none
        ((1, -4, -1, -3, -2, -1), 1, 1),
        ((1, 0.5, 0.2, 0.1, 0.1, -0.1), 5, 5),
        ((1, 0.5, 0.2, 0.1, -0.1, 0.1), 4, 4),
        ((1, 0.5, 0.2, 0.1, 0.2, 0.9), None, 5),
    ],
)
def test_without_early_stop_the_worst_adversarial_iterate_is_kept(margins, first, kept):
    model, x = Scripted(*margins), torch.full((2, 1, 2, 2), 0.3, dtype=torch.float64)
    y = torch.zeros(2, dtype=torch.int64)
    found = attack(model, x, y, method("linf", 0.5, 0.05, iterations=5, early_stop=False))
    assert [len(seen) for seen in model.seen] == [2] * 6
    assert model.with_gradient == [True] * 5 + [False]
    assert found.success.tolist() == [first is not None] * 2
    assert found.iterations.tolist() == [first or 5] * 2
    assert torch.equal(found.adversarials, model.seen[kept])
    torch.testing.assert_close(found.adversarials, x + 0.05 * kept)
    assert found.adversarial_predictions.tolist() == [0 if first is None else 1] * 2


def test_a_failed_prediction_for_an_iterate_is_an_adversarial():
    x, y = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64), torch.tensor([0])
    model = Scripted(1.0, 0.5, math.nan)
    found = attack(model, x, y, method("linf", 0.5, 0.05, iterations=5))
    assert found.success.tolist() == [True]
    assert found.iterations.tolist() == [2]
    assert found.adversarial_predictions.tolist() == [NO_CLASS]
    model = Scripted(1.0, -0.5, math.nan, -3.0, 1.0)
    found = attack(model, x, y, method("linf", 0.5, 0.05, iterations=4, early_stop=False))
    assert found.iterations.tolist() == [1]
    assert found.adversarial_predictions.tolist() == [NO_CLASS]
    assert torch.equal(found.adversarials, model.seen[2])
    # There is no gradient to follow from there.
    assert torch.equal(model.seen[3], model.seen[2])


def test_an_image_without_a_clean_prediction_is_not_attacked():
    x, y = torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64), torch.tensor([0])
    model = Scripted(math.nan)
    found = attack(model, x, y, method())
    assert found.clean_predictions.tolist() == [NO_CLASS]
    assert found.attacked.tolist() == [False]
    assert found.success.tolist() == [False]
    assert found.iterations.tolist() == [0]
    assert torch.equal(found.adversarials, x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_failed_backward_solve_does_not_stop_the_others(norm):
    model, x = network("OON"), images(6)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    solved = model.at(tolerance=1e-5, gradient="adjoint", max_steps=12)
    y = predictions(solved, x)
    at = x.clone().requires_grad_()
    F.cross_entropy(solved(at), y).backward()
    lost = ~torch.isfinite(at.grad).flatten(1).all(1)
    assert bool(lost.any())
    found = attack(solved, x, y, method(norm, 0.1, 0.05, iterations=2))
    assert bool(found.attacked.all())
    assert bool(torch.isfinite(found.adversarials).all())
    assert torch.equal(found.adversarials[lost], x[lost])


def test_misclassified_images_are_left_alone():
    model, x = network("OON"), images(6)
    y = (predictions(model, x) + torch.tensor([1, 0, 1, 0, 1, 1])) % 4
    found = attack(model, x, y, method("linf", 0.1, 0.05))
    wrong = ~found.attacked
    assert wrong.tolist() == [True, False, True, False, True, True]
    assert torch.equal(found.adversarials[wrong], x[wrong])
    assert not bool(found.success[wrong].any())
    assert bool((found.iterations[wrong] == 0).all())
    assert torch.equal(found.adversarial_predictions[wrong], found.clean_predictions[wrong])
    assert torch.equal(found.nfe_adversarial[wrong], found.nfe_clean[wrong])
    assert bool((found.adversarials[~wrong] != x[~wrong]).any())


def test_frozen_restores_every_flag():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(), nn.Linear(2, 2)))
    model.train()
    model[1][0].eval()
    model[0].weight.requires_grad_(False)

    def flags():
        modes = [module.training for module in model.modules()]
        return modes, [parameter.requires_grad for parameter in model.parameters()]

    before = flags()
    with frozen(model):
        assert flags() == ([False] * 5, [False] * 4)
    assert flags() == before
    with pytest.raises(KeyError), frozen(model):  # noqa: PT012
        assert flags() != before
        raise KeyError
    assert flags() == before


def test_a_model_in_training_is_attacked_in_evaluation_mode_and_left_in_training():
    x = images(4)
    model = network("OON")
    y = predictions(model, x)
    expected = attack(model, x, y, method())
    model.train()
    found = attack(model, x, y, method())
    assert torch.equal(found.adversarials, expected.adversarials)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_progress_counts_the_images_of_each_batch():
    counts = []
    y = torch.zeros(5, dtype=torch.int64)
    skip = torch.tensor([False, False, True, True, False])
    attack(Constant(), images(5), y, method(), skip=skip, batch_size=2, progress=counts.append)
    # Of two images one is half of the search, but for the batch that needs none.
    assert counts == [1, 1, 2, 1]


def test_classes_of_logits_that_are_not_finite():
    logits = torch.tensor([[0.0, 2.0, 1.0], [0.0, torch.nan, 1.0], [torch.inf, 0.0, 1.0]])
    assert classes(logits).tolist() == [1, NO_CLASS, NO_CLASS]
