"""The neural ODE for MNIST of GAINS, with torchdiffeq's solver in place of theirs.

Zeqiri, Mueller, Fischer and Vechev, "Efficient Certified Training and Robustness Verification of
Neural ODEs", ICLR 2023; https://github.com/eth-sri/GAINS, whose checkpoints this net loads.
Their solver is dopri5 too, but for the lengths of its steps, which are h0 * 2^k.
"""

import torch
from torch import nn
from torchdiffeq import odeint


class Normalization(nn.Module):
    def __init__(self, mean, sigma):
        super().__init__()
        self.mean = mean
        self.sigma = sigma

    def forward(self, x):
        return (x - self.mean) / self.sigma


class ConcatConv2d(nn.Module):
    """A convolution that sees the time as its first channel."""

    def __init__(self, dim):
        super().__init__()
        self._layer = nn.Conv2d(dim + 1, dim, 3, padding=1)

    def forward(self, t, x):
        return self._layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))


class ODEfunc(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv1 = ConcatConv2d(dim)
        self.conv2 = ConcatConv2d(dim)

    def forward(self, t, x):
        return torch.relu(self.conv2(t, torch.relu(self.conv1(t, x))))


class ODEBlock(nn.Module):
    def __init__(self, odefunc, rtol, atol):
        super().__init__()
        self.odefunc = odefunc
        self.rtol = rtol
        self.atol = atol
        # Of their solver, in the checkpoints: the mean length of a step during training.
        self.register_buffer("running_mean_step", torch.zeros(1))

    def forward(self, x):
        t = torch.tensor([0.0, 1.0], device=x.device)
        return odeint(self.odefunc, x, t, rtol=self.rtol, atol=self.atol, method="dopri5")[-1]


class Net(nn.Module):
    def __init__(self, channels, classes, width, mean, sigma, rtol, atol):
        super().__init__()
        self.net = nn.Sequential(
            Normalization(mean, sigma),
            nn.Conv2d(channels, width, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, stride=2),
            nn.ReLU(),
            ODEBlock(ODEfunc(width), rtol, atol),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, classes),
        )

    def forward(self, x):
        return self.net(x)


def build(channels=1, classes=10, width=32, mean=0.1307, sigma=0.3081, rtol=0.0, atol=5e-3):
    return Net(channels, classes, width, mean, sigma, rtol, atol)
