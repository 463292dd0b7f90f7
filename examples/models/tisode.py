"""A time-invariant steady neural ODE, solved by Euler's method in fixed steps.

Yan, Du, Tan and Feng, "On Robustness of Neural Ordinary Differential Equations", ICLR 2020.
Its training also makes f small at the end of the solve; the second output is that term.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torchdiffeq import odeint


class Dynamics(nn.Module):
    """f(h), which does not depend on the time; no biases."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(width // 4, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(width // 4, width)

    def forward(self, t, h):
        h = F.relu(self.norm1(self.conv1(h)))
        return self.norm2(self.conv2(h))


class TisODE(nn.Module):
    def __init__(self, channels, classes, width, step_size):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.GroupNorm(width // 4, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            nn.GroupNorm(width // 4, width),
            nn.ReLU(),
        )
        self.dynamics = Dynamics(width)
        self.options = {"step_size": step_size}
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        h = self.stem(x)
        t = torch.linspace(0, 1, 2, device=x.device)
        h = odeint(self.dynamics, h, t, method="euler", options=self.options)[-1]
        steady = self.dynamics(t[-1], h).flatten(1).norm(dim=1)
        logits = self.fc(F.adaptive_avg_pool2d(F.relu(h), 1).flatten(1))
        return logits, steady


def build(channels=1, classes=10, width=64, step_size=0.1):
    return TisODE(channels, classes, width, step_size)
