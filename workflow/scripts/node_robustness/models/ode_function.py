"""The dynamics f(t, h) of an ODE block (paper, section 4), and its vector-Jacobian products."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import mkldnn
from torch.nn.grad import conv2d_weight

from node_robustness.ode.parts import Parts, Sum, combinations
from node_robustness.ode.products import Products, products_without_parameters
from node_robustness.ode.small_batches import ROWS, at_least_some_rows, filled_up
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
        """See `RightHandSide.products`.

        The elements of a convolution's weight [C, 1 + C, 3, 3] are permuted: those of the time come
        first. That changes no norm.
        """
        if not with_parameters:
            return super().products(like, with_parameters)
        (state1, time1), (state2, time2) = (
            (weight.detach(), response.detach())
            for weight, response in (_split_time(conv, like) for conv in (self.conv1, self.conv2))
        )
        of_time1, of_time2 = (
            conv.weight[:, 0].detach().flatten(1) for conv in (self.conv1, self.conv2)
        )
        # Where each element of a kernel lies inside the image; and ones, for the bias.
        ones = like.new_ones(1, 1, *like.shape[-2:])
        inside = torch.cat([F.unfold(ones, 3, padding=1)[0], ones.view(1, -1)]).mT

        def evaluate(t: Tensor, parts: Parts, cotangents: Parts) -> tuple[Parts, Parts]:
            n = len(t)
            t, h, cotangent = map(filled_up, (t, parts[0], cotangents[0]))
            time = t.view(-1, 1, 1, 1)
            with torch.enable_grad():
                h = h.detach().requires_grad_()
                pre1, affine1 = _normalised_apart(h, self.norm1)
                in1 = F.relu_(pre1).view_as(h)
                out1 = F.conv2d(in1, state1, self.conv1.bias, padding=1).addcmul_(time, time1)
                pre2, affine2 = _normalised_apart(out1, self.norm2)
                in2 = F.relu_(pre2).view_as(h)
                out2 = F.conv2d(in2, state2, self.conv2.bias, padding=1).addcmul_(time, time2)
                pre3, affine3 = _normalised_apart(out2, self.norm3)
                value = pre3.view_as(h)
                to_h, to_out1, to_out2, *to_affine = torch.autograd.grad(
                    value, (h, out1, out2, *affine1, *affine2, *affine3), cotangent
                )
            shifted1, shifted2 = (each.flatten(2) @ inside for each in (to_out1, to_out2))
            to_time1, to_time2 = shifted1[..., :9], shifted2[..., :9]
            to_t = (to_time1 * of_time1 + to_time2 * of_time2).sum((1, 2))
            small = (
                *(each.view(len(t), -1) for each in to_affine),
                *((t.view(-1, 1, 1) * each).flatten(1) for each in (to_time1, to_time2)),
                *(each[..., 9] for each in (shifted1, shifted2)),
            )
            terms = torch.cat(small, dim=1), in1.detach(), to_out1, in2.detach(), to_out2
            return (value.detach()[:n],), tuple(each[:n] for each in (to_h, to_t, *terms))

        return Products(evaluate, tuple(each.numel() for each in self.parameters()), _total)


def _normalised_apart(h: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """States [n, C, H, W], normalised, as [1, n * C, H, W], and a weight and a bias [n * C].

    As channels of one sample, the samples have a weight and a bias each, and so own products.
    """
    n = len(h)
    weight, bias = (each.detach().repeat(n).requires_grad_() for each in (norm.weight, norm.bias))
    one = h.reshape(1, -1, *h.shape[2:])
    return F.group_norm(one, n * norm.num_groups, weight, bias, norm.eps), (weight, bias)


def _total(sums: Sequence[Sum], terms: Sequence[Parts]) -> list[Parts]:
    """See `Products.total`; the terms are those of `ODEFunction.products`."""
    _, in1, to_out1, in2, to_out2 = zip(*terms, strict=True)
    channels = in1[0].shape[1]
    sizes = [*[channels] * 6, *[9 * channels] * 2, *[channels] * 2]
    packed = [
        total.split(sizes, dim=1) for (total,) in combinations(sums, [term[:1] for term in terms])
    ]
    weights1 = _weight_products(sums, [each[6] for each in packed], in1, to_out1)
    weights2 = _weight_products(sums, [each[7] for each in packed], in2, to_out2)
    return [
        (*each[:2], weight1, each[8], *each[2:4], weight2, each[9], *each[4:6])
        for each, weight1, weight2 in zip(packed, weights1, weights2, strict=True)
    ]


def _weight_products(
    sums: Sequence[Sum],
    of_time: Sequence[Tensor],
    inputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> list[Tensor]:
    """Sums over stages of the products for a convolution's weight, each [n, 9 * C * (1 + C)].

    No more than one product of a stage is in memory.

    Args:
        sums: over stages.
        of_time: the sums for the elements of the time, each [n, 9 * C].
        inputs: of the convolution at all stages, [n, C, H, W].
        cotangents: for its results at all stages, [n, C, H, W].
    """
    channels = inputs[0].shape[1]
    totals = [F.pad(time, (0, 9 * channels**2)) for time in of_time]
    for stage in sorted({stage for used, _ in sums for stage in used}):
        product = _products(inputs[stage], cotangents[stage])
        for total, (used, weights) in zip(totals, sums, strict=True):
            if stage in used:
                weight = weights[used.index(stage)][:, None]
                total[:, 9 * channels :].addcmul_(product, weight)
    return totals


def _products(h: Tensor, cotangent: Tensor) -> Tensor:
    """The products for a 3x3 convolution's weight, from [n, C, H, W] to [n, 9 * C * C].

    As groups of channels of one image, the samples have a weight each, and so own products. oneDNN
    has fast kernels for that. Threads share a group where there are fewer groups than threads,
    which rounds differently, so that small batches are padded.
    """
    n, channels = h.shape[:2]
    if not (h.device.type == "cpu" and h.dtype == torch.float32 and mkldnn.is_available()):
        return torch.bmm(cotangent.flatten(2), F.unfold(h, 3, padding=1).mT).flatten(1)
    rows = max(ROWS, torch.get_num_threads())
    h, cotangent = filled_up(h, rows), filled_up(cotangent, rows)
    one = (1, len(h) * channels, *h.shape[2:])
    products: Tensor = conv2d_weight(
        h.reshape(one), (one[1], channels, 3, 3), cotangent.reshape(one), padding=1, groups=len(h)
    )
    return products.view(len(h), -1)[:n]


def _split_time(convolution: nn.Conv2d, like: Tensor) -> tuple[Tensor, Tensor]:
    """The weights for the state, and the response [1, C, H, W] to a time of one."""
    ones = like.new_ones(1, 1, *like.shape[-2:])
    response = F.conv2d(ones, convolution.weight[:, :1], padding=1)
    return convolution.weight[:, 1:].contiguous(), response


def _affine(unit: Tensor, norm: nn.GroupNorm) -> Tensor:
    return unit * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)
