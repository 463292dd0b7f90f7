"""What Auto-PGD, Square, FAB and Carlini-Wagner promise alike."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.cw import CarliniWagner
from node_robustness.attacks.engine import attack
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.square import Square
from node_robustness.models.predictions import NO_CLASS
from node_robustness.perturbations.norms import Norm
from node_robustness.perturbations.streams import Streams
from rounding import rows_round_alike
from victims import (
    Constant,
    FailsFarOut,
    Linear,
    NoGradientAtZero,
    Steady,
    Watched,
    distances,
    edge_images,
    grey_images,
    predicted,
)

pytestmark = pytest.mark.numerical

NORMS = ["linf", "l2", "l2_rms"]
NAMES = ["apgd-ce", "apgd-dlr", "apgd-t", "square", "fab", "cw"]
CELLS = [(name, norm) for name in NAMES for norm in NORMS if (name, norm) != ("cw", "linf")]
FIELDS = ["success", "adversarials", "adversarial_predictions", "iterations"]


def method(name, norm, epsilon, iterations=10):
    """An attack with few iterations, of either kind."""
    norm = Norm(norm)
    return {
        "apgd-ce": AutoPGD(norm, epsilon, "ce", iterations, restarts=2),
        "apgd-dlr": AutoPGD(norm, epsilon, "dlr", iterations),
        "apgd-t": AutoPGD(norm, epsilon, "dlr", iterations, targets=2),
        "square": Square(norm, epsilon, queries=4 * iterations),
        "fab": FAB(norm, epsilon, iterations, targets=2),
        "cw": None
        if norm.name == "linf"
        else CarliniWagner(norm, epsilon, 2 * iterations, 6, 0.005),
    }[name]


@pytest.mark.parametrize(("name", "norm"), CELLS)
@pytest.mark.parametrize("classes", [2, 4])
def test_an_adversarial_is_found_only_beyond_the_distance_to_the_boundary(name, norm, classes):
    model, x = Linear(classes), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, norm)
    epsilon = nearest.median().item()
    found = attack(model, x, y, method(name, norm, epsilon, iterations=30))
    assert not bool(found.success[nearest > epsilon * (1 + 2e-6)].any())
    assert bool(found.success[nearest < 0.5 * epsilon].all())
    assert bool(found.success.any())


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_batches_order_and_shards_do_not_change_a_bit(name, norm):
    model, x = Linear(4), torch.cat([grey_images(4), edge_images(3)])
    y = predicted(model, x)
    y[2] = (y[2] + 1) % 4
    epsilon = distances(model, x, norm).median().item() * 1.2
    how = method(name, norm, epsilon, iterations=8)
    rows = [30, 2, 11, 7, 0, 9, 44]
    whole = attack(model, x, y, how, index=rows, seed=5)
    assert bool(whole.success.any())
    assert not bool(whole.success[whole.attacked].all())
    order = torch.tensor([3, 5, 0, 2, 4, 1, 6])
    mixed = [rows[image] for image in order]
    others = [
        (torch.arange(7), attack(model, x, y, how, index=rows, seed=5, batch_size=1)),
        (order, attack(model, x[order], y[order], how, index=mixed, seed=5, batch_size=3)),
        (torch.arange(2, 5), attack(model, x[2:5], y[2:5], how, index=rows[2:5], seed=5)),
    ]
    exact = rows_round_alike()
    for images, other in others:
        for field in FIELDS:
            given, expected = getattr(other, field), getattr(whole, field)[images]
            if exact or not expected.is_floating_point():
                assert torch.equal(given, expected), field
            else:
                torch.testing.assert_close(given, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_an_image_that_is_skipped_is_left_as_it_is_and_the_others_fare_the_same(name, norm):
    model, x = Linear(4), grey_images(6)
    y = predicted(model, x)
    y[4] = (y[4] + 1) % 4
    how = method(name, norm, distances(model, x, norm).median().item() * 1.2, iterations=6)
    skip = torch.tensor([True, False, False, True, True, False])
    whole = attack(model, x, y, how, seed=5)
    found = attack(model, x, y, how, seed=5, skip=skip, batch_size=4)
    assert found.skipped.tolist() == [True, False, False, True, False, False]
    assert torch.equal(found.attacked | found.skipped, whole.attacked)
    assert not bool((found.attacked & found.skipped).any())
    assert not bool(whole.skipped.any())
    assert not bool(found.success[skip].any())
    assert torch.equal(found.adversarials[skip], x[skip])
    assert torch.equal(found.adversarial_predictions[skip], found.clean_predictions[skip])
    for field in FIELDS:
        assert torch.equal(getattr(found, field)[~skip], getattr(whole, field)[~skip]), field


def network(dtype, seed=0, classes=4, side=6):
    """A random classifier of some depth."""
    torch.manual_seed(seed)
    after = 4 * (side - 2) ** 2
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(after, classes))
    return model.to(dtype)


@pytest.mark.parametrize(("name", "norm"), [cell for cell in CELLS if cell[1] != "l2_rms"])
def test_a_network_is_attacked_alike_in_every_batch(name, norm):
    model, x = network(torch.float64), edge_images(4, side=6)
    y = predicted(model, x)
    how = method(name, norm, 0.12)
    whole, single = attack(model, x, y, how), attack(model, x, y, how, batch_size=1)
    for field in ("success", "adversarial_predictions", "iterations"):
        assert torch.equal(getattr(whole, field), getattr(single, field)), field
    # The matrix product of the last layer rounds by the number of its rows.
    torch.testing.assert_close(whole.adversarials, single.adversarials, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "norm"), [cell for cell in CELLS if "apgd" in cell[0]])
def test_seed_and_row_decide_where_an_image_starts(name, norm):
    model, x = Watched(Linear(4)), grey_images(2)
    y = predicted(model, x)

    def starts(seed, index):
        model.seen.clear()
        attack(model, x, y, method(name, norm, 1e-3, iterations=1), seed=seed, index=index)
        return model.seen[2 if name == "apgd-t" else 1]

    assert torch.equal(starts(0, [4, 5]), starts(0, [4, 5]))
    assert not torch.equal(starts(0, [4, 5])[0], starts(1, [4, 5])[0])
    assert not torch.equal(starts(0, [4, 5])[0], starts(0, [3, 5])[0])
    assert torch.equal(starts(0, [4, 5])[1], starts(0, [3, 5])[1])


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_a_constant_model_is_never_broken(name, norm):
    model, x = Watched(Constant()), torch.cat([grey_images(2), edge_images(3)])
    found = attack(model, x, torch.zeros(5, dtype=torch.int64), method(name, norm, 0.3))
    assert not bool(found.success.any())
    assert bool(torch.isfinite(found.adversarials).all())
    assert bool(((found.adversarials >= 0) & (found.adversarials <= 1)).all())
    assert found.adversarial_predictions.tolist() == [0] * 5


PASSES = {
    "apgd-ce": 2 * 11,
    "apgd-dlr": 11,
    "apgd-t": 1 + 2 * 11,
    "square": 40,
    "fab": 1 + 2,  # nothing moves: one pass a target says so
    "cw": 6 * 3,  # stagnation shows at the second look
}


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_no_forward_pass_is_needless(name, norm):
    model, x = Watched(Constant()), grey_images(3)
    labels = torch.zeros(3, dtype=torch.int64)
    method(name, norm, 0.3).search(model, x, labels, Streams.of(0, range(3)))
    assert [len(seen) for seen in model.seen] == [3] * PASSES[name]


@pytest.mark.parametrize(("name", "norm"), [cell for cell in CELLS if cell[0] not in ("fab", "cw")])
def test_an_image_with_its_adversarial_leaves_the_batch(name, norm):
    inner, x = Linear(4), grey_images(8)
    model, y = Watched(inner), predicted(inner, x)
    epsilon = distances(inner, x, norm).median().item() * 1.3
    found = method(name, norm, epsilon).search(model, x, y, Streams.of(0, range(8)))
    assert bool(found.success.any())
    assert not bool(found.success.all())
    sizes = [len(seen) for seen in model.seen]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == (~found.success).sum()
    spent = found.iterations.sum().item()
    # Besides the steps, there are the starts of runs and the look for likely targets.
    extra = {"square": 0, "apgd-dlr": 8, "apgd-ce": 16, "apgd-t": 24}[name]
    assert spent <= model.images <= spent + extra


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_the_record_agrees_with_a_fresh_look_at_the_images(name, norm):
    inner, x = Linear(3), grey_images(6)
    model, y = FailsFarOut(inner), predicted(inner, x)
    x[:, 0, 0, 0] = 0.2
    x[:2, 0, 0, 0] = 0.495
    y = predicted(inner, x)
    epsilon = distances(inner, x, norm).median().item()
    how = method(name, norm, max(epsilon, 0.02), iterations=20)
    found = how.search(model, x, y, Streams.of(0, range(6)))
    with torch.no_grad():
        logits = model(found.adversarials)
    failed = ~torch.isfinite(logits).all(1)
    expected = torch.where(failed, NO_CLASS, logits.argmax(1))
    assert torch.equal(found.predictions, expected)
    assert torch.equal(found.nfe, model.nfe)
    assert torch.equal(found.success, expected != y)
    assert bool((how.norm.size(found.adversarials - x) <= how.epsilon * (1 + 1e-6)).all())


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_failed_solves_count_as_adversarial_and_disturb_no_other_image(name, norm):
    x, y = grey_images(5), torch.zeros(5, dtype=torch.int64)
    x[:, 0, 0, 0] = torch.tensor([0.499, 0.1, 0.1, 0.499, 0.1])
    model, how = FailsFarOut(Steady()), method(name, norm, 0.05, iterations=20)
    found = how.search(model, x, y, Streams.of(3, range(5)))
    assert not bool(found.success[[1, 2, 4]].any())
    assert bool(torch.isfinite(found.adversarials).all())
    assert found.predictions.tolist() == [NO_CLASS if hit else 0 for hit in found.success]
    alone = torch.tensor([1, 2, 4])
    others = how.search(model, x[alone], y[alone], Streams.of(3, alone.tolist()))
    assert torch.equal(found.adversarials[alone], others.adversarials)
    assert bool(found.success[[0, 3]].all()) or name == "cw"  # with c too small it stays away


@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_a_gradient_that_is_not_finite_stops_no_other_image(name, norm):
    inner, x = Linear(3), grey_images(5)
    x[[1, 3], 0, 0, 0] = 0.0
    y = predicted(inner, x)
    epsilon = distances(inner, x, norm).max().item() * 2
    model, how = NoGradientAtZero(inner), method(name, norm, epsilon, iterations=30)
    found = how.search(model, x, y, Streams.of(0, range(5)))
    assert bool(torch.isfinite(found.adversarials).all())
    assert bool(found.success[[0, 2, 4]].all())


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(CELLS),
    st.floats(1e-4, 1),
    st.integers(2, 5),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 1000),
)
def test_every_adversarial_lies_in_the_ball_and_is_an_image(cell, epsilon, classes, dtype, seed):
    model, x = network(dtype, seed, classes), edge_images(4, side=6, dtype=dtype)
    before, y = x.clone(), predicted(model, x)
    how = method(*cell, epsilon, iterations=4)
    found = attack(model, x, y, how, seed=seed)
    assert torch.equal(x, before)
    assert found.adversarials.dtype == dtype
    assert bool(((found.adversarials >= 0) & (found.adversarials <= 1)).all())
    assert bool((how.norm.size(found.adversarials - x) <= epsilon * (1 + 1e-6)).all())
    assert bool((found.adversarial_predictions[found.success] != y[found.success]).all())
    assert bool((found.adversarial_predictions[~found.success] == y[~found.success]).all())
