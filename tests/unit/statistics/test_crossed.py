import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from node_robustness.statistics.crossed import Share, difference, effective_images, holm, proportion
from node_robustness.statistics.intervals import wilson


def outcomes(*counts: int, n: int = 40) -> np.ndarray:
    return np.array([np.arange(n) < count for count in counts])


@pytest.mark.parametrize("count", [0, 7, 40])
def test_one_seed_is_wilsons_interval(count):
    assert proportion(outcomes(count)) == pytest.approx((count / 40, *wilson(count, 40)))


def test_of_no_images_nothing_is_known():
    assert np.isnan(proportion(np.zeros((1, 0), bool))).all()


def test_equal_seeds_are_no_more_than_the_images():
    assert proportion(outcomes(7, 7, 7)) == pytest.approx(proportion(outcomes(7)))
    assert effective_images(np.zeros((3, 40))) == 40


def test_seeds_that_disagree_widen_the_interval():
    alone, crossed = proportion(outcomes(20)), proportion(outcomes(5, 35))
    assert crossed.value == alone.value == 0.5
    assert crossed.low < 0.1 < alone.low < alone.high < 0.9 < crossed.high


def test_the_crossed_interval_holds_the_truth_as_often_as_it_says():
    """Models and images drawn at random around a known mean."""
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        rate = 0.5 + random.normal(0, 0.05, (4, 1)) + random.normal(0, 0.15, (1, 100))
        low, high = proportion(random.random((4, 100)) < rate)[1:]
        covered += low <= 0.5 <= high
    assert covered / 400 >= 0.94


def test_a_share_against_a_margin_is_the_exact_binomial_test():
    share = Share.of(outcomes(12, n=100))
    test = [stats.binomtest(12, 100, 0.05, side).pvalue for side in ("greater", "less")]
    assert [share.above(0.05), share.below(0.05)] == pytest.approx(test)
    nothing = Share.of(outcomes(0, n=100))
    assert nothing.above(0.05) == 1
    assert nothing.below(0.05) == pytest.approx(0.95**100)
    assert Share.of(outcomes(100, n=100)).below(0.05) == 1


def test_differences_are_mcnemars_and_bonett_and_prices():
    before = np.repeat([True, True, False, False], [30, 12, 3, 55])[None]
    after = np.repeat([True, False, True, False], [30, 12, 3, 55])[None]
    found = difference(before, after)
    table = [[30, 12], [3, 55]]
    assert found.p == pytest.approx(mcnemar(table, exact=True).pvalue)
    # (4 - 13) / 102, and 1.959964 times sqrt((17 / 102 - (9 / 102)²) / 102).
    assert (found.value, found.gained, found.lost) == pytest.approx((-0.09, 0.03, 0.12))
    assert (found.low, found.high) == pytest.approx((-0.165590, -0.010881), abs=1e-6)
    assert found.below(0) < 0.05 < found.above(0)


def test_no_change_is_no_evidence():
    found = difference(outcomes(9), outcomes(9))
    assert (found.value, found.p) == (0, 1)
    assert found.low < 0 < found.high


def test_seeds_that_disagree_are_less_evidence():
    one = difference(outcomes(0), outcomes(10))
    agreed = difference(outcomes(0, 0), outcomes(10, 10))
    other = difference(outcomes(0, 0), outcomes(0, 20))
    assert agreed.p == pytest.approx(one.p)
    assert one.p < 0.01 < 0.2 < other.p


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


@settings(deadline=None)
@given(
    st.integers(1, 4).flatmap(
        lambda s: st.lists(st.lists(st.booleans(), min_size=s, max_size=s), min_size=1, max_size=30)
    )
)
def test_every_interval_holds_its_value(rows):
    values = np.array(rows).T
    share = proportion(values)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert 0 < effective_images(values.astype(float)) <= values.shape[1]
    change = difference(values, ~values)
    assert -1 <= change.low <= change.high <= 1
    assert 0 <= change.p <= 1
