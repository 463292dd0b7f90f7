"""The interval of a fraction of a loss, and the test of "most images", on drawn images."""

import numpy as np
import pytest
from scipy import stats

from node_robustness.statistics import proportions, ratios

SIZES = [6, 10, 30, 100, 300]
REPEATS = 4000


def normal(random, n):
    loss = random.normal(5, 1, n)
    return 0.4 * loss + random.normal(0, 1, n), loss


def gamma(random, n):
    """Fractions vary around .4 and losses are skewed, as they are of networks."""
    loss = random.gamma(4, 1, n)
    return loss * random.beta(4, 6, n), loss


def skewed(random, n):
    """An addend with a long tail, whatever the loss."""
    return random.lognormal(-0.5, 1, n) * 2, 2 + random.gamma(3, 1, n)


def rare(random, n):
    """A tenth of the images have all of their loss where the others have hardly any."""
    loss = random.gamma(4, 1, n)
    return loss * np.where(random.random(n) < 0.1, 4.0, 0.0), loss


MISSED = {
    normal: dict.fromkeys(SIZES, 0.05),
    gamma: {6: 0.06, 10: 0.06, 30: 0.06, 100: 0.055, 300: 0.05},
    skewed: {6: 0.125, 10: 0.125, 30: 0.1, 100: 0.08, 300: 0.065},
    rare: {6: 0.6, 10: 0.4, 30: 0.16, 100: 0.085, 300: 0.065},
}
"""How often an interval of 95 % may miss the fraction of .4, by the number of images."""


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("draw", MISSED, ids=lambda draw: draw.__name__)
def test_the_interval_of_a_fraction(draw, n):
    random = np.random.default_rng(n)
    found = [ratios.fraction(*draw(random, n)) for _ in range(REPEATS)]
    known = [item for item in found if not np.isnan(item.value)]
    missed = sum(not item.low <= 0.4 <= item.high for item in known)
    assert len(known) > 0.98 * REPEATS
    assert missed <= stats.binom.ppf(1 - 1e-4, REPEATS, MISSED[draw][n])
    if n >= 100:
        assert missed >= 0.02 * REPEATS


@pytest.mark.parametrize("n", SIZES)
def test_most_images_are_found_no_more_often_than_they_may(n):
    """Exactly, on the margin: an image is above it with one half, whatever the sizes are."""
    counts = np.arange(n + 1)
    chance = stats.binom.pmf(counts, n, 0.5)
    rows = np.arange(n) < counts[:, None]
    up = np.array([ratios.most_above(np.where(row, 0.9, 0.4), np.ones(n), 0.5) for row in rows])
    down = np.array([ratios.most_below(np.where(row, 0.4, 0.9), np.ones(n), 0.5) for row in rows])
    for level in (0.025, 0.0025, 0.025 / 78):
        assert chance[up <= level].sum() <= level
        assert chance[down <= level].sum() <= level
    if n >= 6:
        assert up[-1] == down[-1] == pytest.approx(0.5**n)


def test_tails_do_not_mislead_the_test_of_most_images():
    """The mean is far above one half, and so are few images."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        part = random.lognormal(np.log(0.5), 2, 30)
        wrong += ratios.most_above(part, np.ones(30), 0.5) <= 0.025
    assert wrong <= stats.binom.ppf(0.9999, 2000, 0.025)


def test_a_fraction_by_hand():
    """Of equal losses it is the mean of the parts, with the interval of that mean."""
    part = np.array([0.2, 0.4, 0.6, 0.8])
    found = ratios.fraction(2 * part, np.full(4, 2.0))
    assert found == pytest.approx(ratios.mean(part))
    half = stats.t.ppf(0.975, 3) * part.std(ddof=1) / 2
    assert found == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    # Images of one ratio leave nothing uncertain.
    loss = np.array([1.0, 2.0, 5.0, 3.0])
    assert ratios.fraction(0.3 * loss, loss) == pytest.approx((0.3, 0.3, 0.3))
    wide, narrow = (ratios.fraction(2 * part, np.full(4, 2.0), level) for level in (0.99, 0.9))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_a_fraction_of_nothing_is_unknown():
    """The interval of the losses contains 0, or there is none."""
    for part, whole in (
        ([1.0, 2.0, 1.5], [-1.0, 1.0, 0.5]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0], [2.0]),
        ([], []),
        ([np.nan, 1.0], [1.0, 2.0]),
    ):
        assert np.isnan(ratios.fraction(part, whole)).all()
    assert np.isnan(ratios.mean([])).all()
    assert ratios.mean([2.0])[0] == 2
    assert np.isnan(ratios.mean([2.0])[1:]).all()
    assert ratios.most_above([], [], 0.5) == ratios.most_below([], [], 0.5) == 1


def test_a_gain_has_parts_too():
    """A perturbation that gains margin has a negative loss."""
    loss = np.array([-1.0, -1.1, -0.9, -1.2])
    assert ratios.fraction(0.25 * loss, loss).value == pytest.approx(0.25)


def test_images_that_failed_are_left_out():
    part, whole = np.array([1, np.nan, 2, 3, 2]), np.array([2, 2, 4, np.inf, 5.0])
    kept = ratios.fraction([1, 2, 2], [2, 4, 5])
    assert ratios.fraction(part, whole) == kept
    assert ratios.most_above(part, whole, 0.45) == proportions.above(2, 3, 0.5)
