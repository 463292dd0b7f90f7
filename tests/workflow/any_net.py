"""A file of own models of many kinds, for images of any size; it knows nothing of the workflow."""

import torch
import torchdiffeq
from torch import nn


class Dynamics(nn.Module):
    def __init__(self, width, vector, branches):
        super().__init__()
        layer = nn.Linear if vector else nn.Conv2d
        self.layer = layer(width, width, *([] if vector else [1]))
        self.branches = branches

    def forward(self, t, h):
        rate = torch.tanh(self.layer(h))
        if self.branches and t > 0.5:  # not a function that takes a time for each image
            return -rate
        return rate * (1 + t)


class Net(nn.Module):
    def __init__(
        self,
        channels,
        classes,
        width=4,
        solves=1,
        vector=False,
        branches=False,
        adjoint=False,
        end=1.0,
        several=False,
        **solver,
    ):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.dynamics = nn.ModuleList(Dynamics(width, vector, branches) for _ in range(solves))
        self.head = nn.Linear(width, classes)
        self.vector, self.several = vector, several
        self.solver = {"rtol": 1e-2, "atol": 1e-3, **solver}
        self.solve = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint
        self.register_buffer("times", torch.tensor([0.0, end]))

    def forward(self, images):
        h = self.stem(images)
        h = h.mean((2, 3)) if self.vector else h
        for dynamics in self.dynamics:
            h = self.solve(dynamics, h, self.times, **self.solver)[-1]
        h = h if self.vector else h.mean((2, 3))
        logits = self.head(h)
        return (h, logits) if self.several else logits


class Stepper(nn.Module):
    """A solver of its own."""

    def __init__(self, channels, classes, tau=0.1):
        super().__init__()
        self.layer = nn.Conv2d(channels, 4, 3, padding=1)
        self.head = nn.Linear(4, classes)
        self.tau = tau

    def set_tolerance(self, tau):
        self.tau = tau

    def forward(self, images):
        h = self.layer(images).mean((2, 3))
        count = 1 if self.tau > 0.05 else 4
        for _ in range(count):
            h = h + torch.tanh(h) / count
        return self.head(h)


def plain(channels, classes):
    """A network without an ODE."""
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.ReLU(),
        nn.Linear(4, classes),
    )
