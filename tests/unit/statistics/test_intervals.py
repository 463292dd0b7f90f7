import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.statistics.intervals import (
    auc_with_interval,
    median_with_interval,
    roc,
)

NAN = math.nan


@pytest.mark.parametrize(("n", "rank"), [(6, 1), (10, 2), (20, 6), (50, 18)])
def test_a_median_lies_between_the_values_of_the_binomial_distribution(n, rank):
    # P(fewer than `rank` of n fair coins show heads) is at most 0.025, that of one more is not.
    below = [sum(math.comb(n, k) for k in range(r)) / 2**n for r in (rank, rank + 1)]
    assert below[0] <= 0.025 < below[1]
    values = np.random.default_rng(0).permutation(np.arange(1, n + 1) ** 2)
    assert median_with_interval(values) == (np.median(values), rank**2, (n + 1 - rank) ** 2)


def test_a_median_of_few_values_has_no_interval():
    assert median_with_interval([1, NAN, 3, math.inf])[0] == 2
    assert np.isnan(median_with_interval([1, 2, 3, 4, 5])[1:]).all()
    assert np.isnan(median_with_interval([NAN])).all()


def test_roc_of_separated_and_of_identical_scores():
    separated = roc([0.1, 0.2], [0.8, 0.9])
    assert separated.true_positive_rate[separated.false_positive_rate == 0].max() == 1
    assert separated.thresholds[0] == math.inf
    assert auc_with_interval([0.1, 0.2], [0.8, 0.9]).value == 1
    assert auc_with_interval([0.8, 0.9], [0.1, 0.2]).value == 0
    assert auc_with_interval([1, 2, 3], [1, 2, 3]).value == 0.5


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
    st.lists(st.integers(0, 9), min_size=1, max_size=8),
)
def test_the_area_is_the_share_of_pairs_in_order(negative, positive):
    pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
    found = auc_with_interval(negative, positive)
    assert found.value == pytest.approx(np.mean(pairs))
    assert 0 <= found.low <= found.value <= found.high <= 1
    curve = roc(negative, positive)
    area = np.trapezoid(curve.true_positive_rate, curve.false_positive_rate)
    assert area == pytest.approx(found.value)
    mirrored = auc_with_interval(positive, negative)
    assert (found.low, found.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)


def test_the_interval_holds_the_areas_from_which_the_one_found_is_not_far():
    """Newcombe 2006, method 5, by trying all areas; its width at an area of one is not zero."""
    rng = np.random.default_rng(0)
    for negative, positive in ((rng.normal(size=30), rng.normal(size=20) + 1), ([0] * 9, [1] * 9)):
        found = auc_with_interval(negative, positive)
        theta = np.linspace(1e-6, 1 - 1e-6, 10**6)
        inner = (1 - theta) / (2 - theta) + theta / (1 + theta)
        m, n = len(negative), len(positive)
        error = np.sqrt(theta * (1 - theta) * (1 + ((m + n) / 2 - 1) * inner) / (m * n))
        inside = theta[np.abs(theta - found.value) <= 1.959964 * error]
        assert (found.low, found.high) == pytest.approx((inside[0], inside[-1]), abs=1e-5)
    assert (found.value, found.high) == (1, 1)
    assert 0.6 < found.low < 0.9


def test_the_interval_covers_a_known_area():
    """Of exponential scores with means 1 and 4 the area is 4 / 5."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        found = auc_with_interval(rng.exponential(1, 25), rng.exponential(4, 25))
        covered.append(found.low <= 0.8 <= found.high)
    assert 0.92 <= np.mean(covered) <= 0.98


@pytest.mark.parametrize(("negative", "positive"), [([], [1]), ([1], [])])
def test_an_area_needs_both_kinds(negative, positive):
    with pytest.raises(ValueError, match="at least one of each"):
        auc_with_interval(negative, positive)
