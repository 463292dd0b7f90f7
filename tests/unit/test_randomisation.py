"""Attacks on a tolerance that is drawn, against single gradients and the basic iterative method."""

import math

import pytest
import torch
import torch.nn.functional as F

from node_robustness.attacks import BasicIterativeMethod, Streams, attack
from node_robustness.models import Classifier, Spec, solving
from node_robustness.norms import Norm
from node_robustness.randomisation import (
    Ascent,
    attack_randomised,
    climb,
    expected_gradient,
    log_uniform,
    misclassified,
)

ASCENT = Ascent(Norm("linf"), 0.03, 0.01, 4)


def images(count):
    generator = torch.Generator().manual_seed(5)
    return torch.rand(count, 1, 8, 8, generator=generator)


def network(classes=4, dtype=torch.float32):
    torch.manual_seed(3)
    model = Classifier(Spec(1, classes, (0.4,), (0.3,), "convolution", "ode", 8)).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(images(16)).mean(0)
    return model.requires_grad_(False).to(dtype)


def labels(model, x):
    with torch.no_grad():
        return model(x).argmax(1)


def randomised(model, x, y, rows, **changes):
    settings = {"draws": 3, "evaluation_draws": 6, "batch_size": 128} | changes
    return attack_randomised(
        model,
        x,
        y,
        ASCENT,
        log_uniform(1e-3, 10.0),
        streams=lambda purpose: Streams.of(0, rows, purpose),
        **settings,
    )


def test_draws_are_log_uniform():
    drawn = log_uniform(1e-3, 10.0)(Streams.of(0, range(50)), 40)
    assert drawn.shape == (50, 40)
    assert drawn.dtype == torch.float64
    logarithms = drawn.log10().flatten()
    assert logarithms.min() >= -3
    assert logarithms.max() <= 1
    counts = torch.histc(logarithms, 4, min=-3, max=1)
    assert (counts - 500).abs().max() < 4 * math.sqrt(2000 * 0.25 * 0.75)


def test_the_expected_gradient_is_the_mean_of_single_ones():
    model, x = network(dtype=torch.float64), images(3).double()
    y, taus = torch.arange(3), log_uniform(1e-3, 10.0)(Streams.of(1, range(3)), 4)
    losses, gradients = expected_gradient(model, x, y, taus)
    for image in range(3):
        single_losses, single_gradients = [], []
        for tau in taus[image].tolist():
            at = x[image : image + 1].clone().requires_grad_()
            with solving(model, tolerance=tau):
                loss = F.cross_entropy(model(at), y[image : image + 1])
            single_losses.append(loss.item())
            single_gradients.append(torch.autograd.grad(loss, at)[0][0])
        assert losses[image].item() == pytest.approx(sum(single_losses) / 4, rel=1e-10)
        mean = torch.stack(single_gradients).mean(0)
        torch.testing.assert_close(gradients[image], mean, rtol=1e-8, atol=1e-12)
    assert (gradients[0] - single_gradients[0]).abs().max() > 0


def test_a_failed_draw_has_no_gradient_and_the_largest_loss():
    model, x, y = network(), images(2), torch.arange(2)
    taus = torch.tensor([[1e-6, 10.0], [10.0, 10.0]], dtype=torch.float64)
    with solving(model, max_steps=6):
        losses, gradients = expected_gradient(model, x, y, taus)
    assert losses[0] == math.inf
    assert torch.isfinite(losses[1])
    _, alone = expected_gradient(model, x, y, taus[:, 1:])
    torch.testing.assert_close(gradients[0], alone[0] / 2)
    torch.testing.assert_close(gradients[1], alone[1])


def test_one_known_tolerance_is_the_basic_iterative_method():
    """With two classes the iterate of the largest loss is adversarial where any is."""
    model, x = network(classes=2), images(8)
    y, tau = labels(model, x), 0.1
    made = climb(model, x, y, ASCENT, lambda: torch.full((8, 1), tau, dtype=torch.float64))
    with solving(model, tolerance=tau):
        y_there = labels(model, x)
        method = BasicIterativeMethod(Norm("linf"), 0.03, 0.01, 4, early_stop=False)
        found = attack(model, x, y, method)
    rows = found.success & (y_there == y)
    assert rows.any()
    torch.testing.assert_close(made[rows], found.adversarials[rows], rtol=0, atol=1e-6)
    assert ((made - x).abs().amax((1, 2, 3)) <= 0.03 + 1e-6).all()
    assert ((made >= 0) & (made <= 1)).all()


def test_misclassified_at_tolerances_of_ones_own():
    model, x = network(), images(6)
    y, taus = labels(model, x), log_uniform(1e-3, 10.0)(Streams.of(2, range(6)), 5)
    found = misclassified(model, x, y, taus)
    for image in range(6):
        for draw in range(5):
            with solving(model, tolerance=taus[image, draw].item()):
                expected = labels(model, x[image : image + 1]) != y[image]
            assert found[image, draw] == expected


def test_attackers_beat_chance_and_results_depend_on_the_image_alone():
    model, x, rows = network(), images(10), list(range(40, 50))
    y = labels(model, x)
    whole, done = randomised(model, x, y, rows), []
    assert list(whole.wrong) == ["clean", "fixed", "fresh", "eot"]
    for attacker in ("fixed", "fresh", "eot"):
        assert whole.wrong[attacker].mean() > whole.wrong["clean"].mean() + 0.2
    assert whole.fixed_wrong.dtype == torch.bool
    assert ((whole.fixed_tolerance >= 1e-3) & (whole.fixed_tolerance <= 10)).all()
    order = torch.tensor([7, 2, 9, 4])
    some = randomised(
        model, x[order], y[order], [rows[i] for i in order], batch_size=6, progress=done.append
    )
    assert done == [2, 2]
    assert torch.equal(some.fixed_tolerance, whole.fixed_tolerance[order])
    for name, wrong in some.wrong.items():
        assert torch.equal(wrong, whole.wrong[name][order])
