"""The neural ODE for MNIST among torchdiffeq's examples.

Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018;
https://github.com/rtqichen/torchdiffeq, examples/ode_mnist.py.
"""

import torch
from torch import nn
from torchdiffeq import odeint_adjoint as odeint


def norm(dim):
    return nn.GroupNorm(min(32, dim // 2), dim)


class ConcatConv2d(nn.Module):
    """A convolution that sees the time as one more channel."""

    def __init__(self, dim):
        super().__init__()
        self._layer = nn.Conv2d(dim + 1, dim, 3, padding=1)

    def forward(self, t, x):
        time = torch.ones_like(x[:, :1]) * t
        return self._layer(torch.cat([time, x], 1))


class ODEfunc(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm1 = norm(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = ConcatConv2d(dim)
        self.norm2 = norm(dim)
        self.conv2 = ConcatConv2d(dim)
        self.norm3 = norm(dim)
        self.nfe = 0

    def forward(self, t, x):
        self.nfe += 1
        out = self.relu(self.norm1(x))
        out = self.conv1(t, out)
        out = self.relu(self.norm2(out))
        out = self.conv2(t, out)
        return self.norm3(out)


class ODEBlock(nn.Module):
    def __init__(self, odefunc, tol):
        super().__init__()
        self.odefunc = odefunc
        self.tol = tol
        self.integration_time = torch.tensor([0, 1]).float()

    def forward(self, x):
        self.integration_time = self.integration_time.type_as(x)
        out = odeint(self.odefunc, x, self.integration_time, rtol=self.tol, atol=self.tol)
        return out[1]


def build(channels=1, classes=10, width=64, halvings=2, tol=1e-3):
    """Every halving of the image's sides is a convolution of stride 2."""
    layers = [nn.Conv2d(channels, width, 3)]
    for _ in range(halvings):
        layers += [norm(width), nn.ReLU(inplace=True), nn.Conv2d(width, width, 4, 2, 1)]
    layers.append(ODEBlock(ODEfunc(width), tol))
    layers += [norm(width), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(width, classes))
