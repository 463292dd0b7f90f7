"""Adversarial examples of full strength: how strong they are, and where they lie."""

import pytest
import torch
from torch import nn

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.sizes import ROUNDING
from node_robustness.trajectories.strengthen import strengthen
from rounding import dtype_and_margin
from victims import FailsFarOut, Linear, predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

EPSILON = {"linf": 0.1, "l2": 0.6, "l2_rms": 0.075}


class Viewed(nn.Module):
    """A model with views, as a classifier has; it counts how often gradients are direct."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.direct = 0

    def at(self, **changes):
        self.direct += changes == {"gradient": "direct"}
        return self.model


def margins(model, x, classes):
    """The logit of a class minus the largest other, written out."""
    with torch.no_grad():
        logits = model(x)
    rest = logits.clone()
    rest[torch.arange(len(x)), classes] = -torch.inf
    return logits[torch.arange(len(x)), classes] - rest.max(1).values


def searched(model, clean, start, norm="linf", steps=20, batch_size=16, epsilon=None):
    return strengthen(
        model,
        clean,
        start,
        predicted(model, clean),
        Norm(norm),
        epsilon or EPSILON[norm],
        steps=steps,
        batch_size=batch_size,
    )


def residual():
    torch.manual_seed(4)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "residual", 8, 2)).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(random_images(16)).mean(0)
    return model.requires_grad_(False)


def stopped_early(model, clean, norm="linf"):
    """What an attack that stops at its first success ended with."""
    epsilon = EPSILON[norm]
    method = BasicIterativeMethod(Norm(norm), epsilon, epsilon / 4, 10)
    return attack(model, clean, predicted(model, clean), method)


@pytest.mark.parametrize("norm", list(EPSILON))
@pytest.mark.parametrize("build", [lambda: small_ode().at(tolerance=0.1), residual])
def test_the_search_goes_on_where_the_attack_stopped(build, norm):
    model, clean = build(), random_images(12)
    ended = stopped_early(model, clean, norm)
    decided = predicted(model, clean)
    found = searched(model, clean, ended.adversarials, norm)
    before = margins(model, ended.adversarials, decided)
    torch.testing.assert_close(found.margin, margins(model, found.images, decided))
    assert ended.success.any()
    assert (found.margin < before).all()
    assert found.margin[ended.success].mean() < before[ended.success].mean() - 0.05
    assert (found.success == (predicted(model, found.images) != decided)).all()
    change = (found.images - clean).flatten(1)
    assert ((found.images >= 0) & (found.images <= 1)).all()
    assert (Norm(norm).size(found.images - clean) <= EPSILON[norm] * (1 + ROUNDING)).all()
    torch.testing.assert_close(found.linf, change.abs().max(1).values)
    torch.testing.assert_close(found.l2, change.square().sum(1).sqrt())


@pytest.mark.parametrize("norm", list(EPSILON))
def test_of_a_linear_network_the_lowest_margin_is_known(norm):
    model = Linear(classes=2)
    clean = 0.4 + 0.2 * torch.rand(6, 1, 4, 4, dtype=torch.float64)
    decided, epsilon = predicted(model, clean), 0.05
    found = strengthen(
        Viewed(model), clean, clean, decided, Norm(norm), epsilon, steps=20, batch_size=4
    )
    slope = (model.weight[0] - model.weight[1]).detach()
    sizes = {"linf": slope.abs().sum(), "l2": slope.norm(), "l2_rms": slope.norm() * 4}
    expected = margins(model, clean, decided) - epsilon * sizes[norm]
    torch.testing.assert_close(found.margin, expected, rtol=1e-5, atol=1e-6)


def test_no_steps_keep_what_the_attack_ended_with_to_the_bit():
    model, clean = small_ode(), random_images(8)
    ended = stopped_early(model, clean).adversarials
    found = searched(model, clean, ended, steps=0)
    assert torch.equal(found.images, ended)


def test_a_result_that_no_step_beats_is_kept_to_the_bit():
    model, clean = small_ode(), random_images(8)
    strong = searched(model, clean, clean, steps=40).images
    again = searched(model, clean, strong, steps=1)
    kept = (again.images == strong).flatten(1).all(1)
    assert kept.any()
    decided = predicted(model, clean)
    assert (again.margin <= margins(model, strong, decided) + 1e-6).all()


@pytest.mark.parametrize("norm", list(EPSILON))
def test_a_result_outside_the_ball_is_brought_into_it(norm):
    model, clean = small_ode(), random_images(8)
    far = (clean + 0.4).clamp(0, 1)
    found = searched(model, clean, far, norm, steps=0)
    sizes = Norm(norm).size(found.images - clean)
    assert (sizes <= EPSILON[norm] * (1 + ROUNDING)).all()
    torch.testing.assert_close(sizes[0].item(), EPSILON[norm], rtol=1e-3, atol=0)


def test_batches_change_nothing():
    dtype, margin = dtype_and_margin()
    model, clean = small_ode(dtype=dtype).at(tolerance=0.1), random_images(9).to(dtype)
    ended = stopped_early(model, clean).adversarials
    whole, single = (searched(model, clean, ended, batch_size=size) for size in (9, 1))
    for name, values in vars(whole).items():
        difference = (values.double() - getattr(single, name).double()).abs().max()
        assert difference <= margin, name


def test_a_masked_gradient_is_not_followed():
    view = Viewed(small_ode())
    clean = random_images(3)
    decided = predicted(view.model, clean)
    strengthen(view, clean, clean, decided, Norm("linf"), 0.1, steps=1, batch_size=2)
    assert view.direct == 1


def test_a_loose_adjoint_does_not_weaken_the_search():
    """The adjoint of a model at a loose tolerance is not followed."""
    masked = small_ode().at(tolerance=10.0, gradient="adjoint", adjoint_tolerance=10.0)
    clean = random_images(6)
    found = searched(masked, clean, clean)
    direct = searched(masked.at(gradient="direct"), clean, clean)
    assert torch.equal(found.images, direct.images)


def test_an_image_that_the_network_misclassifies_is_led_away_from_its_own_decision():
    """The class of the clean run counts, not the label."""
    model, clean = small_ode(), random_images(4)
    decided = predicted(model, clean)
    found = searched(model, clean, clean)
    assert (margins(model, found.images, decided) < margins(model, clean, decided)).all()


def test_a_failed_solve_has_no_margin_and_is_left():
    """The search begins again at the clean image, and keeps what it can evaluate."""
    model = FailsFarOut(Linear(classes=3))
    clean = torch.full((2, 1, 4, 4), 0.45, dtype=torch.float64)
    start = clean.clone()
    start[0, :, 0, 0] = 0.52  # fails
    decided = predicted(model, clean)
    found = strengthen(
        Viewed(model), clean, start, decided, Norm("linf"), 0.1, steps=10, batch_size=2
    )
    assert torch.isfinite(found.margin).all()
    assert (found.margin < margins(model, clean, decided)).all()


def test_where_every_solve_fails_the_example_has_no_margin():
    model = FailsFarOut(Linear(classes=3))
    clean = torch.full((1, 1, 4, 4), 0.9, dtype=torch.float64)
    found = strengthen(
        Viewed(model),
        clean,
        clean - 0.05,
        torch.tensor([0]),
        Norm("linf"),
        0.1,
        steps=5,
        batch_size=2,
    )
    assert torch.isnan(found.margin).all()
    assert found.success.all()
    assert torch.equal(found.images, clean - 0.05)


def test_torchdiffeq_is_followed_too():
    spec = Spec(1, 4, (0.4,), (0.3,), "convolution", "ode", 8, backend="torchdiffeq")
    model = Classifier(spec).eval()
    model.load_state_dict(small_ode().state_dict())
    clean = random_images(3)
    found = searched(model, clean, clean, steps=4)
    batched = searched(small_ode(), clean, clean, steps=4)
    torch.testing.assert_close(found.margin, batched.margin, rtol=0, atol=2e-3)
    decided = predicted(model, clean)
    assert (found.margin < margins(model, clean, decided) - 0.02).all()
