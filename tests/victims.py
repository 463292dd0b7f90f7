"""Models to attack, weak in ways that are known."""

import functools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scipy.optimize import brentq, linprog
from sklearn.datasets import load_digits
from torch import nn

from node_robustness.models.classifier import Classifier, Spec


class Linear(nn.Module):
    """Linear in the pixels; every image is summed by itself, so that no batch changes a bit."""

    def __init__(self, classes=2, side=4, channels=1, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        shape = (classes, channels, side, side)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))

    def forward(self, x):
        centred = x - 0.5
        return (centred[:, None] * self.weight).flatten(2).sum(2)


class Constant(nn.Module):
    """Always class 0 of four, whatever the image; the gradient is there and zero."""

    def forward(self, x):
        return x.flatten(1)[:, :1] * 0 + torch.tensor([2.0, 1.0, 0.5, 0.0], dtype=x.dtype)


class Steady(nn.Module):
    """Class 0 of three wherever it is asked; the first pixel makes it less sure."""

    def forward(self, x):
        zeros = torch.zeros_like(x[:, 0, 0, 0])
        return torch.stack([2 - x[:, 0, 0, 0], zeros, zeros - 1], dim=1)


class FailsFarOut(nn.Module):
    """Another model, whose solves fail where the first pixel is above a half; it counts them."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        failed = x[:, 0, 0, 0] > 0.5
        self.nfe = torch.where(failed, 1000, (20 * x.flatten(1).mean(1)).round().int())
        return torch.where(failed[:, None], torch.nan, self.model(x))


class NoGradientAtZero(nn.Module):
    """Another model, with a gradient that is not finite where the first pixel is exactly 0."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + 0 * x[:, :1, 0, 0].sqrt()


class Watched(nn.Module):
    """A model that notes the images that pass and whether gradients are asked for."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = []
        self.with_gradient = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        self.with_gradient.append(torch.is_grad_enabled())
        return self.model(x)

    @property
    def images(self):
        return sum(len(x) for x in self.seen)


def grey_images(count, side=4, channels=1, dtype=torch.float64):
    """Images around the middle of the range, where small perturbations meet no bounds."""
    generator = torch.Generator().manual_seed(7)
    noise = torch.rand(count, channels, side, side, generator=generator, dtype=torch.float64)
    return (0.4 + 0.2 * noise).to(dtype)


def edge_images(count, side=4, dtype=torch.float64):
    """Images of which most pixels are exactly 0 or 1."""
    generator = torch.Generator().manual_seed(8)
    noise = torch.rand(count, 1, side, side, generator=generator, dtype=torch.float64)
    return (0.5 + 5 * (noise - 0.5)).clamp(0, 1).to(dtype)


def random_images(count):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, 8, 8, generator=generator)


def small_ode(classes=4, dtype=torch.float32):
    """A small network with an ODE that takes `random_images` for every class."""
    torch.manual_seed(3)
    model = Classifier(Spec(1, classes, (0.4,), (0.3,), "convolution", "ode", 8)).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(random_images(16)).mean(0)
    return model.requires_grad_(False).to(dtype)


def predicted(model, x):
    with torch.no_grad():
        return model(x).argmax(1)


def distances(model, x, norm):
    """From images to the decision boundary of a `Linear`, in a norm, were there no bounds."""
    y, weight = predicted(model, x), model.weight.detach()
    logits, found = model(x).detach(), []
    for image, label in enumerate(y):
        difference = (weight[label] - weight).flatten(1)
        lead = logits[image, label] - logits[image]
        dual = difference.abs().sum(1) if norm == "linf" else difference.norm(dim=1)
        scale = difference.shape[1] ** 0.5 if norm == "l2_rms" else 1.0
        ratio = lead / (dual * scale)
        found.append(ratio[torch.arange(len(ratio)) != label].min())
    return torch.stack(found)


def bounded_distance(point, normal, value, norm):
    """To the zero of a linear function within [0, 1], by linear programming or by its dual."""
    if norm == "linf":
        size = len(point)
        ones = np.ones((size, 1))
        solved = linprog(
            np.r_[np.zeros(size), 1.0],
            A_ub=np.block([[np.eye(size), -ones], [-np.eye(size), -ones]]),
            b_ub=np.zeros(2 * size),
            A_eq=np.r_[normal, 0.0][None],
            b_eq=[-value],
            bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
        )
        return solved.fun if solved.success else None

    def change(multiplier):
        return np.clip(point - multiplier * normal, 0, 1) - point

    def left(multiplier):
        return value + normal @ change(multiplier)

    low, high = -1e9, 1e9
    if np.sign(left(low)) * np.sign(left(high)) > 0:  # the product of tiny ones would be 0
        return None
    return float(np.linalg.norm(change(brentq(left, low, high, xtol=1e-14, rtol=1e-14))))


def small_network():
    """Without weights that it learnt: a convolutional network for scikit-learn's digits."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def digits_data():
    """Scikit-learn's digits, [n, 1, 8, 8], and their classes; the first 1,500 are for training."""
    data = load_digits()
    return torch.tensor(data.images / 16, dtype=torch.float32)[:, None], torch.tensor(data.target)


@functools.cache
def digits():
    """A small network on the digits, of `nets/train.py`, with images that it gets right."""
    x, y = digits_data()
    model = small_network()
    model.load_state_dict(load_file(Path(__file__).parent / "nets" / "digits.safetensors"))
    model.eval().requires_grad_(False)
    right = predicted(model, x[1500:]) == y[1500:]
    return model, x[1500:][right][:24], y[1500:][right][:24]
