"""The neural ODE for MNIST of GAINS, with torchdiffeq's solver in place of theirs.

Zeqiri, Mueller, Fischer and Vechev, "Efficient Certified Training and Robustness Verification of
Neural ODEs", ICLR 2023; https://github.com/eth-sri/GAINS, whose checkpoints this net loads.
Their solver is dopri5 too, but for the lengths of its steps, which are h0 * 2^k.

Their certificates hold for that solver. `Net.certify` has simpler ones, for the exact solution.
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


def interval_conv(conv, bounds):
    """The least and the largest value of a convolution between bounds, [2, n, C, H, W]."""
    low, high = bounds
    centre, radius = conv((low + high) / 2), (high - low) / 2
    radius = nn.functional.conv2d(radius, conv.weight.abs(), None, conv.stride, conv.padding)
    return torch.stack([centre - radius, centre + radius])


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

    def bounds(self, t, bounds):
        """The least and the largest value between bounds on the state, [2, n, C, H, W]."""
        for conv in (self.conv1, self.conv2):
            time = torch.ones_like(bounds[:, :, :1]) * t
            bounds = interval_conv(conv._layer, torch.cat([time, bounds], 2)).relu()
        return bounds


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

    def certify(self, images, labels, norm, epsilon):
        """Say which images are classified correctly in all of an L-infinity ball.

        By interval arithmetic, through the ODE as well: by Müller's theorem the solutions from all
        starts between two bounds stay between the solutions of two equations, whose right sides are
        the least and the largest value of f between the bounds. It holds for the exact solution, up
        to rounding and to the error of a solve at tolerance 1e-6.
        """
        if norm != "linf":
            return torch.zeros_like(labels, dtype=torch.bool)
        normalization, first, _, second, _, block, pool, flatten, last = self.net
        bounds = torch.stack([images - epsilon, images + epsilon]).clamp(0, 1)
        bounds = torch.stack([normalization(bound) for bound in bounds])
        bounds = interval_conv(second, interval_conv(first, bounds).relu()).relu()
        t = torch.tensor([0.0, 1.0], device=images.device)
        bounds = odeint(block.odefunc.bounds, bounds, t, rtol=1e-6, atol=1e-6, method="dopri5")[-1]
        low, high = (flatten(pool(bound)) for bound in bounds)
        # The least of every margin over the features in between.
        weights = last.weight[labels, None] - last.weight
        centre, radius = (low + high) / 2, (high - low) / 2
        least = torch.einsum("nkf,nf->nk", weights, centre)
        least -= torch.einsum("nkf,nf->nk", weights.abs(), radius)
        least += last.bias[labels, None] - last.bias
        others = torch.arange(least.shape[1], device=labels.device) != labels[:, None]
        return ((least > 0) | ~others).all(1)


def build(channels=1, classes=10, width=32, mean=0.1307, sigma=0.3081, rtol=0.0, atol=5e-3):
    return Net(channels, classes, width, mean, sigma, rtol, atol)
