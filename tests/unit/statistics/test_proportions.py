import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from node_robustness.statistics.proportions import above, below, difference, images_needed, interval

COUNTS = st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, st.sampled_from([0.95, 0.9994]))
def test_the_interval_is_scipys(counts, level):
    expected = stats.binomtest(*counts).proportion_ci(level, "exact")
    assert interval(*counts, level) == pytest.approx(tuple(expected), abs=1e-9)


@given(COUNTS)
def test_the_interval_holds_the_rate_and_mirrors(counts):
    successes, n = counts
    low, high = interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    mirrored = interval(n - successes, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


def test_the_interval_takes_arrays():
    low, high = interval([0, 8, 10, 0], [10, 10, 10, 0])
    # .025^(1/10) = .691503; the others from tables of Clopper and Pearson.
    np.testing.assert_allclose(low, [0, 0.443905, 0.691503, math.nan], atol=1e-6)
    np.testing.assert_allclose(high, [0.308497, 0.974789, 1, math.nan], atol=1e-6)


@pytest.mark.parametrize("counts", [(-1, 2), (3, 2)])
def test_the_interval_refuses_impossible_counts(counts):
    with pytest.raises(ValueError, match="between 0 and"):
        interval(*counts)


@given(COUNTS, st.floats(0.01, 0.99))
def test_tests_are_the_exact_binomial_ones(counts, share):
    expected = [stats.binomtest(*counts, share, side).pvalue for side in ("greater", "less")]
    assert [above(*counts, share), below(*counts, share)] == pytest.approx(expected, rel=1e-6)


def test_tests_agree_with_the_interval():
    counts = np.arange(301)
    low, high = interval(counts, 300)
    np.testing.assert_array_equal(above(counts, 300, 0.1) < 0.025, low > 0.1)
    np.testing.assert_array_equal(below(counts, 300, 0.1) < 0.025, high < 0.1)


def test_no_images_are_no_evidence():
    assert (above(0, 0, 0.1), below(0, 0, 0.1)) == (1, 1)


def test_a_difference_of_counts_runs_between_the_limits():
    low, high = interval(60, 100, 0.975)
    other_low, other_high = interval(30, 80, 0.975)
    expected = (0.6 - 0.375, low - other_high, high - other_low)
    assert difference(60, 100, 30, 80) == pytest.approx(expected)
    assert difference(0, 0, 1, 2) is None


@pytest.mark.parametrize(
    ("share", "margin", "side"), [(0.2, 0.1, "above"), (0.0, 0.1, "below"), (0.07, 0.1, "below")]
)
def test_the_images_that_are_needed_are_enough_and_no_fewer_are(share, margin, side):
    n = images_needed(share, margin, side, 0.01)
    test = above if side == "above" else below
    assert test(share * n, n, margin) <= 0.01 < test(share * (n - 1), n - 1, margin)


def test_nothing_shows_what_is_not_so():
    assert images_needed(0.05, 0.1, "above") is None
    assert images_needed(0.1, 0.1, "below") is None
    assert images_needed(0.10001, 0.1, "above") is None
