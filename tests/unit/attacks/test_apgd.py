"""Auto-PGD against torchattacks' and against closed forms."""

import pytest
import torch
import torchattacks

from node_robustness.attacks.apgd import AutoPGD, checkpoints, dlr, targeted_dlr
from node_robustness.attacks.descent import cross_entropy
from node_robustness.attacks.logits import likely_targets, margin
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from victims import Constant, Linear, Watched, digits, distances, grey_images, predicted

pytestmark = pytest.mark.numerical

THEIR_NORM = {"linf": "Linf", "l2": "L2"}
# Where some digits stand and others fall.
EPSILON = {"linf": 0.09, "l2": 0.5}


class TheirDraws(Streams):
    """What torchattacks draws for an image that is attacked by itself after the seed 0."""

    @classmethod
    def for_each(cls, images):
        return cls([torch.Generator().manual_seed(0) for _ in images])

    def __getitem__(self, images):
        return TheirDraws([self._generators[image] for image in images.tolist()])

    def uniform(self, shape, like):
        return torch.cat([torch.rand(1, *shape, generator=each) for each in self._generators])

    def normal(self, shape, like):
        return torch.cat([torch.randn(1, *shape, generator=each) for each in self._generators])


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_is_torchattacks_attack_image_by_image(norm, loss):
    model, x, y = digits()
    x, y = x[:6], y[:6]
    theirs = torchattacks.APGD(model, THEIR_NORM[norm], EPSILON[norm], steps=100, loss=loss)
    broken, best = [], []
    for image in range(len(x)):
        torch.manual_seed(0)
        one = slice(image, image + 1)
        _, stands, loss_reached, _ = theirs.attack_single_run(x[one], y[one])
        broken.append(not bool(stands))
        best.append(loss_reached)
    ours = AutoPGD(Norm(norm), EPSILON[norm], loss, 100)
    found = ours.search(model, x, y, TheirDraws.for_each(x))
    assert found.success.tolist() == broken
    assert any(broken)
    assert not all(broken)
    watched, stands = Watched(model), ~found.success
    ours.search(watched, x[stands], y[stands], TheirDraws.for_each(x[stands]))
    losses = {"ce": cross_entropy, "dlr": dlr}[loss]
    reached = torch.stack([losses(model(seen), y[stands]) for seen in watched.seen]).amax(0)
    torch.testing.assert_close(reached, torch.cat(best)[stands], atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_is_torchattacks_targeted_attack_image_by_image(norm):
    model, x, y = digits()
    x, y, epsilon = x[:8], y[:8], EPSILON[norm]
    theirs = torchattacks.APGDT(model, THEIR_NORM[norm], epsilon, steps=30, n_classes=4)
    ours = AutoPGD(Norm(norm), epsilon, "dlr", 30, targets=3)
    found = ours.search(model, x, y, TheirDraws.for_each(x))
    adversarials = torch.cat([theirs(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])
    broken = predicted(model, adversarials) != y
    assert torch.equal(found.success, broken)
    assert bool(broken.any())
    assert not bool(broken.all())


@pytest.mark.parametrize("norm", ["linf", "l2", "l2_rms"])
def test_is_as_strong_as_plain_projected_gradient_descent(norm):
    model, x, y = digits()
    broken = {"pgd": 0, "apgd": 0}
    for share in (0.8, 1.2):
        epsilon = share * EPSILON.get(norm, 0.5 / 8)
        pgd = ProjectedGradientDescent(Norm(norm), epsilon, epsilon / 10, 40)
        how = AutoPGD(Norm(norm), epsilon, "dlr", 40, targets=3)
        for name, method in (("pgd", pgd), ("apgd", how)):
            success = method.search(model, x, y, Streams.of(0, range(len(x)))).success
            assert bool(success.any())
            assert not bool(success.all())
            broken[name] += success.sum().item()
    assert broken["apgd"] >= broken["pgd"]


@pytest.mark.parametrize("norm", ["linf", "l2", "l2_rms"])
@pytest.mark.parametrize(
    ("classes", "loss", "targets"), [(2, "ce", None), (2, "dlr", None), (4, "dlr", 9)]
)
def test_succeeds_from_the_closed_form_distance_on(norm, classes, loss, targets):
    model, x = Linear(classes), grey_images(4)
    y, nearest = predicted(model, x), distances(model, x, norm)
    for image in range(len(x)):
        for share, breaks in ((1.005, True), (0.999, False)):
            how = AutoPGD(Norm(norm), share * nearest[image].item(), loss, 40, targets=targets)
            one = slice(image, image + 1)
            found = how.search(model, x[one], y[one], Streams.of(0, [image]))
            assert found.success.tolist() == [breaks]


def test_an_image_that_stands_keeps_its_best_iterate_not_the_last():
    inner, x, y = digits()
    model = Watched(inner)
    how = AutoPGD(Norm("linf"), 0.05, "ce", 30, restarts=2)
    stands = int((~how.search(model, x, y, Streams.of(0, range(24))).success).nonzero()[0])
    model.seen.clear()
    one = slice(stands, stands + 1)
    found = how.search(model, x[one], y[one], Streams.of(0, [stands]))
    seen = torch.cat(model.seen)
    margins = margin(inner(seen), y[one].expand(len(seen)))
    assert margins.argmax() < len(seen) - 1
    assert torch.equal(found.adversarials[0], seen[margins.argmax()])
    assert found.iterations.tolist() == [60]
    assert len(seen) == 62


def test_gradients_are_asked_for_at_every_iterate_but_the_last():
    model = Watched(Constant())
    x, y = grey_images(2), torch.zeros(2, dtype=torch.int64)
    AutoPGD(Norm("linf"), 0.1, "ce", 4).search(model, x, y, Streams.of(0, range(2)))
    assert model.with_gradient == [True] * 4 + [False]


def test_restarts_begin_elsewhere_and_only_what_still_stands():
    model, x = Watched(Constant()), grey_images(2)
    y = torch.zeros(2, dtype=torch.int64)
    AutoPGD(Norm("linf"), 0.1, "ce", 1, restarts=2).search(model, x, y, Streams.of(0, range(2)))
    first, _, second, _ = model.seen
    assert bool((first != second).flatten(1).any(1).all())


def test_the_step_is_looked_at_when_the_paper_says():
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert sorted(checkpoints(10)) == [3, 5, 6, 7, 8, 9, 10]
    assert sorted(checkpoints(1)) == [1]


def test_dlr_is_torchattacks_and_has_a_sense_with_few_classes():
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, targets = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 2, 3, 4, 0, 2])
    model = torch.nn.Identity()
    theirs = torchattacks.APGD(model).dlr_loss(logits, labels)
    torch.testing.assert_close(dlr(logits, labels), theirs)
    theirs = torchattacks.APGDT(model).dlr_loss_targeted(logits, labels, targets)
    torch.testing.assert_close(targeted_dlr(logits, labels, targets), theirs)
    three = torch.tensor([[3.0, 2.0, -1.0]])
    zero, one = torch.tensor([0]), torch.tensor([1])
    torch.testing.assert_close(dlr(three, zero), torch.tensor([-1 / 4]))
    torch.testing.assert_close(targeted_dlr(three, zero, one), torch.tensor([-1 / 4]))
    two = three[:, :2]
    torch.testing.assert_close(dlr(two, zero), torch.tensor([-1.0]))
    torch.testing.assert_close(targeted_dlr(two, zero, one), torch.tensor([-1.0]))


def test_targets_are_the_likely_classes():
    model, x = Linear(5), grey_images(6)
    y = predicted(model, x)
    targets = likely_targets(model, x, y, 9)
    order = model(x).argsort(1, descending=True)
    assert torch.equal(targets.T, order[:, 1:])
    assert torch.equal(likely_targets(model, x, y, 2), targets[:2])


def test_targets_need_the_dlr_loss():
    with pytest.raises(ValueError, match="targets needs the loss dlr"):
        AutoPGD(Norm("linf"), 0.1, "ce", targets=9)
