import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from node_robustness.statistics.paired import above, below, interval, mcnemar
from node_robustness.statistics.proportions import interval as of_share

COUNTS = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda gained: st.tuples(st.just(gained), st.integers(0, n - gained), st.just(n))
    )
)


def test_mcnemar_is_exact():
    expected = [stats.binomtest(12, 15, 0.5, side).pvalue for side in ("greater", "less")]
    assert mcnemar(12, 3) == pytest.approx(expected)
    np.testing.assert_allclose(mcnemar([12, 0], [3, 0]), [[expected[0], 1], [expected[1], 1]])


@settings(deadline=None)
@given(COUNTS, st.sampled_from([0.95, 0.9994]))
def test_the_interval_holds_the_difference_has_a_width_and_mirrors(counts, level):
    gained, lost, n = counts
    low, high = interval(gained, lost, n, level)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    assert low < high
    assert interval(lost, gained, n, level) == pytest.approx((-high, -low))


@settings(deadline=None)
@given(COUNTS, st.floats(-0.9, 0.9))
def test_tests_are_the_interval_inverted(counts, margin):
    gained, lost, n = counts
    p = above(gained, lost, n, margin)
    assert p == pytest.approx(below(lost, gained, n, -margin))
    if 1e-9 < p < 0.5:
        assert interval(gained, lost, n, 1 - 2 * p)[0] == pytest.approx(margin, abs=1e-6)
    assert (p < 0.025) == (interval(gained, lost, n)[0] > margin)


def test_where_nothing_is_lost_or_all_differs_the_bound_is_that_of_a_share():
    """With no image lost the paired bound is no higher than the exact one of the share."""
    assert -0.02 < interval(30, 0, 300)[0] - of_share(30, 300)[0] < 0
    low, high = of_share(180, 300)
    assert interval(180, 120, 300) == pytest.approx((2 * low - 1, 2 * high - 1))


def test_equal_outcomes_leave_a_width():
    # 1 - .025^(1/300) = .012221.
    assert interval(0, 0, 300) == pytest.approx((-0.012221, 0.012221), abs=1e-6)
    assert above(0, 0, 300, 0.0) == 1
    # None of 300 differs: .95^300.
    assert above(0, 0, 300, -0.05) == pytest.approx(0.95**300)


def test_no_images_are_no_evidence():
    assert np.isnan(interval(0, 0, 0)).all()
    assert above(0, 0, 0, 0.0) == below(0, 0, 0, 0.0) == 1


def test_tails_are_found_where_doubles_end():
    assert above(299, 0, 300, 0.0) == pytest.approx(0.5**299, rel=0.2)
    assert above(10**6, 0, 10**6, 0.0) < 1e-300
    assert above(0, 0, 1, -1e-38) == pytest.approx(1)


def test_whole_tables_take_no_time():
    random = np.random.default_rng(0)
    gained, lost = random.integers(0, 400, (2, 10_000))
    started = time.perf_counter()
    p = above(gained, lost, 1000, 0.05)
    assert time.perf_counter() - started < 5
    np.testing.assert_array_equal(p < 0.025, interval(gained, lost, 1000)[0] > 0.05)
