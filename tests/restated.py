"""Networks as users of torchdiffeq write them, in the style of its example."""

import torch
import torchdiffeq
from torch import nn

TAU = 0.01
"""What `Restated` sets as rtol and atol."""


def norm(channels):
    return nn.GroupNorm(min(32, channels), channels)


class ConcatConv2d(nn.Module):
    """A convolution of the time and the state."""

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels + 1, channels, 3, padding=1)

    def forward(self, t, h):
        return self.layer(torch.cat([torch.ones_like(h[:, :1]) * t, h], 1))


class Dynamics(nn.Module):
    """The paper's f(t, h)."""

    def __init__(self, channels):
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (norm(channels) for _ in range(3))
        self.conv1, self.conv2 = ConcatConv2d(channels), ConcatConv2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, t, h):
        h = self.conv1(t, self.relu(self.norm1(h)))
        return self.norm3(self.conv2(t, self.relu(self.norm2(h))))


class Block(nn.Module):
    """torchdiffeq's example of a block, with settings."""

    def __init__(self, function, span=(0.0, 1.0), integrate=torchdiffeq.odeint, **settings):
        super().__init__()
        self.function = function
        self.span = torch.tensor(span)
        self.integrate = integrate
        self.settings = {"rtol": TAU, "atol": TAU, **settings}

    def forward(self, h):
        span = self.span.to(h)
        return self.integrate(self.function, h, span, **self.settings)[-1]


class Restated(nn.Module):
    """A built-in classifier with a convolution before its ODE, by torchdiffeq."""

    def __init__(self, classifier, **settings):
        super().__init__()
        spec = classifier.spec
        self.mean, self.std = spec.mean[0], spec.std[0]
        self.downsample = nn.Conv2d(spec.channels, spec.filters, 4, 2, padding=1)
        self.block = Block(Dynamics(spec.filters), **settings)
        self.classify = nn.Sequential(
            norm(spec.filters),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(spec.filters, spec.classes),
        )
        self.load_state_dict(
            {_renamed(name): value for name, value in classifier.state_dict().items()}
        )

    def forward(self, x):
        return self.classify(self.block(self.downsample((x - self.mean) / self.std)))


def _renamed(name):
    """The name of a weight here, by that in a built-in classifier."""
    for theirs, own in (
        ("downsampling.", "downsample."),
        ("body.", "block."),
        ("conv1.", "conv1.layer."),
        ("conv2.", "conv2.layer."),
        ("head.norm.", "classify.0."),
        ("head.linear.", "classify.4."),
    ):
        name = name.replace(theirs, own)
    return name
