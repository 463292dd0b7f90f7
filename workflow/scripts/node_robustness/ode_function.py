"""The dynamics f(t, h) of an ODE block (paper, section 4), and its vector-Jacobian products."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at most 32 groups."""
    return nn.GroupNorm(min(MAX_GROUPS, channels), channels)


class ODEFunction(nn.Module):
    """GN, ReLU, conv3x3 of [t, h], GN, ReLU, conv3x3 of [t, h], GN.

    The time is input channel 0 of both convolutions. It is constant over the image, so that
    conv([t, h]) = conv(h) + t * map with a map that depends on the image size alone: nothing is
    concatenated, and every sample may have a time of its own.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm3 = group_norm(channels)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """Evaluate f at times [n] or [] and states [n, C, H, W]."""
        return self.bind(h)(t, h)

    def bind(self, like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The function for states of the size of `like`, its maps of time computed once."""
        state1, time1 = _split(self.conv1, like)
        state2, time2 = _split(self.conv2, like)

        def function(t: Tensor, h: Tensor) -> Tensor:
            t = t.reshape(-1, 1, 1, 1)
            h = F.relu(self.norm1(h))
            h = torch.addcmul(F.conv2d(h, state1, self.conv1.bias, padding=1), t, time1)
            h = F.relu(self.norm2(h))
            h = torch.addcmul(F.conv2d(h, state2, self.conv2.bias, padding=1), t, time2)
            out: Tensor = self.norm3(h)
            return out

        return function

    def vjp_with_parameters(
        self, t: Tensor, h: Tensor, cotangent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value and the products of a cotangent with the Jacobians, sample by sample.

        Args:
            t: times, [n].
            h: states, [n, C, H, W].
            cotangent: [n, C, H, W].

        Returns:
            f(t, h), and the products for h [n, C, H, W], for t [n], and for every parameter in the
            order of `parameters()`, [n, its number of elements] (the elements of a convolution's
            weight [O, I, 3, 3] in the order [3, 3, O, I]).
        """
        groups = self.norm1.num_groups
        with torch.enable_grad():
            h, t = h.detach().requires_grad_(), t.detach().requires_grad_()
            unit1 = F.group_norm(h, groups)
            pre1 = _affine(unit1, self.norm1)
            in1 = _with_time(t, F.relu(pre1))
            out1 = F.conv2d(in1, self.conv1.weight, self.conv1.bias, padding=1)
            unit2 = F.group_norm(out1, groups)
            pre2 = _affine(unit2, self.norm2)
            in2 = _with_time(t, F.relu(pre2))
            out2 = F.conv2d(in2, self.conv2.weight, self.conv2.bias, padding=1)
            unit3 = F.group_norm(out2, groups)
            value = _affine(unit3, self.norm3)
            to_h, to_t, to_pre1, to_out1, to_pre2, to_out2 = torch.autograd.grad(
                value, (h, t, pre1, out1, pre2, out2), cotangent
            )
        with torch.no_grad():
            products = (
                to_h,
                to_t,
                *_norm_products(unit1, to_pre1),
                *_convolution_products(in1, to_out1),
                *_norm_products(unit2, to_pre2),
                *_convolution_products(in2, to_out2),
                *_norm_products(unit3, cotangent),
            )
        return value.detach(), products


def _split(convolution: nn.Conv2d, like: Tensor) -> tuple[Tensor, Tensor]:
    """The weights for the state, and the response [1, C, H, W] to a time of one."""
    ones = like.new_ones(1, 1, *like.shape[-2:])
    response = F.conv2d(ones, convolution.weight[:, :1], padding=1)
    return convolution.weight[:, 1:].contiguous(), response


def _with_time(t: Tensor, h: Tensor) -> Tensor:
    return torch.cat([t.view(-1, 1, 1, 1).expand(-1, 1, *h.shape[-2:]), h], dim=1)


def _affine(unit: Tensor, norm: nn.GroupNorm) -> Tensor:
    return unit * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def _norm_products(unit: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    return (cotangent * unit).sum((2, 3)), cotangent.sum((2, 3))


def _convolution_products(images: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """The products for weight and bias of a 3x3 convolution with padding 1, for each sample.

    Args:
        images: what was convolved, [n, I, H, W].
        cotangent: for the convolution's result, [n, O, H, W].

    Returns:
        [n, 9 * O * I], the shifts of the kernel first, and [n, O]. With images and cotangent both
        written in rows of width W + 2, each shift is a slice of the same memory, so that nothing
        is unfolded.
    """
    height, width = images.shape[-2:]
    rows = height * (width + 2)
    flat = F.pad(images, (1, 1, 1, 2)).flatten(2)
    spread = F.pad(cotangent, (0, 2)).flatten(2)
    products = images.new_empty(len(images), 9, cotangent.shape[1], images.shape[1])
    for shift in range(9):
        start = shift // 3 * (width + 2) + shift % 3
        shifted = flat[:, :, start : start + rows].transpose(1, 2)
        torch.bmm(spread, shifted, out=products[:, shift])
    return products.flatten(1), cotangent.sum((2, 3))
