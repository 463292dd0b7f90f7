"""The gradient audit against known gradients, finite differences and planted masked models."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.audits.gradients import (
    audit_gradients,
    cosine_to_direct,
    directions,
    in_double_precision,
    slope_errors,
    sources,
)
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.streams import Streams

pytestmark = pytest.mark.numerical

SIDE = 8


def network(body="ode", **changes):
    torch.manual_seed(3)
    return Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", body, 8, **changes)).eval()


def images(count):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, SIDE, SIDE, generator=generator)


def exactly(model, x):
    exact, reason = in_double_precision(model, x)
    assert reason == ""
    return exact


def audit(model, count=3, random=2, tau=None, differences=100, **options):
    solved = model.at(tolerance=tau)
    return audit_gradients(
        solved,
        exactly(solved, images(count)),
        images(count),
        torch.arange(count) % 4,
        sources(model, 1e-5, 20),
        differences=differences,
        random=random,
        streams=Streams.of(0, range(count)),
        **({"batch_size": 128} | options),
    )


class Plain(nn.Module):
    """A model without an ODE, from a function of its weight and the flat pixels."""

    ode = solver = None
    adaptive = has_steps = False
    device = torch.device("cpu")

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, SIDE**2, generator=torch.manual_seed(1)))
        self.function = function

    def at(self, **changes):
        return self

    def forward(self, x):
        return self.function(self.weight, x.flatten(1))


def relative(error, derivative):
    """The largest error over all directions of an image, over its largest derivative."""
    return error.abs().amax(1) / derivative.abs().amax(1)


def test_a_linear_models_gradient_is_known():
    model = Plain(lambda weight, x: x @ (weight * (torch.arange(SIDE**2) % 4 > 0)).T)
    found = audit(model)
    weight = (model.weight * (torch.arange(SIDE**2) % 4 > 0)).detach().double()
    x = images(3).flatten(1).double()
    gradient = ((x @ weight.T).softmax(1) - F.one_hot(torch.arange(3), 4)) @ weight
    torch.testing.assert_close(found.gradient_norm[:, 0], gradient.norm(dim=1).float())
    assert found.zero_share.flatten().tolist() == [0.25] * 3
    assert found.cosine.flatten().tolist() == pytest.approx([1] * 3)
    assert found.sign_agreement.flatten().tolist() == [1] * 3
    torch.testing.assert_close(found.derivative[:, 0, -1], gradient.norm(dim=1))
    drawn = Streams.of(0, range(3)).normal((2, SIDE**2), torch.empty((), dtype=torch.float64))
    unit = drawn / drawn.norm(dim=2, keepdim=True)
    expected = (unit * gradient[:, None]).sum(2)
    torch.testing.assert_close(found.derivative[:, 0, :2], expected)
    torch.testing.assert_close(found.finite_difference, found.derivative[:, 0], rtol=1e-6, atol=0)


def test_gradients_are_compared_pair_by_pair():
    model, x, y = network(), images(3), torch.arange(3)
    found, gradients = audit(model, tau=0.1), []
    for settings in (
        {"tolerance": 0.1},
        {"tolerance": 0.1, "gradient": "adjoint"},
        {"tolerance": 1e-5},
        {"method": "rk4", "steps": 20},
    ):
        at = x.clone().requires_grad_()
        loss = F.cross_entropy(model.at(**settings)(at), y, reduction="sum")
        gradients.append(torch.autograd.grad(loss, at)[0].flatten(1).numpy().astype(float))
    for image in range(3):
        for i, a in enumerate(gradients):
            for j, b in enumerate(gradients):
                a0, b0 = a[image], b[image]
                cosine = a0 @ b0 / np.sqrt((a0 @ a0) * (b0 @ b0))
                assert found.cosine[image, i, j].item() == pytest.approx(cosine, abs=1e-5)
                agree = np.mean(np.sign(a0) == np.sign(b0))
                assert found.sign_agreement[image, i, j].item() == pytest.approx(agree)
    assert list(sources(model, 1e-5, 20)) == ["direct", "adjoint", "tight", "rk4"]
    assert found.cosine[:, 2, 3].min() > 0.99  # both as good as exact
    assert found.cosine[:, 0, 1].max() < 0.95
    assert found.precision_cosine.min() > 0.999


class Smooth(nn.Module):
    """Dynamics without kinks."""

    def __init__(self, function):
        super().__init__()
        self.convolution = function.conv1

    def bind(self, like):
        def function(t, h):
            times = t.view(-1, 1, 1, 1).expand(-1, 1, *h.shape[2:])
            return torch.tanh(self.convolution(torch.cat([times, h], 1)))

        return function


def test_differences_of_a_smooth_net_are_its_gradient_at_a_tight_tolerance():
    """Steps that depend on the image matter no more."""
    model = network()
    model.body.function = Smooth(model.body.function)
    model.double()
    found = audit_gradients(
        model.at(tolerance=1e-9),
        model.at(tolerance=1e-9),
        images(4).double(),
        torch.arange(4),
        {"direct": {}},
        differences=4,
        random=4,
        streams=Streams.of(0, range(4)),
        batch_size=4,
    )
    direct = found.derivative[:, 0]
    assert direct.abs().amax(1).min() > 1e-3
    assert relative(found.finite_difference - direct, direct).max() < 1e-5
    assert relative(found.finite_difference_frozen - direct, direct).max() < 1e-5


@pytest.mark.parametrize("tau", [1e-2, 0.1, 10.0])
def test_the_direct_gradient_is_that_of_frozen_steps(tau):
    """And not of the real function, whose steps depend on the image."""
    found = audit(network(), tau=tau)
    direct = found.derivative[:, 0]
    assert relative(found.finite_difference_frozen - direct, direct).max() < 1e-5
    assert relative(found.finite_difference - direct, direct).max() > 1e-3


@pytest.mark.parametrize("body", ["ode", "residual"])
def test_fixed_steps_have_no_difference_to_freeze(body):
    model = network(body, method="rk4", steps=3) if body == "ode" else network(body)
    found = audit(model)
    torch.testing.assert_close(found.finite_difference, found.finite_difference_frozen)
    direct = found.derivative[:, 0]
    assert relative(found.finite_difference - direct, direct).max() < 1e-5
    assert found.cosine.shape == ((3, 4, 4) if body == "ode" else (3, 1, 1))


def staircase(x):
    return (8 * x).round() / 8


def test_a_staircase_hides_its_gradient():
    """A true gradient that is zero: nothing to follow."""
    found = audit(Plain(lambda weight, x: staircase(x) @ weight.T))
    assert found.zero_share.flatten().tolist() == [1] * 3
    assert not found.gradient_norm.any()
    assert not found.finite_difference[:, :2].any()
    for unknown in (found.cosine, found.sign_agreement, found.finite_difference[:, -1]):
        assert unknown.isnan().all()


def test_the_rounding_of_a_constant_function_is_no_slope():
    """Pixels in another order have the same sum, but for its rounding."""

    def nothing(x):
        return (x / 3).cumsum(1)[:, -1:] - (x / 3).flip(1).cumsum(1)[:, -1:]

    only_first = torch.tensor([1.0, 0, 0, 0])
    assert nothing(images(8).double().flatten(1)).any()
    found = audit(Plain(lambda weight, x: nothing(x) * only_first + weight[:, 0]), count=8)
    assert not found.finite_difference[:, :2].any()


def test_a_staircase_with_another_functions_gradient_is_found_out():
    """A gradient that looks healthy, of a function that is flat: only differences can tell."""
    found = audit(Plain(lambda weight, x: (x + (staircase(x) - x).detach()) @ weight.T))
    assert not found.zero_share.any()
    assert (found.derivative[:, 0, -1] > 0.1).all()
    assert not found.finite_difference.any()


def test_a_failed_solve_is_unknown_and_harms_no_other_image():
    model = network()
    whole = audit(model, count=8, tau=1e-2)
    solved = model.at(tolerance=1e-2)
    with torch.no_grad():
        solved(images(8))
    attempts = (solved.nfe - 2) // 6
    most = int(attempts.min())
    failed = attempts > most
    assert 0 < failed.sum() < 8
    found = audit(model.at(max_steps=most), count=8, tau=1e-2)
    assert found.finite_difference_frozen[failed, 0].isnan().all()
    torch.testing.assert_close(
        found.finite_difference_frozen[~failed, 0], whole.finite_difference_frozen[~failed, 0]
    )
    torch.testing.assert_close(found.gradient_norm[~failed, 0], whole.gradient_norm[~failed, 0])


def test_batches_change_nothing_and_the_model_is_as_it_was():
    model, done = network(), []
    whole = audit(model, count=3, tau=0.1)
    parts = audit(model, count=3, tau=0.1, batch_size=2, progress=done.append)
    assert done == [2, 1]
    torch.testing.assert_close(parts.cosine, whole.cosine, rtol=0, atol=1e-3)
    torch.testing.assert_close(parts.finite_difference, whole.finite_difference)
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_only_the_first_images_are_differenced():
    model = network()
    whole, few = audit(model, count=5, tau=0.1), audit(model, count=5, tau=0.1, differences=3)
    torch.testing.assert_close(few.cosine, whole.cosine)
    for name in ("precision_cosine", "derivative", "finite_difference", "finite_difference_frozen"):
        torch.testing.assert_close(getattr(few, name), getattr(whole, name)[:3])
    parts = audit(model, count=5, tau=0.1, differences=3, batch_size=2)
    torch.testing.assert_close(parts.finite_difference, few.finite_difference)


def test_derivatives_are_those_of_every_gradient():
    model = network()
    found, y = audit(model, tau=0.1), torch.arange(3)
    for number, (name, settings) in enumerate(sources(model, 1e-5, 20).items()):
        at = images(3).requires_grad_()
        loss = F.cross_entropy(model.at(**{"tolerance": 0.1} | settings)(at), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
        norms = gradient.flatten(1).norm(dim=1).double()
        own = found.derivative[:, number, 2 + number]
        torch.testing.assert_close(own, norms, rtol=1e-4, atol=0, msg=name)


def test_the_slope_along_direct_gradients():
    model, x, y = network(), images(4), torch.arange(4)
    linear = Plain(lambda weight, x: x @ weight.T)
    assert slope_errors(exactly(linear, x), x, y, batch_size=3).max() < 1e-6
    fixed = exactly(model.at(method="rk4", steps=4), x)
    assert slope_errors(fixed, x, y, batch_size=3).max() < 1e-4
    # At a loose tolerance the steps move with the image.
    whole = audit(model, count=4, tau=0.1)
    error = slope_errors(exactly(model.at(tolerance=0.1), x), x, y, batch_size=4)
    slope = whole.finite_difference[:, 2]
    torch.testing.assert_close(error, ((slope - whole.derivative[:, 0, 2]) / slope).abs())
    assert error.max() > 1e-3


def test_a_slope_that_is_not_there():
    x, y = images(2), torch.arange(2)
    flat = exactly(Plain(lambda w, x: staircase(x) @ w.T), x)
    assert slope_errors(flat, x, y, batch_size=2).isnan().all()
    hidden = exactly(Plain(lambda w, x: (x + (staircase(x) - x).detach()) @ w.T), x)
    assert slope_errors(hidden, x, y, batch_size=2).isinf().all()
    assert slope_errors(hidden, x[:0], y[:0], batch_size=2).shape == (0,)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda w, x: x.float() @ w.float().T, "its logits remain float32"),
        (lambda w, x: x.float().to(w) @ w.T, "it computes in single precision in part"),
        (lambda w, x: (x @ w.T).float().to(w), "it computes in single precision in part"),
        (lambda w, x: x.float() @ w.T, "RuntimeError: expected m1 and m2 to have the same dtype"),
        (lambda w, x: x @ w.T + {"a": 1}["b"], "KeyError: 'b'"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_run_in_double_precision_has_no_differences(function, reason):
    model, x = Plain(function), images(3)
    exact, said = in_double_precision(model, x)
    assert exact is None
    assert said.startswith("Derivatives are not compared with differences in double precision: ")
    assert reason in said
    assert slope_errors(exact, x, torch.arange(3), batch_size=2).isnan().all()


def test_single_precision_leaves_the_gradients():
    model = Plain(lambda w, x: x.float() @ w.float().T)
    streams = Streams.of(0, range(3))
    found = audit_gradients(
        model, None, images(3), torch.arange(3), sources(model, 1e-5, 4),
        differences=2, random=2, streams=streams, batch_size=2,
    )  # fmt: skip
    whole = audit(Plain(lambda w, x: x @ w.T), random=2, differences=2)
    for name in ("cosine", "sign_agreement", "gradient_norm", "zero_share"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name))
    for name in ("precision_cosine", "derivative", "finite_difference", "finite_difference_frozen"):
        assert getattr(found, name).isnan().all()
        assert getattr(found, name).shape == getattr(whole, name).shape


def test_the_angle_to_the_direct_gradient():
    model, x, y = network().at(tolerance=0.1), images(5), torch.arange(5) % 4
    gradients = {}
    for kind in ("direct", "adjoint"):
        at = x.clone().requires_grad_()
        loss = F.cross_entropy(model.at(gradient=kind)(at), y, reduction="sum")
        gradients[kind] = torch.autograd.grad(loss, at)[0]
    for kind, flat in {name: g.flatten(1) for name, g in gradients.items()}.items():
        expected = F.cosine_similarity(flat, gradients["direct"].flatten(1))
        found = cosine_to_direct(model, x, y, gradients[kind], batch_size=2)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert cosine_to_direct(model, x, y, torch.zeros_like(x), batch_size=5).isnan().all()
    assert cosine_to_direct(model, x[:0], y[:0], x[:0], batch_size=5).shape == (0,)


def test_names_of_directions():
    names = directions(sources(network(), 1e-5, 20), 2)
    assert names == ["random_0", "random_1", "direct", "adjoint", "tight", "rk4"]
    assert audit(network(), count=1, tau=1.0).derivative.shape == (1, 4, len(names))
