"""Conclusions are wrong no more often than their level says: by enumeration, or by simulation.

Simulated networks classify the same images: an outcome is true where the sum of a mean, an effect
of the network, one of the image and noise, all normal, is positive.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import special, stats

from node_robustness.statistics import networks, paired, proportions

LEVELS = [0.95, 1 - 0.05 / 78]
"""The level of one conclusion, and the first of Holm's for 78 cells."""
RATES = [0.005, 0.02, 0.1, 0.5, 0.9, 0.98, 0.995]
REPEATS = [pytest.param(250, id="short"), pytest.param(10_000, id="long", marks=pytest.mark.slow)]
EFFECTS = {"images": (0.05, 1.5), "both": (0.3, 1.0), "networks": (0.3, 0.3)}
"""Standard deviations of the effects of networks and of images, next to noise of 1."""


def draw(random, n_networks, n, mean, effects, images=None):
    """Outcomes [networks, n] of networks whose expected share of true outcomes is the mean."""
    of_networks, of_images = effects
    total = math.sqrt(1 + of_networks**2 + of_images**2)
    if images is None:
        images = random.standard_normal((1, n))
    sums = special.ndtri(mean) * total + of_images * images
    sums = sums + of_networks * random.standard_normal((n_networks, 1))
    return sums + random.standard_normal((n_networks, n)) > 0


def most(errors, repeats):
    """How many errors of this probability chance explains, in all but 1 of 10,000 tests."""
    return stats.binom.ppf(1 - 1e-4, repeats, errors)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [100, 300, 1000])
def test_bounds_of_a_share_fail_no_more_often_than_they_may(n, level):
    counts = np.arange(n + 1)
    low, high = proportions.interval(counts, n, level)
    for rate in RATES:
        chance = stats.binom.pmf(counts, n, rate)
        assert chance[low > rate].sum() <= (1 - level) / 2
        assert chance[high < rate].sum() <= (1 - level) / 2
        tail = (1 - level) / 2
        assert chance[proportions.above(counts, n, rate) <= tail].sum() <= tail
        assert chance[proportions.below(counts, n, rate) <= tail].sum() <= tail


@pytest.mark.parametrize("n", [1, 2, 5, 20, 100, 300, pytest.param(1000, marks=pytest.mark.slow)])
def test_bounds_of_a_paired_difference_fail_no_more_often_than_they_may(n):
    """Over all counts of images that changed either way, for any share that did."""
    gained, lost = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    possible = gained + lost <= n
    gained, lost = gained[possible], lost[possible]
    same = n - gained - lost
    ways = special.gammaln(n + 1) - sum(special.gammaln(c + 1) for c in (gained, lost, same))
    lows = {tail: paired.interval(gained, lost, n, 1 - 2 * tail)[0] for tail in (0.025, 3e-4, 1e-4)}
    for true in (-0.9, -0.5, -0.1, -0.05, 0.0, 0.05, 0.1, 0.5):
        for part in (0.001, 0.01, 0.05, 0.2, 0.5, 1):
            changed = abs(true) + (1 - abs(true)) * part
            shares = ((changed + true) / 2, (changed - true) / 2, 1 - changed)
            terms = zip((gained, lost, same), shares, strict=True)
            chance = np.exp(ways + sum(special.xlogy(count, max(p, 0)) for count, p in terms))
            for tail, low in lows.items():
                assert chance[low > true + 1e-12].sum() <= tail, (true, changed, tail)


@pytest.mark.parametrize("together", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("n_networks", [1, 2, 3, 5, 10])
def test_all_networks_are_called_above_a_margin_no_more_often_than_they_may(n_networks, together):
    """The share of one is the margin; outcomes of a part of the images fall together."""
    random = np.random.default_rng(n_networks)
    repeats, n, margin = 100_000, 300, 0.1
    rates = np.linspace(margin, margin + 0.02 * (n_networks - 1), n_networks)
    shared = random.binomial(n, together, repeats)
    steps = np.diff(rates, prepend=0, append=1)
    nested = np.cumsum(random.multinomial(shared, steps), axis=1)[:, :-1]
    counts = nested + random.binomial((n - shared)[:, None], rates)
    every = np.arange(n + 1)
    p = proportions.above(every, n, margin)[counts].max(axis=1)
    low = proportions.interval(every, n)[0][counts].min(axis=1)
    for level in LEVELS:
        tail = (1 - level) / 2
        assert (p <= tail).sum() <= most(tail, repeats)
    assert (low > margin).sum() <= most(0.025, repeats)
    if n_networks == 1:
        assert (p <= 0.025).mean() > 0.01


@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize("n_networks", [1, 2, 3, 5])
def test_models_are_told_apart_no_more_often_than_they_may(n_networks, effects):
    """Networks of two models, of which two, one of each, are right equally often."""
    random = np.random.default_rng(n_networks)
    repeats, n, wrong = 300, 100, 0
    for _ in range(repeats):
        images = random.standard_normal((1, n))
        first = draw(random, n_networks, n, 0.4, (0, effects[1]), images)
        second = draw(random, n_networks, n, 0.4, (0, effects[1]), images)
        pairs = [(a, b) for a in first for b in second]
        gained = [int((b & ~a).sum()) for a, b in pairs]
        lost = [int((a & ~b).sum()) for a, b in pairs]
        more = paired.mcnemar(gained, lost)[0].max()
        lows, highs = paired.interval(gained, lost, n)
        found = networks.across((np.array(gained) - lost) / n, lows, highs)
        assert found.low <= found.value <= found.high
        wrong += more <= 0.025
    assert wrong <= most(0.025, repeats)


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize(
    ("n_networks", "n", "mean"),
    [*itertools.product([5, 10], [100, 300], [0.5, 0.1, 0.995]), (5, 1000, 0.5), (10, 1000, 0.98)],
)
def test_the_mean_of_networks_that_were_not_trained(n_networks, n, mean, effects, repeats):
    for level, count in missed_means(n_networks, n, mean, effects, repeats).items():
        assert count <= most(1 - level, repeats)


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize(
    ("n_networks", "n", "mean", "effects"),
    [(5, 300, 0.1, (1.0, 0.5)), (10, 1000, 0.02, (0.5, 0.5))],
)
def test_the_mean_of_networks_with_skewed_shares(n_networks, n, mean, effects, repeats):
    """A few networks rarely include those that make up much of the mean: 10 % are missed."""
    missed = missed_means(n_networks, n, mean, effects, repeats)
    assert missed[0.95] <= most(0.1, repeats)


def missed_means(n_networks, n, mean, effects, repeats):
    """How often the interval leaves out the mean, by level."""
    random = np.random.default_rng(0)
    missed = dict.fromkeys(LEVELS, 0)
    for _ in range(repeats):
        outcomes = draw(random, n_networks, n, mean, effects)
        for level in LEVELS:
            found = networks.population_mean(outcomes, level)
            missed[level] += not found.low <= mean <= found.high
    return missed


@pytest.mark.parametrize("repeats", REPEATS)
@pytest.mark.parametrize("same", [True, False], ids=["paired", "unpaired"])
@pytest.mark.parametrize("effects", EFFECTS.values(), ids=EFFECTS)
@pytest.mark.parametrize(
    ("n_networks", "n", "means"),
    [(5, 300, (0.5, 0.5)), (5, 300, (0.2, 0.6)), (10, 100, (0.99, 0.99)), (5, 300, (0.05, 0.1))],
)
def test_the_difference_of_networks_that_were_not_trained(
    n_networks, n, means, effects, same, repeats
):
    random = np.random.default_rng(0)
    missed = dict.fromkeys(LEVELS, 0)
    for _ in range(repeats):
        images = random.standard_normal((1, n))
        first, second = (draw(random, n_networks, n, mean, effects, images) for mean in means)
        if same:
            # The first condition adds nothing where it is the second one itself.
            second = np.where(random.random(n) < 0.5, first, second)
        true = (means[1] - means[0]) * (0.5 if same else 1)
        for level in LEVELS:
            found = networks.population_difference(first, second, level, paired=same)
            missed[level] += not found.low <= true <= found.high
    for level, count in missed.items():
        assert count <= most(1 - level, repeats)


@pytest.mark.parametrize("n_networks", [1, 2, 3])
def test_of_networks_that_were_not_trained_a_few_say_nothing(n_networks):
    random = np.random.default_rng(0)
    for mean in RATES:
        outcomes = draw(random, n_networks, 300, mean, EFFECTS["both"])
        for found in (
            networks.population_mean(outcomes),
            networks.population_difference(outcomes, ~outcomes, paired=True),
            networks.share_of_networks(n_networks, n_networks),
        ):
            assert np.isnan(found[1:]).all()


@pytest.mark.parametrize("n", [5, 10])
def test_the_share_of_networks_that_were_not_trained(n):
    for rate in RATES:
        found = [networks.share_of_networks(count, n) for count in range(n + 1)]
        chance = stats.binom.pmf(np.arange(n + 1), n, rate)
        missed = [not share.low <= rate <= share.high for share in found]
        assert chance[missed].sum() <= 0.05


def test_a_gap_of_forty_points_on_five_networks_with_300_images_is_found():
    """At the first of Holm's levels, on every network, though networks differ by ten points."""
    random = np.random.default_rng(0)
    gaps = 0.4 + random.normal(0, 0.05, (1000, 5))
    p = paired.above(random.binomial(300, gaps), 0, 300, 0.1).max(axis=1)
    assert (p <= 0.025 / 78).mean() > 0.995
