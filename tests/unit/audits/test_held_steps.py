"""What the solver's decisions do to a prediction, on nets in which they do all or nothing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.attacks.logits import margin
from node_robustness.audits.held_steps import HeldSteps, step_decisions
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from planted import IntoChannelZero, ReadChannelOne
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical


class Hidden(nn.Module):
    """Channel 1 takes in a short pulse, of which the solver sees what its steps happen to meet.

    A pulse of channel 2, whose size is the image, has the steps before it rejected or not.
    """

    def bind(self, like):
        def function(t, h):
            time = t.expand(len(h)).view(-1, 1, 1)
            seen = torch.exp(-(((time - 0.4) / 0.05) ** 2)) / 0.05
            busy = 5 * torch.exp(-(((time - 0.8) / 0.1) ** 2))
            zero = torch.zeros_like(h[:, 0])
            return torch.stack([zero, seen.expand_as(zero), busy * h[:, 0]], dim=1)

        return function


def hidden() -> Classifier:
    """Says class 1 where the steps meet the pulse."""
    spec = Spec(1, 2, (0.0,), (1.0,), "convolution", "ode", filters=3, tolerance=0.01)
    model = Classifier(spec)
    model.downsampling = IntoChannelZero()
    model.head = ReadChannelOne(0.9)
    model.body.function = Hidden()
    return model.double().eval()


def grey(*levels):
    return torch.tensor(levels, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_steps_are_those_of_the_images():
    model, x = small_ode().at(tolerance=0.1), random_images(5)
    held = HeldSteps.of(model, x)
    with torch.no_grad():
        torch.testing.assert_close(held.logits(x), model(x))
        moved = (x + 0.2).clamp(0, 1)
        twice = held.logits(torch.cat([x, moved]))
        alone = [HeldSteps.of(model, x[i : i + 1]).logits(moved[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(twice[:5], model(x))
    torch.testing.assert_close(twice[5:], torch.cat(alone), rtol=0, atol=1e-5)


def test_a_decision_that_is_the_whole_of_an_adversarial_example():
    """It does not survive, its path crosses, and the jump is the change."""
    model = hidden()
    clean, adversarial = grey(0.93), grey(0.94)
    labels = predicted(model, clean)
    assert predicted(model, adversarial) != labels
    found = step_decisions(model, clean, adversarial, labels, located=1, batch_size=9)
    assert found.crosses.tolist() == [True]
    assert found.survives.tolist() == [False]
    assert found.change.item() > 1
    assert found.jump.item() == pytest.approx(found.change.item(), rel=0.1)


def test_fixed_steps_decide_nothing():
    model, x = small_ode().at(method="rk4", steps=4), random_images(6)
    y = predicted(model, x)
    made = attack(model, x, y, BasicIterativeMethod(Norm("linf"), 0.1, 0.025, 10))
    assert made.success.all()
    found = step_decisions(model, x, made.adversarials, y, located=9, batch_size=4)
    assert found.survives.all()
    assert not found.crosses.any()
    assert found.jump.isnan().all()
    with torch.no_grad():
        change = margin(model(made.adversarials), y) - margin(model(x), y)
    torch.testing.assert_close(found.change, change, rtol=0, atol=1e-5)


def test_a_jump_lies_between_two_neighbouring_solves():
    """Against a walk in small steps along the same line."""
    model, x = small_ode(dtype=torch.float64).at(tolerance=1e-2), random_images(4).double()
    y, moved = predicted(model, x), random_images(8)[4:].double()
    found = step_decisions(model, x, moved, y, located=4, batch_size=100)
    assert found.crosses.any()
    for image in found.crosses.nonzero().flatten():
        shares = torch.linspace(0, 1, 2001, dtype=torch.float64).view(-1, 1, 1, 1)
        line = x[image] + shares * (moved[image] - x[image])
        with torch.no_grad():
            margins = margin(model(line), y[image].expand(len(line)))
        # The largest difference of neighbours is a jump, or steeper than any.
        assert 0 < found.jump[image] <= margins.diff().abs().max() * 1.5


def test_only_so_many_are_located_and_batches_change_nothing():
    model, x = small_ode().at(tolerance=1e-2), random_images(6)
    y, moved = predicted(model, x), random_images(12)[6:]
    whole = step_decisions(model, x, moved, y, located=6, batch_size=1000)
    parts = step_decisions(model, x, moved, y, located=6, batch_size=10)
    assert whole.crosses.sum() > 1
    assert torch.equal(whole.crosses, parts.crosses)
    torch.testing.assert_close(whole.jump, parts.jump, rtol=0, atol=1e-4, equal_nan=True)
    one = step_decisions(model, x, moved, y, located=1, batch_size=1000)
    assert (~one.jump.isnan()).sum() == 1


def test_without_an_adversarial_example_nothing_is_said():
    none = random_images(1)[:0]
    found = step_decisions(
        small_ode(), none, none, torch.zeros(0, dtype=torch.int64), located=3, batch_size=8
    )
    assert len(found.survives) == len(found.crosses) == len(found.jump) == len(found.change) == 0


def test_a_clean_solve_that_failed_says_nothing():
    model, x = small_ode().at(max_steps=1, tolerance=1e-6), random_images(3)
    with torch.no_grad():
        logits = HeldSteps.of(model, x).logits(x)
    assert logits.isnan().all()
    assert F.cross_entropy(logits, torch.zeros(3, dtype=torch.int64)).isnan()
