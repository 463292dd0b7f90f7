"""A net of several ODE blocks whose convolutions are skew-symmetric.

Huang, Yu, Zhang, Ma and Yao, "Adversarial Robustness of Stabilized Neural ODE Might be from
Obfuscated Gradients", MSML 2021, https://arxiv.org/abs/2009.13145.
"""

import torch
import torch.nn.functional as F
import torchdiffeq
from torch import nn


class SkewConv2d(nn.Module):
    """The convolution K - K^T - gamma * I, so that f neither grows nor rotates h out of bounds."""

    def __init__(self, width, gamma):
        super().__init__()
        self.kernel = nn.Parameter(torch.empty(width, width, 3, 3))
        self.bias = nn.Parameter(torch.zeros(width))
        self.gamma = gamma
        nn.init.kaiming_normal_(self.kernel, a=1)

    def forward(self, t, h):
        transposed = self.kernel.transpose(0, 1).flip(2, 3)
        out = F.conv2d(h, self.kernel - transposed, self.bias, padding=1)
        return torch.relu(out - self.gamma * h)


class ODEBlock(nn.Module):
    def __init__(self, width, gamma, adjoint, tol):
        super().__init__()
        self.func = SkewConv2d(width, gamma)
        self.adjoint = adjoint
        self.tol = tol

    def forward(self, h):
        solve = torchdiffeq.odeint_adjoint if self.adjoint else torchdiffeq.odeint
        t = torch.tensor([0.0, 1.0]).to(h)
        return solve(self.func, h, t, rtol=self.tol, atol=self.tol, method="dopri5")[1]


class SONet(nn.Module):
    def __init__(self, channels, classes, width, stages, blocks, gamma, adjoint, tol):
        super().__init__()
        layers, last = [], channels
        for stage in range(stages):
            layers += [nn.Conv2d(last, width, 3, 1 if stage == 0 else 2, 1), nn.BatchNorm2d(width)]
            layers += [nn.ReLU()] + [ODEBlock(width, gamma, adjoint, tol) for _ in range(blocks)]
            last, width = width, 2 * width
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(last, classes)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


def build(channels=1, classes=10, width=16, stages=3, blocks=3, gamma=0.1, adjoint=False, tol=0.1):
    return SONet(channels, classes, width, stages, blocks, gamma, adjoint, tol)
