"""Stable dynamics on 64 features, behind a feature extractor.

Kang, Song, Ding and Tay, "Stable Neural ODE with Lyapunov-Stable Equilibrium Points for Defending
Against Adversarial Attacks", NeurIPS 2021, https://github.com/KANGQIYU/SODEF. Their extractor is
a WideResNet-70-16, and their losses also make the equilibria stable.
"""

import torch
from torch import nn
from torchdiffeq import odeint_adjoint

FEATURES = 64


class ODEFunc(nn.Module):
    """f(h) = sin(-W h)."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(FEATURES, FEATURES, bias=False)

    def forward(self, t, h):
        return torch.sin(-self.fc(h))


class ODEBlock(nn.Module):
    def __init__(self, odefunc, end_time, tol):
        super().__init__()
        self.odefunc = odefunc
        self.tol = tol
        self.register_buffer("times", torch.tensor([0.0, end_time]))

    def forward(self, h):
        return odeint_adjoint(self.odefunc, h, self.times, rtol=self.tol, atol=self.tol)[-1]


def extractor(channels, width):
    layers = []
    for last, dim, stride in (
        (channels, width, 1),
        (width, 2 * width, 2),
        (2 * width, FEATURES, 2),
    ):
        layers += [nn.Conv2d(last, dim, 3, stride, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def build(channels=3, classes=10, width=32, end_time=5.0, tol=1e-3):
    return nn.Sequential(
        extractor(channels, width),
        ODEBlock(ODEFunc(), end_time, tol),
        nn.Linear(FEATURES, classes),
    )
