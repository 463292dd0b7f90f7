import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from node_robustness.statistics import paired, proportions
from node_robustness.statistics.networks import (
    MANY,
    across,
    over_networks,
    population_difference,
    population_mean,
    share_of_networks,
)

NAN = math.nan


def outcomes(*counts: int, n: int = 40) -> np.ndarray:
    return np.array([np.arange(n) < count for count in counts])


def test_the_interval_across_networks_holds_every_networks():
    assert across([0.5, 0.7], [0.4, 0.65], [0.6, 0.8]) == pytest.approx((0.6, 0.4, 0.8))
    assert across([0.5], [0.4], [0.6]) == pytest.approx((0.5, 0.4, 0.6))


def test_a_table_over_networks():
    frame = pd.DataFrame(
        {
            "model": ["B", "A", "A", "A", "C"],
            "tolerance": [NAN, 0.1, 0.1, 0.1, 0.1],
            "rate": [0.8, 0.4, 0.5, 0.6, NAN],
            "rate_low": [0.7, 0.3, 0.2, 0.5, NAN],
            "rate_high": [0.9, 0.5, 0.8, 0.7, NAN],
        }
    )
    found = over_networks(frame, ["model", "tolerance"], "rate", "rate")
    assert found.model.tolist() == ["B", "A"]
    assert found.networks.tolist() == [1, 3]
    np.testing.assert_allclose(found[["value", "low", "high"]], [[0.8, 0.7, 0.9], [0.5, 0.2, 0.8]])


def test_a_few_networks_say_nothing_about_others():
    few, many = outcomes(*[10] * (MANY - 1)), outcomes(*[10] * MANY)
    for estimate in (
        share_of_networks(MANY - 1, MANY - 1),
        population_mean(few),
        population_difference(few, many, paired=False),
        population_difference(many, few, paired=False),
        population_difference(few, few, paired=True),
    ):
        assert math.isfinite(estimate.value)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)


def test_the_share_of_networks_is_exact():
    # .025^(1/5) = .478176.
    assert share_of_networks(5, 5) == pytest.approx((1, 0.478176, 1), abs=1e-6)


def around(share: float, half: float) -> tuple[float, float]:
    """The odds of the bounds are those of the share times or over the same factor."""
    factor = math.exp(half / (share * (1 - share)))
    odds = share / (1 - share)
    return odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor)


def test_equal_networks_are_no_more_than_the_images():
    low, high = around(0.2, stats.t.ppf(0.975, 39) * math.sqrt(0.2 * 0.8 / 39))
    exact = proportions.interval(8, 40)
    found = population_mean(outcomes(*[8] * 5))
    assert found == pytest.approx((0.2, min(low, exact[0]), max(high, exact[1])))
    assert population_mean(outcomes(*[40] * 5)) == (1, *proportions.interval(40, 40))


def test_both_samples_widen_the_interval():
    values = np.random.default_rng(0).random((6, 80)) < np.linspace(0.3, 0.7, 6)[:, None]
    found = population_mean(values)
    parts = [
        stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
        for means in (values.mean(axis=0), values.mean(axis=1))
    ]
    assert found[1:] == pytest.approx(around(found.value, math.hypot(*parts)))


def test_a_difference_pairs_images_and_networks_only_where_they_are_the_same():
    random = np.random.default_rng(0)
    first = random.random((5, 200)) < np.linspace(0.2, 0.8, 5)[:, None]
    second = first | (random.random((5, 200)) < 0.3)
    paired_, other = (population_difference(first, second, paired=p) for p in (True, False))
    assert paired_.value == other.value == pytest.approx(second.mean() - first.mean())
    assert 0 < paired_.low < paired_.high < 0.5
    assert other.low < 0 < 0.5 < other.high


def test_no_difference_has_the_width_of_the_images():
    same = outcomes(*[7] * 5)
    found = population_difference(same, same, paired=True)
    assert found == pytest.approx((0, *paired.interval(0, 0, 40)))
