"""Carlini and Wagner's attack against closed forms and torchattacks'."""

import pytest
import torch
import torchattacks

from node_robustness.attacks.cw import CarliniWagner
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.logits import margin
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import Linear, bounded_distance, digits, distances, edge_images, grey_images, predicted

pytestmark = pytest.mark.numerical

L2 = Norm("l2")


def search(model, x, y, **parameters):
    how = CarliniWagner(
        **{
            "norm": L2,
            "epsilon": 10.0,
            "iterations": 100,
            "search_steps": 9,
            "learning_rate": 0.003,
        }
        | parameters
    )
    return how.search(model, x, y, Streams.of(0, range(len(x))))


@pytest.mark.parametrize("norm", ["l2", "l2_rms"])
def test_finds_the_closed_form_distance(norm):
    model, x = Linear(2), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, norm)
    found = search(model, x, y, norm=Norm(norm))
    assert bool(found.success.all())
    sizes = Norm(norm).size(found.adversarials - x)
    torch.testing.assert_close(sizes, nearest, rtol=0.03, atol=0)
    assert bool((sizes >= nearest * (1 - 1e-9)).all())


def test_moves_pixels_that_are_exactly_0_or_1():
    model, x = Linear(2), edge_images(8).round()
    y = predicted(model, x)
    weight, logits = model.weight.detach(), model(x).detach()
    found = search(model, x, y, learning_rate=0.01, iterations=200)
    assert bool(found.success.all())
    assert bool((found.adversarials != x).flatten(1).any(1).all())
    for image in range(len(x)):
        label = int(y[image])
        normal = (weight[label] - weight[1 - label]).flatten().numpy()
        lead = float(logits[image, label] - logits[image, 1 - label])
        nearest = bounded_distance(x[image].flatten().numpy(), normal, lead, "l2")
        size = L2.size(found.adversarials[image : image + 1] - x[image : image + 1]).item()
        assert nearest * (1 - 1e-6) <= size <= nearest * 1.05


def test_is_stronger_than_torchattacks_which_moves_no_such_pixel():
    model, x, y = digits()
    x, y = x[:12], y[:12]
    found = search(model, x, y, learning_rate=0.01)
    theirs = torchattacks.CW(model, c=1, steps=100, lr=0.01)(x, y)
    broken = predicted(model, theirs) != y
    edge = (x == 0) | (x == 1)
    assert torch.equal(theirs[edge], x[edge])
    assert bool((found.adversarials[edge] != x[edge]).any())
    assert bool(found.success.all())
    assert L2.size(found.adversarials - x)[broken].mean() < 0.9 * L2.size(theirs - x)[broken].mean()


def test_comes_near_to_fab():
    model, x, y = digits()
    x, y = x[:8], y[:8]
    ours = L2.size(search(model, x, y, learning_rate=0.01).adversarials - x)
    fab = FAB(L2, 10.0, 20, targets=4).search(model, x, y, Streams.of(0, range(8)))
    ratio = ours / L2.size(fab.adversarials - x)
    assert ratio.median() < 1.03


def test_an_adversarial_has_the_confidence_that_was_asked_for():
    model, x = Linear(3), grey_images(6)
    y = predicted(model, x)
    plain = search(model, x, y, learning_rate=0.01)
    sure = search(model, x, y, learning_rate=0.01, confidence=0.5)
    assert bool(sure.success.all())
    assert bool((margin(model(sure.adversarials), y) >= 0.5).all())
    assert bool((margin(model(plain.adversarials), y) < 0.5).all())
    assert bool((L2.size(sure.adversarials - x) > L2.size(plain.adversarials - x)).all())


def test_an_adversarial_beyond_epsilon_does_not_count():
    model, x = Linear(2), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, "l2")
    epsilon = nearest.median().item()
    found = search(model, x, y, epsilon=epsilon)
    assert torch.equal(found.success, nearest < 0.99 * epsilon)
    assert torch.equal(found.predictions[~found.success], y[~found.success])
    assert bool((L2.size(found.adversarials - x) <= epsilon * (1 + 1e-6)).all())


def test_a_misclassified_candidate_without_the_confidence_is_not_returned():
    model, x = Linear(3), grey_images(6)
    y = predicted(model, x)
    epsilon = distances(model, x, "l2").median().item() * 1.2
    found = search(model, x, y, epsilon=epsilon, confidence=0.5)
    assert not bool(found.success.all())
    assert torch.equal(found.success, predicted(model, found.adversarials) != y)


def test_more_search_steps_find_no_larger_perturbations():
    model, x, y = digits()
    x, y = x[:4], y[:4]
    few, many = (
        L2.size(search(model, x, y, learning_rate=0.01, search_steps=steps).adversarials - x)
        for steps in (5, 8)
    )
    assert bool((many <= few).all())
    assert bool((many < few).any())


def test_linf_is_refused():
    with pytest.raises(ValueError, match="not linf"):
        CarliniWagner(Norm("linf"), 0.1, 10, 3, 0.01)
