"""The dynamics against their plain form with a concatenated time channel."""

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.models.ode_function import ODEFunction
from node_robustness.ode.parts import Parts

pytestmark = pytest.mark.numerical


def plain(function: ODEFunction, t: Tensor, h: Tensor) -> Tensor:
    """GN, ReLU, conv3x3 of [t, h], GN, ReLU, conv3x3 of [t, h], GN, as the paper writes it."""
    time = t.view(-1, 1, 1, 1).expand(len(h), 1, *h.shape[2:])
    for norm, conv in ((function.norm1, function.conv1), (function.norm2, function.conv2)):
        h = F.relu(F.group_norm(h, norm.num_groups, norm.weight, norm.bias))
        h = F.conv2d(torch.cat([time, h], 1), conv.weight, conv.bias, padding=1)
    return F.group_norm(h, function.norm3.num_groups, function.norm3.weight, function.norm3.bias)


def random_function(channels: int = 8) -> ODEFunction:
    torch.manual_seed(1)
    function = ODEFunction(channels).double()
    for parameter in function.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return function


def test_folded_time_is_the_plain_form():
    function = random_function()
    t = torch.tensor([0.0, 0.3, -1.0, 2.5], dtype=torch.float64)
    h = torch.randn(4, 8, 5, 7, dtype=torch.float64)
    expected = plain(function, t, h)
    assert torch.allclose(function(t, h), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(function(t[1], h[1:2]), expected[1:2], rtol=1e-12, atol=1e-12)


def test_gradients_for_parameters_pass_through_the_folding():
    function = random_function()
    t = torch.rand(3, dtype=torch.float64)
    h = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    weights = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    ours = torch.autograd.grad((weights * function(t, h)).sum(), list(function.parameters()))
    theirs = torch.autograd.grad(
        (weights * plain(function, t, h)).sum(), list(function.parameters())
    )
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_products_for_each_sample_are_autograds():
    function = random_function()
    t = torch.rand(3, dtype=torch.float64)
    h = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    cotangent = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    products = function.products(h, with_parameters=True)
    (value,), (to_h, to_t, *terms) = products.evaluate(t, (h,), (cotangent,))
    (totals,) = products.total([([0], torch.ones_like(t)[None])], [tuple(terms)])
    found = (to_h, to_t, *totals)
    assert torch.allclose(value, plain(function, t, h))
    assert [each[0].numel() for each in found[2:]] == list(products.sizes)
    for i in range(3):
        ti, hi = t[i : i + 1].clone().requires_grad_(), h[i : i + 1].clone().requires_grad_()
        expected = torch.autograd.grad(
            plain(function, ti, hi), [hi, ti, *function.parameters()], cotangent[i : i + 1]
        )
        for ours, theirs in zip(found, expected, strict=True):
            if theirs.ndim == 4 and theirs.shape[-1] == 3:
                theirs = torch.cat([theirs[:, 0].flatten(), theirs[:, 1:].flatten()])
            assert torch.allclose(ours[i].flatten(), theirs.flatten(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 3, 6])
def test_sums_of_products_in_single_precision(rows):
    """They are those in double precision, and have the same bits in any batch."""
    double = random_function(12)
    single = deepcopy(double).float()
    drawn = torch.randn(3, 2, 6, 12, 7, 7, dtype=torch.float64)
    weights = torch.rand(2, 6, dtype=torch.float64)

    def sums(function: ODEFunction, samples: slice) -> list[Parts]:
        dtype = function.conv1.weight.dtype
        products = function.products(drawn[0, 0].to(dtype), with_parameters=True)
        terms = [
            products.evaluate(drawn[1, 0, samples, 0, 0, 0].to(dtype), (h,), (cotangent,))[1][2:]
            for h, cotangent in drawn[:, :, samples].to(dtype)
        ]
        own = weights[:, samples].to(dtype)
        return products.total([([0, 2], own), ([1], own[:1])], terms)

    some = slice(0, rows)
    for found, whole, expected in zip(
        sums(single, some), sums(single, slice(None)), sums(double, some), strict=True
    ):
        for one, all_rows, exact in zip(found, whole, expected, strict=True):
            torch.testing.assert_close(one.double(), exact, rtol=1e-4, atol=1e-3)
            assert torch.equal(one, all_rows[some])
