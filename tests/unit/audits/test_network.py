"""The whole audit of a network: every image has its place, in every norm."""

import pytest
import torch

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.audits.network import audit_network
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.perturbations.norms import Norm
from victims import predicted, random_images, small_ode

pytestmark = pytest.mark.numerical

SETTINGS = {
    "differences": 3,
    "directions": 1,
    "iterations": 4,
    "apgd_iterations": 6,
    "epsilons": {"linf": 0.006, "l2": 0.03},
    "tight_tolerance": 1e-5,
    "rk4_steps": 4,
}


def residual():
    torch.manual_seed(3)
    model = Classifier(Spec(1, 4, (0.4,), (0.3,), "convolution", "residual", 8, blocks=2)).eval()
    with torch.no_grad():
        model.head.linear.bias -= model(random_images(16)).mean(0)
    return model.requires_grad_(False)


def audit(model, x, y, batch_size=100, **options):
    rows = range(10, 10 + len(x))
    return audit_network(model, x, y, rows, SETTINGS, seed=1, batch_size=batch_size, **options)


def some_wrong(model, x):
    labels = predicted(model, x)
    labels[2] = (labels[2] + 1) % 4
    return labels


def test_what_is_found_stands_where_the_image_does():
    model, x = small_ode().at(tolerance=0.1), random_images(8)
    y = some_wrong(model, x)
    found = audit(model, x, y)
    assert found.correct.tolist() == [image != 2 for image in range(8)]
    assert list(found.norms) == ["linf", "l2"]
    for norm, epsilon in SETTINGS["epsilons"].items():
        own = found.norms[norm]
        method = BasicIterativeMethod(Norm(norm), epsilon, epsilon / 4, 4)
        papers = attack(model.at(gradient="adjoint"), x, y, method)
        assert torch.equal(own.paths["paper"].success, papers.success)
        direct = attack(model, x, y, method)
        assert torch.equal(own.checks.iterations_success, direct.success)
        for path, iterates in (("paper", 5), ("apgd", 7)):
            loss = own.paths[path].loss
            assert loss.shape == (8, iterates)
            assert torch.equal(loss[:, 0].isnan(), ~found.correct)
        assert not own.paths["apgd"].success[2]
        assert own.paper_cosine[2].isnan()
        assert torch.equal(own.held.adversarial, own.paths["apgd"].success)
        assert not (own.held.survives & ~own.held.adversarial).any()
        assert torch.equal(own.held.change.isnan(), ~own.held.adversarial)
        # Of the first three correct ones the loss was differenced.
        known = torch.tensor([True, True, False, True, False, False, False, False])
        assert own.apgd_slope_error[~known].isnan().all()
        assert own.apgd_slope_error[known].isfinite().any()
    assert found.norms["linf"].paths["apgd"].success.any()
    assert found.gradients.cosine.shape == (8, 4, 4)
    assert found.gradients.finite_difference.shape == (3, 5)
    assert found.large_epsilon_success.sum() == 7


def test_batches_change_nothing():
    model, x = small_ode().at(tolerance=0.1), random_images(5)
    y, done = some_wrong(model, x), []
    whole, parts = audit(model, x, y), audit(model, x, y, batch_size=3, progress=done.append)
    assert sum(done) == 5
    for norm in SETTINGS["epsilons"]:
        for path in ("paper", "apgd"):
            one, other = whole.norms[norm].paths[path], parts.norms[norm].paths[path]
            assert torch.equal(one.success, other.success)
            torch.testing.assert_close(one.loss, other.loss, equal_nan=True)


def test_a_model_without_an_ode_has_one_gradient_and_no_steps():
    model, x = residual(), random_images(6)
    found = audit(model, x, predicted(model, x))
    assert list(found.sources) == ["direct"]
    for own in found.norms.values():
        assert own.held is None
        known = ~own.paper_cosine.isnan()
        torch.testing.assert_close(own.paper_cosine[known], torch.ones(int(known.sum())))


@pytest.mark.parametrize("count", [1, 4])
def test_no_image_that_is_classified_correctly(count):
    model, x = small_ode().at(tolerance=0.1), random_images(count)
    found = audit(model, x, (predicted(model, x) + 1) % 4)
    assert not found.correct.any()
    for own in found.norms.values():
        assert not own.paths["apgd"].success.any()
        assert own.paths["paper"].loss.isnan().all()
        assert own.paper_cosine.isnan().all()
        assert not own.held.adversarial.any()


def test_solves_that_all_fail():
    model, x = small_ode().at(tolerance=1e-6, max_steps=1), random_images(3)
    found = audit(model, x, torch.zeros(3, dtype=torch.int64))
    assert not found.correct.any()
    assert found.neighbours.variation.isnan().all()


def test_one_image():
    model, x = small_ode().at(tolerance=0.1), random_images(1)
    found = audit(model, x, predicted(model, x))
    assert found.correct.tolist() == [True]
    assert found.norms["linf"].paths["paper"].loss.shape == (1, 5)
