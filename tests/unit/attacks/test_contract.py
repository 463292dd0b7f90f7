"""What every attack method promises: of each in the registry the built-in attacks, made short.

A new method is among them by its `BUILT_IN`.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from node_robustness.attacks import square
from node_robustness.attacks.engine import attack
from node_robustness.attacks.make import make
from node_robustness.attacks.method import BoundsBatches
from node_robustness.config.loading import load
from node_robustness.config.methods import BUILT_IN, METHODS
from node_robustness.grid import attack_settings, cells
from node_robustness.models.predictions import NO_CLASS
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
    random_images,
)

# Without an ODE the kinds of gradient are one; and larger budgets say no more here than small ones.
SAME = ("bim_adjoint", "bim_surrogate", "pgd_surrogate", "apgd_surrogate", "apgd_surrogate_short")
SAME += ("apgd_t_short", "square")
ATTACKS = {name: keys for name, keys in BUILT_IN.items() if name not in SAME} | {
    "apgd_dlr": {"method": "apgd", "loss": "dlr"},
    "apgd_restarts": {"method": "apgd", "loss": "ce", "restarts": 2},
    "bim_worst": {"method": "bim", "relative_step": 0.25, "early_stop": False},
}
SETTINGS = {name: METHODS[keys["method"]].model_validate(keys) for name, keys in ATTACKS.items()}
# The library's Square attack in L2 needs images of five pixels a side: see test_torchattacks.py.
CELLS = [
    (name, norm)
    for name, known in SETTINGS.items()
    for norm in known.norms
    if name != "torchattacks_square" or norm == "linf"
]
# The paper's L2 is the usual one times a number: what does not concern sizes needs one of them.
ONE_L2 = [cell for cell in CELLS if cell[1] != "l2_rms"]
DESCENTS = ("fgsm", "bim", "pgd", "eot_pgd", "bisection", "transfer")
FIELDS = ["success", "adversarials", "adversarial_predictions", "iterations"]
LIBRARY = [name for name, known in SETTINGS.items() if known.method == "torchattacks"]
MINIMAL = [name for name, known in SETTINGS.items() if known.minimal]


def test_every_method_is_here():
    assert {known.method for known in SETTINGS.values()} == set(METHODS)


def method(name, norm, epsilon, iterations=10, source=None):
    """An attack with few iterations, as the workflow makes it for a model without an ODE."""
    keys = dict(ATTACKS[name])
    given = SETTINGS[name].model_dump()
    short = {"iterations": iterations, "targets": 2, "queries": 4 * iterations}
    short |= {"search_steps": 6, "learning_rate": 0.005}
    keys |= {key: value for key, value in short.items() if given.get(key) is not None}
    if name == "cw":
        keys["iterations"] = 2 * iterations
    if "parameters" in given:
        counts = {"steps": iterations, "n_queries": 4 * iterations}
        keys["parameters"] = {k: v for k, v in counts.items() if k in given["parameters"]}
    plain = {"downsampling": "residual", "body": "residual"}
    experiment = {"datasets": ["d"], "models": ["R", "S"], "tolerances": [1, 2]}
    config = load(
        {
            "experiments": {
                "e": experiment | {"attacks": ["a"], "norms": [norm], "epsilons": [epsilon]}
            },
            "datasets": {"d": {"source": "digits"}},
            "models": {"R": plain, "S": plain},
            "attacks": {"a": keys},
        }
    )
    known = attack_settings.attack_settings(config, next(cells.cells(config, "e")))
    return make(known, norm, epsilon, source if known["method"] == "transfer" else None)


@pytest.mark.parametrize(("name", "norm"), CELLS)
@pytest.mark.parametrize("classes", [2, 4])
def test_success_begins_at_the_distance_to_the_boundary(name, norm, classes):
    model, x = Linear(classes), grey_images(8)
    y, nearest = predicted(model, x), distances(model, x, norm)
    epsilon = nearest.median().item()
    found = attack(model, x, y, method(name, norm, epsilon, iterations=30, source=model))
    assert not bool(found.success[nearest > epsilon * (1 + 2e-6)].any())
    if name != "noise":
        # With more classes a loss may lead past the nearest boundary; squares are not precise.
        reach = 0.5 if classes > 2 or "square" in name else 1 / 1.2
        assert bool(found.success[nearest < reach * epsilon].all())
        assert bool(found.success.any())


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_what_an_attack_claims_is_what_the_model_says_of_the_image_that_it_returns(name, norm):
    model, x = Linear(4), grey_images(8)
    y = predicted(model, x)
    how = method(name, norm, distances(model, x, norm).median().item(), source=model)
    found = attack(model, x, y, how)
    assert torch.equal(found.adversarial_predictions, predicted(model, found.adversarials))
    inside = how.norm.size(found.adversarials - x) <= how.epsilon * (1 + 2e-6)
    # No success that is none, and none that is overlooked.
    assert torch.equal(found.success, (found.adversarial_predictions != y) & inside)


class Planted(nn.Module):
    """Two classes by a sum of pixels with signs like a chessboard's.

    The sign of its gradient is the same everywhere, and the threshold lies strictly between the
    sums that images in [0, 1] can have, so that whoever may change every pixel by one succeeds.
    """

    def __init__(self, x):
        super().__init__()
        signs = 1.0 - 2 * (torch.arange(x[0].numel()) % 2)
        self.weight = (signs / x[0].numel()).to(x.dtype)
        # Next to the median, so that no image lies on it, and pulled towards the middle.
        self.threshold = 0.99 * self._sum(x).median() + 1e-3

    def _sum(self, x):
        return (x.flatten(1) * self.weight).sum(1)

    def forward(self, x):
        margin = self._sum(x) - self.threshold
        return torch.stack([-margin, margin], dim=1)


@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name, norm in CELLS if SETTINGS[name].method != "noise"]
)
def test_a_planted_weak_model_is_broken(name, norm):
    x = random_images(6).to(torch.float64)
    x = torch.cat([x, torch.zeros_like(x[:1]), torch.ones_like(x[:1])])
    model = Planted(x)
    y = predicted(model, x)
    epsilon = x[0].numel() ** 0.5 if norm == "l2" else 1.0
    # Carlini and Wagner's changes of variables is slow where pixels are exactly 0 or 1.
    how = method(name, norm, epsilon, iterations=100 if name == "cw" else 10, source=model)
    assert bool(attack(model, x, y, how).success.all())


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_batches_order_and_shards_do_not_change_a_bit(name, norm):
    model, x = Linear(4), torch.cat([grey_images(4), edge_images(3)])
    y = predicted(model, x)
    y[2] = (y[2] + 1) % 4
    epsilon = distances(model, x, norm).median().item() * 1.2
    how = method(name, norm, epsilon, iterations=8, source=model)
    rows = [30, 2, 11, 7, 0, 9, 44]
    whole = attack(model, x, y, how, index=rows, seed=5)
    assert bool(whole.success.any()) or name == "noise"
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


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_an_image_that_is_skipped_is_left_as_it_is_and_the_others_fare_the_same(name, norm):
    model, x = Linear(4), grey_images(6)
    y = predicted(model, x)
    y[4] = (y[4] + 1) % 4
    epsilon = distances(model, x, norm).median().item() * 1.2
    how = method(name, norm, epsilon, iterations=6, source=model)
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


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_a_network_is_attacked_alike_in_every_batch(name, norm):
    model, x = network(torch.float64), edge_images(4, side=6)
    y = predicted(model, x)
    how = method(name, norm, 0.12, source=network(torch.float64, seed=1))
    whole, single = attack(model, x, y, how), attack(model, x, y, how, batch_size=1)
    for field in ("success", "adversarial_predictions", "iterations"):
        assert torch.equal(getattr(whole, field), getattr(single, field)), field
    # The matrix product of the last layer rounds by the number of its rows.
    torch.testing.assert_close(whole.adversarials, single.adversarials, rtol=0, atol=1e-9)


# Which pass first depends on what is drawn; before it apgd_t looks for likely targets.
DRAWN = {"pgd": 1, "eot_pgd": 1, "apgd_ce": 1, "apgd_t": 2, "square_short": 1, "noise": 1}


@pytest.mark.parametrize(("name", "norm"), [cell for cell in ONE_L2 if cell[0] in DRAWN])
def test_the_seed_and_the_row_decide_what_is_drawn(name, norm):
    model, x = Watched(Linear(4)), grey_images(2).mean(0, keepdim=True).expand(2, -1, -1, -1)
    y = predicted(model, x)

    def drawn(seed, rows):
        model.seen.clear()
        attack(model, x, y, method(name, norm, 1e-3, iterations=1), seed=seed, index=rows)
        return model.seen[DRAWN[name]]

    first = drawn(0, [4, 5])
    assert not torch.equal(first[0], first[1])
    assert torch.equal(drawn(0, [4, 5]), first)
    assert torch.equal(drawn(0, [5, 4]), first.flip(0))
    assert not torch.equal(drawn(1, [4, 5])[0], first[0])
    assert torch.equal(drawn(0, [3, 5])[1], first[1])


@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_a_constant_model_is_never_broken(name, norm):
    model, x = Watched(Constant()), torch.cat([grey_images(2), edge_images(3)])
    how = method(name, norm, 0.3, source=Constant())
    found = attack(model, x, torch.zeros(5, dtype=torch.int64), how)
    assert not bool(found.success.any())
    assert bool(torch.isfinite(found.adversarials).all())
    assert bool(((found.adversarials >= 0) & (found.adversarials <= 1)).all())
    assert found.adversarial_predictions.tolist() == [0] * 5


PASSES = {
    "apgd_ce": 11,
    "apgd_dlr": 11,
    "apgd_restarts": 2 * 11,
    "apgd_t": 1 + 2 * 11,
    "bim_direct": 11,
    "bim_worst": 11,
    "bisection": 11,  # what stands at the largest epsilon is done
    "cw": 6 * 3,  # stagnation shows at the second look
    "eot_pgd": 11,
    "fab_t": 1 + 2,  # nothing moves: one pass a target says so
    "fgsm": 2,
    "noise": 20,
    "pgd": 2 * 11,
    "square_short": 40,
}


@pytest.mark.parametrize(("name", "norm"), [cell for cell in ONE_L2 if cell[0] in PASSES])
def test_no_forward_pass_is_needless(name, norm, monkeypatch):
    monkeypatch.setattr(square, "_PIXELS", 0)  # a query is a pass
    model, x = Watched(Constant()), grey_images(3)
    labels = torch.zeros(3, dtype=torch.int64)
    method(name, norm, 0.3).search(model, x, labels, Streams.of(0, range(3)))
    assert [len(seen) for seen in model.seen] == [3] * PASSES[name]


# Passes besides the steps: the starts of runs, and the look for likely targets.
STARTS = {"apgd_ce": 1, "apgd_dlr": 1, "apgd_restarts": 2, "apgd_t": 3, "square_short": 0}
STARTS |= {"bim_direct": 1, "pgd": 2, "eot_pgd": 1}


@pytest.mark.parametrize(("name", "norm"), [cell for cell in ONE_L2 if cell[0] in STARTS])
def test_an_image_with_its_adversarial_example_leaves_the_batch(name, norm, monkeypatch):
    monkeypatch.setattr(square, "_PIXELS", 0)
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
    assert spent <= model.images <= spent + 8 * STARTS[name]


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), CELLS)
def test_the_record_agrees_with_a_fresh_look_at_the_images(name, norm):
    inner, x = Linear(3), grey_images(6)
    model, y = FailsFarOut(inner), predicted(inner, x)
    x[:, 0, 0, 0] = 0.2
    x[:2, 0, 0, 0] = 0.495
    y = predicted(inner, x)
    epsilon = distances(inner, x, norm).median().item()
    how = method(name, norm, max(epsilon, 0.02), iterations=20, source=inner)
    found = how.search(model, x, y, Streams.of(0, range(6)))
    with torch.no_grad():
        logits = model(found.adversarials)
    failed = ~torch.isfinite(logits).all(1)
    expected = torch.where(failed, NO_CLASS, logits.argmax(1))
    assert torch.equal(found.predictions, expected)
    assert torch.equal(found.nfe, model.nfe)
    assert torch.equal(found.success, expected != y)
    assert bool((how.norm.size(found.adversarials - x) <= how.epsilon * (1 + 1e-6)).all())


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_failed_solves_count_as_adversarial_and_disturb_no_other_image(name, norm):
    x, y = grey_images(5), torch.zeros(5, dtype=torch.int64)
    x[:, 0, 0, 0] = torch.tensor([0.499, 0.1, 0.1, 0.499, 0.1])
    model, how = FailsFarOut(Steady()), method(name, norm, 0.05, iterations=20, source=Steady())
    found = how.search(model, x, y, Streams.of(3, range(5)))
    assert not bool(found.success[[1, 2, 4]].any())
    assert bool(torch.isfinite(found.adversarials).all())
    assert found.predictions.tolist() == [NO_CLASS if hit else 0 for hit in found.success]
    alone = torch.tensor([1, 2, 4])
    others = how.search(model, x[alone], y[alone], Streams.of(3, alone.tolist()))
    assert torch.equal(found.adversarials[alone], others.adversarials)
    # With c too small cw stays away; the library does not see that a solve failed.
    if name not in ("cw", "torchattacks_apgd", "torchattacks_square"):
        assert bool(found.success[[0, 3]].all())


@pytest.mark.numerical
@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_a_gradient_that_is_not_finite_stops_no_other_image(name, norm):
    inner, x = Linear(3), grey_images(5)
    x[[1, 3], 0, 0, 0] = 0.0
    y = predicted(inner, x)
    epsilon = distances(inner, x, norm).max().item() * 2
    model, how = NoGradientAtZero(inner), method(name, norm, epsilon, iterations=30, source=inner)
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
    how = method(*cell, epsilon, iterations=4, source=model)
    found = attack(model, x, y, how, seed=seed)
    assert torch.equal(x, before)
    assert found.adversarials.dtype == dtype
    assert bool(((found.adversarials >= 0) & (found.adversarials <= 1)).all())
    # A step of a plain descent rounds in the units of the pixels.
    absolute = 1e-6 if dtype == torch.float32 else 1e-12
    slack = absolute if SETTINGS[cell[0]].method in DESCENTS else 1e-6 * epsilon
    assert bool((how.norm.size(found.adversarials - x) <= epsilon + slack).all())
    assert bool((found.adversarial_predictions[found.success] != y[found.success]).all())
    assert bool((found.adversarial_predictions[~found.success] == y[~found.success]).all())


@pytest.mark.parametrize(
    ("name", "norm"), [cell for cell in CELLS if cell[0] in MINIMAL and cell[0] not in LIBRARY]
)
def test_finds_nearly_the_smallest_perturbation(name, norm):
    model, x = Linear(2), grey_images(4)
    y, nearest = predicted(model, x), distances(model, x, norm)
    how = method(name, norm, 3 * nearest.max().item(), iterations=100)
    found = attack(model, x, y, how)
    assert bool(found.success.all())
    sizes = how.norm.size(found.adversarials - x)
    assert bool((sizes >= nearest * (1 - 1e-6)).all())
    assert bool((sizes <= 1.1 * nearest).all()), sizes / nearest


@pytest.mark.parametrize(("name", "norm"), ONE_L2)
def test_progress_within_a_batch_and_not_beyond_its_end(name, norm):
    # Bisection and FAB are soon done with a model that they cannot break, the others never are.
    soon = name in ("bisection", "fab_t")
    model, source = (network(torch.float64), None) if soon else (Steady(), Steady())
    x = edge_images(12, side=6)
    y = predicted(model, x)
    how = method(name, norm, 0.1, source=source)
    counts, passes = [], []
    for asked in filter(None, [model, source if name == "transfer" else None]):
        asked.register_forward_hook(lambda *_: passes.append(sum(counts)))
    expected = attack(model, x, y, how)
    made = len(passes)
    if not isinstance(how, BoundsBatches):
        assert made <= 1 + how.passes
        if not soon and name not in ("apgd_t", "cw"):
            assert made >= how.passes
    found = attack(model, x, y, how, batch_size=len(x), progress=counts.append)
    assert torch.equal(found.adversarials, expected.adversarials)
    assert sum(counts) == len(x)
    # Reported while the passes are made, not all at once at the end.
    seen = passes[made:]
    assert len(seen) == made
    if made > len(x):
        assert seen[-1] > 0
        assert max(counts[:-1]) == 1
