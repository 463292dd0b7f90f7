"""The attack engine against a plain loop over one image, and its promises."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from node_robustness.attacks import (
    NO_CLASS,
    BasicIterativeMethod,
    attack,
    classes,
    frozen,
)
from node_robustness.models import Classifier, Spec, solving
from node_robustness.norms import Norm
from torch import nn

NORMS = ["linf", "l2", "l2_rms"]
DESIGNS = {"RES": ("residual", "residual"), "MIX": ("residual", "ode"), "OON": ("convolution", "ode")}
TAUS = [1e-3, 0.1, 10.0]


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
    spec = Spec(
        1, 4, (0.4,), (0.3,), downsampling, body, filters=8, blocks=2, tolerance=tolerance
    )
    model = Classifier(spec).eval()
    with torch.no_grad(), solving(model, tolerance=0.1):
        model.head.linear.bias -= model(images(16, torch.float32)).mean(0)
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
    """Class 0 at the first pass; then the logits of a script, one entry a pass."""

    def __init__(self, script):
        super().__init__()
        self.script = [[1.0, 0.0], *script]
        self.seen = []

    def forward(self, x):
        logits = torch.tensor(self.script[len(self.seen)], dtype=x.dtype).expand(len(x), 2)
        self.seen.append(x.detach().clone())
        return logits + x.flatten(1).sum(1, keepdim=True) * torch.tensor([-1e-9, 1e-9])


def papers_attack(model, x, y, norm, epsilon, step, iterations=10):
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


# Epsilons at which some images fall and others stand.
EPSILON = {
    ("RES", "linf"): 0.05, ("RES", "l2"): 0.3, ("RES", "l2_rms"): 0.03,
    ("MIX", "linf"): 0.05, ("MIX", "l2"): 0.3, ("MIX", "l2_rms"): 0.03,
    ("OON", "linf"): 0.05, ("OON", "l2"): 0.3, ("OON", "l2_rms"): 0.03,
}  # fmt: skip


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("design", "tau"), [("RES", None), *((d, tau) for d in ("MIX", "OON") for tau in TAUS)]
)
def test_is_the_papers_attack_image_by_image(design, tau, norm):
    model, x = network(design), images(5)
    epsilon = EPSILON[design, norm]
    step = epsilon / 4
    with solving(model, tolerance=tau, backend="torchdiffeq", gradient="adjoint"):
        y = predictions(model, x)
        expected = [
            papers_attack(model, x[i : i + 1], y[i : i + 1], norm, epsilon, step)
            for i in range(len(x))
        ]
    with solving(model, tolerance=tau, gradient="adjoint"):
        found = attack(model, x, y, method(norm, epsilon, step))
    print(design, tau, norm, found.success.tolist(), found.iterations.tolist())
    assert bool(found.attacked.all())
    assert found.success.tolist() == [success for success, _, _ in expected]
    assert found.iterations.tolist() == [iterations for _, iterations, _ in expected]
    adversarials = torch.cat([adversarial for _, _, adversarial in expected])
    torch.testing.assert_close(found.adversarials, adversarials, rtol=0, atol=1e-7)
