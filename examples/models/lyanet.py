"""A neural ODE whose state are the logits: the image acts on the dynamics, not on h(0).

Rodriguez, Ames and Yue, "LyaNet: A Lyapunov Framework for Training Neural ODEs", ICML 2022.
Their loss is that of a Lyapunov function; here the net alone.
"""

import torch
from torch import nn
from torchdiffeq import odeint


class Dynamics(nn.Module):
    """f(h, features of the image)."""

    def __init__(self, classes, features, hidden):
        super().__init__()
        self.static = None
        self.layers = nn.Sequential(
            nn.Linear(classes + features, hidden), nn.Tanh(), nn.Linear(hidden, classes)
        )

    def forward(self, t, state):
        return self.layers(torch.cat([state, self.static], -1)) - state


class LyaNet(nn.Module):
    def __init__(self, channels, classes, width, hidden, times):
        super().__init__()
        self.classes = classes
        self.extractor = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
        )
        self.dynamics = Dynamics(classes, 4 * width, hidden)
        self.register_buffer("times", torch.linspace(0, 1, times))

    def forward(self, x):
        self.dynamics.static = self.extractor(x)
        state = torch.full((len(x), self.classes), 1 / self.classes, device=x.device)
        return odeint(self.dynamics, state, self.times, rtol=1e-3, atol=1e-3)[-1]


def build(channels=1, classes=10, width=32, hidden=64, times=10):
    return LyaNet(channels, classes, width, hidden, times)
