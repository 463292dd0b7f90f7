"""Claim 3 on drawn shares and patches of which the truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from node_robustness.statistics import paired, proportions, ratios
from node_robustness.tables.shares import share_table
from node_robustness.verdict import dynamics, followed
from node_robustness.verdict.followed import Followed, Window, windows
from node_robustness.verdict.patches import patched
from node_robustness.verdict.verdicts import LEVEL
from samples import cell, shares_of, write_trajectory

PARTS, IMAGES = 10, 60
PATCHED = tuple(Window(a, b) for a in range(PARTS) for b in range(a + 1, PARTS + 1))
EVERY = {"strong": 1.0, "noise": 0.2, "swapped": 0.5}
"""The losses of the perturbations, relative to each other."""


def fractions(start, at=None, inside=0.0):
    """What h(0) has, what a window has, and the rest spread over the other parts."""
    found = np.zeros(1 + PARTS)
    found[0] = start
    first, stop = (0, 0) if at is None else at
    found[1 + first : 1 + stop] = inside / max(stop - first, 1)
    others = np.setdiff1d(np.arange(PARTS), np.arange(first, stop)) + 1
    found[others] = (1 - start - inside) / len(others)
    return found


SPREAD = fractions(0.2)


def network(random, of, n=IMAGES, control=SPREAD, repaired=None, inserted=None, noise=0.1, **where):
    """A network whose shares are in these fractions, with some noise and skewed losses."""
    shares, losses = {}, {}
    for name, size in EVERY.items():
        loss = size * random.gamma(4, 1, n)
        own = random.normal(0, noise, (n, 1 + PARTS))
        # Shares sum to the loss, if these fractions sum to one.
        own += (of if name == "strong" else control) - own.mean(1, keepdims=True)
        shares[name], losses[name] = loss[:, None] * own, loss
    outcomes = [
        random.random((n, len(PATCHED))) < (0.0 if rate is None else rate)
        for rate in (repaired, inserted)
    ]
    return Followed(
        cell(**where),
        np.linspace(0, 1, PARTS + 1),
        np.ones(n, bool),
        shares,
        losses,
        PATCHED,
        *(outcome.astype(np.int8) for outcome in outcomes),
    )


def claimed(*networks):
    (row,) = dynamics.dynamics_table(networks, {}).to_dict("records")
    return row


def test_windows_are_at_most_a_third():
    assert [len(windows(k)) for k in (1, 2, 3, 6, 10)] == [1, 2, 3, 11, 27]
    assert windows(6)[:2] == [(0, 1), (1, 2)]
    assert windows(6)[-1] == (4, 6)


def test_damage_in_a_window_is_pinpointed_there():
    found = claimed(network(np.random.default_rng(0), fractions(0.1, (4, 6), 0.75)))
    assert (found["claim"], found["because"]) == ("pinpointed", "pinpointed")
    assert (found["from"], found["to"]) == pytest.approx((0.4, 0.6))
    assert found["share"] == pytest.approx(0.75, abs=0.06)
    assert found["share_low"] > 0.5
    assert found["most"] > 0.85
    assert (found["particular"], found["level"]) == (1, "this network")
    assert found["start_share"] == pytest.approx(0.1, abs=0.05)
    assert (found["noise_start"], found["swapped_start"]) == pytest.approx((0.2, 0.2), abs=0.05)
    assert "t = 0.4 to 0.6" in found["reason"]


def test_damage_before_the_body():
    random = np.random.default_rng(1)
    found = claimed(network(random, fractions(0.8)))
    assert (found["claim"], found["particular"]) == ("before", 1)
    assert np.isnan([found["from"], found["to"]]).all()
    assert found["share"] == found["start_share"] == pytest.approx(0.8, abs=0.05)
    # Where noise has as much of its loss there, it is nothing particular.
    assert claimed(network(random, fractions(0.8), control=fractions(0.8)))["particular"] == 0


def test_damage_that_is_spread():
    found = claimed(network(np.random.default_rng(2), SPREAD))
    assert (found["claim"], found["start_high"] < 0.5) == ("spread", True)
    assert found["share"] == found["largest_share"] < 0.4
    assert math.isnan(found["particular"])
    # Simultaneous over h(0) and all windows: wider than an interval of one.
    assert found["share_high"] - found["share"] > found["start_high"] - found["start_share"]


def test_networks_may_be_followed_on_other_images():
    """As under an attack that leaves out images which cheaper ones broke."""
    random = np.random.default_rng(9)
    found = claimed(
        network(random, fractions(0.8), n=60), network(random, fractions(0.8), n=43, seed=1)
    )
    assert (found["claim"], found["n"]) == ("before", 43)


def test_every_network_has_to_show_it():
    random = np.random.default_rng(3)
    same = [network(random, fractions(0.8), seed=seed) for seed in range(3)]
    found = claimed(*same)
    assert (found["claim"], found["networks"], found["level"]) == ("before", 3, "these 3 networks")
    other = network(random, SPREAD, seed=3)
    found = claimed(*same, other)
    assert (found["claim"], found["because"]) == ("undecided", "networks")
    assert "3 before and 1 spread" in found["reason"]
    found = claimed(*same, network(random, fractions(0.5), seed=3))
    assert found["claim"] == "undecided"


def test_the_window_is_that_of_all_networks():
    random = np.random.default_rng(4)
    here, there = fractions(0.1, (2, 3), 0.8), fractions(0.1, (7, 8), 0.8)
    found = claimed(network(random, here), network(random, there, seed=1))
    assert found["claim"] == "undecided"


def test_too_few_images_and_a_margin():
    random = np.random.default_rng(5)
    found = claimed(network(random, fractions(0.9), n=5))
    assert (found["claim"], found["because"], found["n"]) == ("undecided", "images", 5)
    assert claimed(network(random, fractions(0.9), n=6))["claim"] == "before"
    found = claimed(network(random, fractions(0.5, (3, 4), 0.5), noise=0.2))
    assert (found["claim"], found["because"]) == ("undecided", "margin")


@pytest.mark.parametrize(
    ("of", "plain"),
    [(0.75, "before"), (0.35, "spread"), ((4, 6), "pinpointed")],
    ids=["before", "spread", "pinpointed"],
)
def test_shares_that_do_not_sum_to_the_loss_decide_nothing(of, plain):
    """A third of the loss, too much or too little, may be of the player that the claim is about."""
    random = np.random.default_rng(9)
    whole = fractions(of) if isinstance(of, float) else fractions(0.1, of, 0.75)
    assert claimed(network(random, whole, noise=0.02))["claim"] == plain
    left = whole.copy()
    if plain == "spread":
        left[-4:] -= 0.08
    else:
        left[-4:] += 0.08
    found = claimed(network(random, left, noise=0.02))
    assert (found["claim"], found["because"]) == ("undecided", "incomplete")
    assert f"closely enough to say {plain}" in found["reason"]


@pytest.mark.parametrize("success", [[], [False] * 3, [True]], ids=["no image", "none", "one"])
def test_without_adversarial_examples_nothing_is_claimed(success, tmp_path):
    paths = [write_trajectory(tmp_path, cell(tolerance=tau), success) for tau in (0.1, 1.0)]
    table = dynamics.dynamics_table(followed.read_followed(paths), {})
    assert table.claim.tolist() == ["undecided"] * 2
    assert set(table.because) == {"margin" if any(success) else "no_adversarial"}
    assert (table.patch == "undecided").all()
    assert dynamics.dynamics_table([], {}).empty


def test_files_and_drawn_networks_say_the_same(tmp_path):
    arrays = shares_of([True] * 40)
    changes = {name.replace("/", "__"): values for name, values in arrays.items()}
    path = write_trajectory(tmp_path, cell(), [True] * 40, **changes)
    (item,) = followed.read_followed([path])
    own, loss = item.of(Window(2, 3), "strong", "second")
    found = claimed(item)
    assert (found["claim"], found["from"], found["to"]) == ("pinpointed", 0.5, 0.75)
    assert found["share"] == pytest.approx(ratios.fraction(own, loss).value)
    # Patches decide where they have the whole third quarter of t.
    assert (found["patch"], found["patch_from"], found["patch_to"]) == ("both", 0.5, 0.75)
    assert (found["patch_ties"], found["repair_others"], found["special"]) == (0, 0, 1)


def test_images_whose_solve_failed_do_not_count(tmp_path):
    arrays = shares_of([True] * 20)
    for name in ("start", "parts", "loss", "error"):
        arrays[f"shares/strong/{name}"][:13] = np.nan
    changes = {name.replace("/", "__"): values for name, values in arrays.items()}
    path = write_trajectory(tmp_path, cell(), [True] * 20, **changes)
    assert claimed(*followed.read_followed([path]))["n"] == 7
    counts = share_table([path]).groupby("perturbation").n.unique()
    assert {name: list(n) for name, n in counts.items()} == {
        "strong": [7],
        "noise": [20],
        "swapped": [20],
    }


def rates(inside, outside, at=(4, 5)):
    """How often the repair of a window works: if it has a place, or not."""
    return np.array([inside if w.first <= at[0] and w.stop >= at[1] else outside for w in PATCHED])


@pytest.mark.parametrize(
    ("repaired", "inserted", "said"),
    [
        (0.9, 0.1, "necessary"),
        (0.9, 0.9, "both"),
        (0.1, 0.1, "neither"),
        (0.5, 0.4, "undecided"),
    ],
)
def test_what_patches_show(repaired, inserted, said):
    random = np.random.default_rng(6)
    own = network(
        random,
        SPREAD,
        n=200,
        repaired=rates(repaired, 0.05),
        inserted=rates(inserted, 0.05),
    )
    found = claimed(own)
    assert found["patch"] == said
    if repaired > 0.5:
        assert (found["patch_from"], found["patch_to"]) == pytest.approx((0.4, 0.5))
        odd = own.repaired[own.among("second"), PATCHED.index(Window(4, 5))]
        assert found["repaired"] == pytest.approx(odd.mean())
        assert found["repaired_low"] == proportions.interval(int(odd.sum()), len(odd))[0]
        assert found["repair_others"] == pytest.approx(0.05, abs=0.05)
        assert found["special"] == 1


def test_ties_are_ties():
    """Every window of two parts or more restores everything: the first is one of nine."""
    every = network(
        np.random.default_rng(7),
        SPREAD,
        repaired=np.array([float(w.stop - w.first > 1) for w in PATCHED]),
    )
    found = claimed(every)
    assert (found["patch_ties"], found["patch_from"], found["patch_to"]) == (8, 0, 0.2)
    assert (found["patch"], found["repair_others"], found["special"]) == ("necessary", 1, 0)


EXPERIMENTS = 200


def special_of(random, rate):
    """Whether a window is called special, and by how much it was ahead where it was chosen."""
    image = random.random((IMAGES, 1))
    outcome = (random.random((IMAGES, len(PATCHED))) + image) / 2 < rate
    item = network(random, SPREAD)
    item = Followed(**{**vars(item), "repaired": outcome.astype(np.int8)})
    found = patched([item])
    return found.special < LEVEL, item, found


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_without_a_special_window_the_control_calls_none_special(rate):
    """The repair of any window restores as many; images differ in how easily they are restored.

    A window chosen by its repair, and compared on the images that chose it, is called special far
    more often.
    """
    random = np.random.default_rng(8)
    wrong, naive = 0, 0
    for _ in range(EXPERIMENTS):
        special, item, found = special_of(random, rate)
        wrong += special
        length = found.window.stop - found.window.first
        others = [w for w in windows(PARTS) if w.stop - w.first == length and w != found.window]
        own = item.repaired[item.among("first"), PATCHED.index(found.window)] == 1
        rest = item.repaired[item.among("first")][:, [PATCHED.index(w) for w in others]] == 1
        other = rest[np.arange(len(own)), np.arange(len(own)) % len(others)]
        naive += paired.mcnemar((own & ~other).sum(), (other & ~own).sum())[0] < LEVEL
    assert wrong <= stats.binom.ppf(0.999, EXPERIMENTS, LEVEL)
    assert naive > 2 * wrong
