"""The dynamics f(t, h) of an ODE block (paper, section 4), and its vector-Jacobian products."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_robustness.ode.parts import Parts
from node_robustness.ode.products import Products, products_without_parameters
from node_robustness.ode.small_batches import at_least_some_rows, filled_up
from node_robustness.shapes.networks import groups


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at most 32 groups."""
    return nn.GroupNorm(groups(channels), channels)


_Map = Callable[[Tensor], Tensor]


def _normalisation(norm: nn.GroupNorm) -> _Map:
    """What a group normalisation computes, without the cost of calling a module."""
    groups, weight, bias, eps = norm.num_groups, norm.weight, norm.bias, norm.eps
    return lambda h: torch.group_norm(h, groups, weight, bias, eps)


class _Standardised:
    """States [n, C, H, W], normalised to mean zero and variance one in each group.

    Attributes:
        value: the normalised states, [n, C, H, W].
    """

    def __init__(self, h: Tensor, norm: nn.GroupNorm) -> None:
        self._groups = norm.num_groups
        grouped = self._grouped(h)
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        self._rate = (variance + norm.eps).rsqrt()
        self._unit = (grouped - mean) * self._rate
        self.value = self._unit.view_as(h)

    def _grouped(self, h: Tensor) -> Tensor:
        return h.reshape(len(h), self._groups, -1)

    def derivative(self, v: Tensor) -> Tensor:
        """The derivative along v, [n, C, H, W]; a symmetric map of v."""
        grouped = self._grouped(v)
        along = (grouped * self._unit).mean(2, keepdim=True)
        change = grouped - grouped.mean(2, keepdim=True)
        return change.addcmul_(self._unit, along, value=-1).mul_(self._rate).view_as(v)


class RightHandSide(nn.Module, ABC):
    """The dynamics f(t, h) of states [n, C, H, W] for t from 0 to 1."""

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """Evaluate f at times [n] or [] and states [n, C, H, W]."""
        return self.bind(h)(t, h)

    @abstractmethod
    def bind(self, like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The function for states of the size of `like`, [n, C, H, W]."""

    def products(self, like: Tensor, with_parameters: bool) -> Products:
        """Vector-Jacobian products, for the adjoint equation; without parameters if there are none.

        Args:
            like: states of the size in question, [n, C, H, W].
            with_parameters: whether products for the parameters are needed.
        """
        bound = self.bind(like)
        return products_without_parameters(lambda t, parts: (bound(t, parts[0]),))


class ODEFunction(RightHandSide):
    """GN, ReLU, conv3x3 of [t, h], GN, ReLU, conv3x3 of [t, h], GN.

    The time is input channel 0 of both convolutions. It is constant over the image, so that
    conv([t, h]) = conv(h) + t * map, where the map depends only on the image size. Nothing is
    concatenated, and each sample may have a different time.

    Args:
        channels: of the state, C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = group_norm(channels)
        self.conv1 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm2 = group_norm(channels)
        self.conv2 = nn.Conv2d(channels + 1, channels, 3, padding=1)
        self.norm3 = group_norm(channels)

    def bind(self, like: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The function for states of the size of `like`, [n, C, H, W].

        The maps of the time are computed once, for all evaluations.
        """
        state1, time1 = _split_time(self.conv1, like)
        state2, time2 = _split_time(self.conv2, like)
        bias1, bias2 = self.conv1.bias, self.conv2.bias
        norm1, norm2, norm3 = map(_normalisation, (self.norm1, self.norm2, self.norm3))

        def function(t: Tensor, h: Tensor) -> Tensor:
            return at_least_some_rows(some_rows, t.expand(h.shape[0]), h)

        def some_rows(t: Tensor, h: Tensor) -> Tensor:
            # In place where nothing, including autograd, needs the old value.
            t = t.view(-1, 1, 1, 1)
            h = torch.relu_(norm1(h))
            h = torch.conv2d(h, state1, bias1, padding=1).addcmul_(t, time1)
            h = torch.relu_(norm2(h))
            h = torch.conv2d(h, state2, bias2, padding=1).addcmul_(t, time2)
            return norm3(h)

        return function

    @torch.no_grad()
    def linearise(self, t: Tensor, h: Tensor) -> tuple[Tensor, _Map, _Map]:
        """The value at some states, and products with the Jacobian J = df/dh there.

        One product costs about as much as one evaluation.

        Args:
            t: times, [n].
            h: states, [n, C, H, W].

        Returns:
            f(t, h), the map v -> J v, and the map w -> J^T w, of tensors like h.
        """
        n = len(h)
        t, h = filled_up(t), filled_up(h)
        state1, time1 = _split_time(self.conv1, h)
        state2, time2 = _split_time(self.conv2, h)
        time = t.view(-1, 1, 1, 1)
        unit1 = _Standardised(h, self.norm1)
        pre1 = _affine(unit1.value, self.norm1)
        out1 = F.conv2d(F.relu(pre1), state1, self.conv1.bias, padding=1).addcmul_(time, time1)
        unit2 = _Standardised(out1, self.norm2)
        pre2 = _affine(unit2.value, self.norm2)
        out2 = F.conv2d(F.relu(pre2), state2, self.conv2.bias, padding=1).addcmul_(time, time2)
        unit3 = _Standardised(out2, self.norm3)
        # The affine map after a normalisation, and the ReLU after it.
        gain1, gain2 = (
            (pre > 0) * norm.weight.view(1, -1, 1, 1)
            for pre, norm in ((pre1, self.norm1), (pre2, self.norm2))
        )
        gain3 = self.norm3.weight.view(1, -1, 1, 1)

        @torch.no_grad()
        def push(v: Tensor) -> Tensor:
            v = F.conv2d(gain1 * unit1.derivative(filled_up(v)), state1, padding=1)
            v = F.conv2d(gain2 * unit2.derivative(v), state2, padding=1)
            return (gain3 * unit3.derivative(v))[:n]

        @torch.no_grad()
        def pull(w: Tensor) -> Tensor:
            w = F.conv_transpose2d(unit3.derivative(gain3 * filled_up(w)), state2, padding=1)
            w = F.conv_transpose2d(unit2.derivative(gain2 * w), state1, padding=1)
            return unit1.derivative(gain1 * w)[:n]

        return _affine(unit3.value, self.norm3)[:n], push, pull

    def products(self, like: Tensor, with_parameters: bool) -> Products:
        """See `RightHandSide.products`."""
        if not with_parameters:
            return super().products(like, with_parameters)

        def evaluate(t: Tensor, parts: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
            value, products = self.vjp_with_parameters(t, parts[0], cotangents[0])
            return (value,), products

        return Products(evaluate, tuple(each.numel() for each in self.parameters()))

    def vjp_with_parameters(
        self, t: Tensor, h: Tensor, cotangent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The value, and the vector-Jacobian products of a cotangent, sample by sample.

        Args:
            t: times, [n].
            h: states, [n, C, H, W].
            cotangent: [n, C, H, W].

        Returns:
            f(t, h), and the products for h [n, C, H, W], for t [n], and for every parameter in the
            order of `parameters()`, [n, number of elements]. The elements of a convolution's
            weight [C, 1 + C, 3, 3] are permuted, which changes no norm.
        """
        n = len(h)
        t, h, cotangent = filled_up(t), filled_up(h), filled_up(cotangent)
        groups = self.norm1.num_groups
        state1, time1 = _split_time(self.conv1, h)
        state2, time2 = _split_time(self.conv2, h)
        time = t.view(-1, 1, 1, 1)
        with torch.enable_grad():
            h = h.detach().requires_grad_()
            unit1 = F.group_norm(h, groups)
            pre1 = _affine(unit1, self.norm1)
            in1 = F.relu(pre1)
            out1 = F.conv2d(in1, state1, self.conv1.bias, padding=1).addcmul_(time, time1)
            unit2 = F.group_norm(out1, groups)
            pre2 = _affine(unit2, self.norm2)
            in2 = F.relu(pre2)
            out2 = F.conv2d(in2, state2, self.conv2.bias, padding=1).addcmul_(time, time2)
            unit3 = F.group_norm(out2, groups)
            value = _affine(unit3, self.norm3)
            to_h, to_pre1, to_out1, to_pre2, to_out2 = torch.autograd.grad(
                value, (h, pre1, out1, pre2, out2), cotangent
            )
        with torch.no_grad():
            to_t = (to_out1 * time1).sum((1, 2, 3)) + (to_out2 * time2).sum((1, 2, 3))
            products = (
                to_h,
                to_t,
                *_norm_products(unit1, to_pre1),
                *_convolution_products(t, in1, to_out1),
                *_norm_products(unit2, to_pre2),
                *_convolution_products(t, in2, to_out2),
                *_norm_products(unit3, cotangent),
            )
        return value.detach()[:n], tuple(product[:n] for product in products)


def _split_time(convolution: nn.Conv2d, like: Tensor) -> tuple[Tensor, Tensor]:
    """The weights for the state, and the response [1, C, H, W] to a time of one."""
    ones = like.new_ones(1, 1, *like.shape[-2:])
    response = F.conv2d(ones, convolution.weight[:, :1], padding=1)
    return convolution.weight[:, 1:].contiguous(), response


def _affine(unit: Tensor, norm: nn.GroupNorm) -> Tensor:
    return unit * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def _norm_products(unit: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    return (cotangent * unit).sum((2, 3)), cotangent.sum((2, 3))


def _convolution_products(t: Tensor, h: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """The products for weight and bias of a 3x3 convolution of [t, h], for each sample.

    Args:
        t: times, [n].
        h: [n, C, H, W].
        cotangent: for the convolution's result, [n, C, H, W].

    Returns:
        [n, 9 * C * (C + 1)] and [n, C]. With h and cotangent both in rows of width W + 2, a shift
        of the kernel is a slice of the same memory, so that nothing is unfolded. The three shifts
        along a row are one product, which is faster.
    """
    height, width = h.shape[-2:]
    rows, span = height * (width + 2), (height + 2) * (width + 2)
    inside = F.pad(h.new_ones(height, width), (1, 1, 1, 2)).flatten()
    flat = F.pad(h, (1, 1, 1, 2)).flatten(2)
    shifted = torch.cat([flat[:, :, right : right + span] for right in range(3)], dim=1)
    shifted_time = torch.stack([inside[right : right + span] for right in range(3)], dim=1)
    spread = F.pad(cotangent, (0, 2)).flatten(2)
    channels = h.shape[1]
    weight = h.new_empty(len(h), 9 * channels * (channels + 1))
    times = weight[:, : 9 * channels].unflatten(1, (3, channels, 3))
    states = weight[:, 9 * channels :].unflatten(1, (3, channels, 3 * channels))
    for down in range(3):
        row = slice(down * (width + 2), down * (width + 2) + rows)
        torch.bmm(spread, shifted[:, :, row].transpose(1, 2), out=states[:, down])
        times[:, down] = t.view(-1, 1, 1) * (spread @ shifted_time[row])
    return weight, cotangent.sum((2, 3))
