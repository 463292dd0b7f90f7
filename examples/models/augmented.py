"""An augmented neural ODE: the image itself, with channels of zeros appended, is the state.

Dupont, Doucet and Teh, "Augmented Neural ODEs", NeurIPS 2019;
https://github.com/EmilienDupont/augmented-neural-odes.
"""

import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

MAX_NUM_STEPS = 1000


class Conv2dTime(nn.Conv2d):
    def __init__(self, in_channels, *args, **kwargs):
        super().__init__(in_channels + 1, *args, **kwargs)

    def forward(self, t, x):
        t_channel = torch.ones_like(x[:, :1, :, :]) * t
        return super().forward(torch.cat((t_channel, x), 1))


class ConvODEFunc(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.nfe = 0
        self.conv1 = Conv2dTime(channels, filters, kernel_size=1)
        self.conv2 = Conv2dTime(filters, filters, kernel_size=3, padding=1)
        self.conv3 = Conv2dTime(filters, channels, kernel_size=1)

    def forward(self, t, x):
        self.nfe += 1
        out = torch.relu(self.conv1(t, x))
        out = torch.relu(self.conv2(t, out))
        return self.conv3(t, out)


class ConvODENet(nn.Module):
    def __init__(self, channels, classes, size, augment, filters, adjoint, tol):
        super().__init__()
        self.augment = augment
        self.odefunc = ConvODEFunc(channels + augment, filters)
        self.adjoint = adjoint
        self.tol = tol
        self.linear = nn.Linear((channels + augment) * size**2, classes)

    def forward(self, x):
        zeros = torch.zeros(len(x), self.augment, *x.shape[2:]).to(x)
        solve = odeint_adjoint if self.adjoint else odeint
        out = solve(
            self.odefunc,
            torch.cat([x, zeros], 1),
            torch.tensor([0, 1]).type_as(x),
            rtol=self.tol,
            atol=self.tol,
            method="dopri5",
            options={"max_num_steps": MAX_NUM_STEPS},
        )[1]
        return self.linear(out.flatten(1))


def build(channels=1, classes=10, size=28, augment=5, filters=32, adjoint=False, tol=1e-3):
    """`size` is the side of an image in pixels."""
    return ConvODENet(channels, classes, size, augment, filters, adjoint, tol)
