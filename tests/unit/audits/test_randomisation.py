"""Attacks on a tolerance that is drawn, against single gradients and the basic iterative method."""

import pytest
import torch

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.expectation import log_uniform
from node_robustness.audits.randomisation import Ascent, attack_randomised, climb, misclassified
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from rounding import dtype_and_margin
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

ASCENT = Ascent(Norm("linf"), 0.03, 0.01, 4)


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


def test_one_known_tolerance_is_the_basic_iterative_method():
    """With two classes the iterate of the largest loss is adversarial where any is."""
    model, x = small_ode(classes=2), random_images(8)
    y, tau = predicted(model, x), 0.1
    made = climb(model, x, y, ASCENT, lambda: torch.full((8, 1), tau, dtype=torch.float64))
    solved = model.at(tolerance=tau)
    y_there = predicted(solved, x)
    method = BasicIterativeMethod(Norm("linf"), 0.03, 0.01, 4, early_stop=False)
    found = attack(solved, x, y, method)
    rows = found.success & (y_there == y)
    assert rows.any()
    torch.testing.assert_close(made[rows], found.adversarials[rows], rtol=0, atol=1e-6)
    assert ((made - x).abs().amax((1, 2, 3)) <= 0.03 + 1e-6).all()
    assert ((made >= 0) & (made <= 1)).all()


def test_misclassified_at_tolerances_of_ones_own():
    model, x = small_ode(), random_images(6)
    y, taus = predicted(model, x), log_uniform(1e-3, 10.0)(Streams.of(2, range(6)), 5)
    found = misclassified(model, x, y, taus)
    for image in range(6):
        for draw in range(5):
            solved = model.at(tolerance=taus[image, draw].item())
            expected = predicted(solved, x[image : image + 1]) != y[image]
            assert found[image, draw] == expected


def test_attackers_beat_chance_and_results_depend_on_the_image_alone():
    dtype, margin = dtype_and_margin()
    model, x, rows = small_ode(dtype=dtype), random_images(10).to(dtype), list(range(40, 50))
    y = predicted(model, x)
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
        assert (wrong - whole.wrong[name][order]).abs().max() <= margin, name
