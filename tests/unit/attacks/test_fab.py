"""FAB against torchattacks', closed forms and projections by other means."""

import numpy as np
import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from torchattacks.attacks.fab import projection_l2, projection_linf

from node_robustness.attacks.fab import FAB, project_onto_hyperplane
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import Linear, bounded_distance, digits, distances, edge_images, grey_images, predicted

pytestmark = pytest.mark.numerical

NORMS = ["linf", "l2", "l2_rms"]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 5])
def test_finds_the_closed_form_distance(norm, classes):
    model, x = Linear(classes), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, norm)
    found = FAB(Norm(norm), 1.0, 30).search(model, x, y, Streams.of(0, range(8)))
    assert bool(found.success.all())
    sizes = Norm(norm).size(found.adversarials - x)
    torch.testing.assert_close(sizes, nearest, rtol=0.01, atol=0)
    assert bool((sizes >= nearest * (1 - 1e-9)).all())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_finds_the_distance_within_the_bounds(norm):
    model, x = Linear(2), edge_images(8)
    y = predicted(model, x)
    weight, logits = model.weight.detach(), model(x).detach()
    found = FAB(Norm(norm), 10.0, 40).search(model, x, y, Streams.of(0, range(8)))
    assert bool(found.success.all())
    for image in range(len(x)):
        label = int(y[image])
        normal = (weight[label] - weight[1 - label]).flatten().numpy()
        lead = float(logits[image, label] - logits[image, 1 - label])
        nearest = bounded_distance(x[image].flatten().numpy(), normal, lead, norm)
        size = Norm(norm).size(found.adversarials[image : image + 1] - x[image : image + 1]).item()
        assert nearest * (1 - 1e-6) <= size <= nearest * 1.02


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.3), ("l2", 2.0)])
def test_is_no_weaker_than_torchattacks_image_by_image(norm, epsilon):
    model, x, y = digits()
    x, y = x[:12], y[:12]
    theirs = torchattacks.FAB(
        model,
        {"linf": "Linf", "l2": "L2"}[norm],
        epsilon,
        steps=30,
        multi_targeted=True,
        n_classes=2,
    )
    found = FAB(Norm(norm), epsilon, 30, targets=1).search(model, x, y, Streams.of(0, range(12)))
    adversarials = torch.cat([theirs(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    broken = predicted(model, adversarials) != y
    assert bool(broken.any())
    assert bool(found.success[broken].all())
    ours = Norm(norm).size(found.adversarials - x)[broken]
    sizes = Norm(norm).size(adversarials - x)[broken]
    # We also evaluate the points from which a step starts, which can only help.
    assert bool((ours <= sizes * 1.001).all())
    assert ours.mean() >= 0.97 * sizes.mean()


def test_an_adversarial_beyond_epsilon_does_not_count():
    model, x = Linear(2), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, "l2")
    epsilon = nearest.median().item()
    found = FAB(Norm("l2"), epsilon, 20).search(model, x, y, Streams.of(0, range(8)))
    assert torch.equal(found.success, nearest <= epsilon / 1.01)
    stands = ~found.success
    assert torch.equal(found.predictions[stands], y[stands])
    assert bool((Norm("l2").size(found.adversarials - x) <= epsilon * (1 + 1e-6)).all())


@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(["linf", "l2"]),
    st.integers(1, 12),
    st.floats(-3, 3),
    st.integers(0, 10_000),
)
def test_the_projection_is_the_smallest_change_within_the_bounds(norm, size, value, seed):
    random = np.random.default_rng(seed)
    point = np.clip(random.uniform(-0.3, 1.3, size), 0, 1)
    normal = random.normal(size=size) * (random.uniform(size=size) < 0.9)
    change = (
        project_onto_hyperplane(
            Norm(norm),
            torch.tensor(point).view(1, 1, 1, -1),
            torch.tensor(normal).view(1, 1, 1, -1),
            torch.tensor([value], dtype=torch.float64),
        )
        .flatten()
        .numpy()
    )
    moved = point + change
    assert (moved >= -1e-12).all()
    assert (moved <= 1 + 1e-12).all()
    nearest = bounded_distance(point, normal, value, norm)
    reach = np.maximum(-normal * np.sign(value), 0) @ (1 - point)
    reach += np.maximum(normal * np.sign(value), 0) @ point
    if nearest is None or reach < abs(value):
        # The boundary is outside; the value falls as far as it can.
        assert abs(normal @ change) == pytest.approx(reach, rel=1e-9, abs=1e-9)
    else:
        assert value + normal @ change == pytest.approx(0, abs=1e-8)
        length = np.abs(change).max() if norm == "linf" else np.linalg.norm(change)
        assert length == pytest.approx(nearest, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(("norm", "theirs"), [("linf", projection_linf), ("l2", projection_l2)])
def test_the_projection_is_torchattacks(norm, theirs):
    generator = torch.Generator().manual_seed(3)
    points = (1.6 * torch.rand(200, 30, generator=generator).double() - 0.3).clamp(0, 1)
    normals = torch.randn(200, 30, generator=generator).double()
    values = 3 * torch.randn(200, generator=generator).double()
    offsets = (normals * points).sum(1) - values
    expected = theirs(points, normals, offsets)
    change = project_onto_hyperplane(
        Norm(norm), points[:, None, None], normals[:, None, None], values
    )
    torch.testing.assert_close(change[:, 0, 0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e25])
def test_the_projection_does_not_depend_on_the_scale_of_the_logits(norm, scale):
    generator = torch.Generator().manual_seed(4)
    points = torch.rand(6, 1, 4, 4, generator=generator)
    normals, values = torch.randn(6, 1, 4, 4, generator=generator), torch.ones(6)
    expected = project_onto_hyperplane(Norm(norm), points, normals, values)
    change = project_onto_hyperplane(Norm(norm), points, scale * normals, scale * values)
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)
