"""Several networks: what holds for all that were trained, and what for others trained like them.

Networks of one model differ in their training seeds. What holds for each of them is shown for
each: the interval of `across` contains the interval of every network. Networks that were not
trained are a population. About it a few networks say next to nothing, so that bounds are given
from `MANY` on; with fewer they are NaN.

Outcomes are arrays [networks, n], all networks on the same n images.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from node_robustness.statistics import paired as differences
from node_robustness.statistics import proportions
from node_robustness.statistics.proportions import SIGNIFICANCE, Estimate, Floats

MANY = 5
"""The fewest networks from which something is said about networks trained like them."""

Outcomes = NDArray[np.bool_]


def across(values: ArrayLike, lows: ArrayLike, highs: ArrayLike) -> Estimate:
    """Return the mean over networks, from the lowest lower to the highest upper bound.

    Args:
        values: One value a network, at least one.
        lows: Their lower bounds.
        highs: Their upper bounds.

    Returns:
        The mean with an interval that contains the interval of every network.
    """
    return Estimate(
        float(np.asarray(values, float).mean()),
        float(np.min(np.asarray(lows))),
        float(np.max(np.asarray(highs))),
    )


def over_networks(frame: pd.DataFrame, by: Sequence[str], rate: str, prefix: str) -> pd.DataFrame:
    """Summarise a rate over the networks of a model.

    Args:
        frame: Rows with the columns ``by``, ``rate``, ``{prefix}_low`` and ``{prefix}_high``; one
            row a network in a group.
        by: Columns that make a group; NaN is a value like any other.
        rate: Column of a rate.
        prefix: Prefix of the columns with the rate's interval for its network.

    Returns:
        One row a group, in order of appearance: ``by``, ``networks`` (how many have a rate),
        ``value``, ``low``, ``high``, as `across` gives them. Groups without a rate are left out.
    """
    known = frame.dropna(subset=[rate])
    rows = [
        (*key, len(group), *across(group[rate], group[f"{prefix}_low"], group[f"{prefix}_high"]))
        for key, group in known.groupby(list(by), dropna=False, sort=False)
    ]
    types = {column: frame.dtypes[column] for column in by}
    return pd.DataFrame(rows, columns=[*by, "networks", "value", "low", "high"]).astype(types)


def share_of_networks(count: int, networks: int, level: float = 1 - SIGNIFICANCE) -> Estimate:
    """Return the share of networks, with its exact interval for networks trained like them.

    Args:
        count: Of how many networks something holds.
        networks: Of how many it could, at least one.
        level: The confidence level.

    Returns:
        The share; its bounds are NaN with fewer than `MANY` networks.
    """
    if networks < MANY:
        return Estimate(count / networks, math.nan, math.nan)
    return Estimate(count / networks, *proportions.interval(count, networks, level))


def population_mean(outcomes: Outcomes, level: float = 1 - SIGNIFICANCE) -> Estimate:
    """Return the mean share of true outcomes, with its interval for networks trained like these.

    Networks and images are crossed: both are samples. The half widths for either, from Student's
    t, are squared and added, which holds every level whatever the two variances are (Banerjee,
    Ann. Inst. Stat. Math. 1960). Satterthwaite's degrees of freedom do not at small levels: five
    networks may agree by chance. Bounds are taken on the logit scale, because networks' shares are
    skewed near 0 and 1, and united with the Clopper-Pearson interval of the mean share, so that
    the interval has a width where all outcomes are equal. It remains approximate: where shares of
    networks run from .3 % to 40 % around a mean of 10 %, it misses that mean in 9 % of cases
    instead of 5 %.

    Args:
        outcomes: bool [networks, n], n > 0.
        level: The confidence level.

    Returns:
        The mean; its bounds are NaN with fewer than `MANY` networks.
    """
    share, n = float(outcomes.mean()), outcomes.shape[1]
    if len(outcomes) < MANY:
        return Estimate(share, math.nan, math.nan)
    half = _half_width([outcomes.mean(axis=1), outcomes.mean(axis=0)], level)
    return Estimate(share, *_widened(proportions.interval(share * n, n, level), share, half))


def population_difference(
    first: Outcomes, second: Outcomes, level: float = 1 - SIGNIFICANCE, *, paired: bool
) -> Estimate:
    """Return by how much a mean share is larger in ``second``, for networks trained like these.

    The interval is built as that of `population_mean`, on differences scaled from [-1, 1] to
    [0, 1].

    Args:
        first: bool [networks, n], n > 0.
        second: bool [networks, n] on the same images.
        level: The confidence level.
        paired: Whether the rows are the same networks in two conditions. Networks of two models
            are never paired.

    Returns:
        The difference of the means; its bounds are NaN with fewer than `MANY` networks on a side.
    """
    before, after = first.astype(float), second.astype(float)
    of_images = after.mean(axis=0) - before.mean(axis=0)
    change, n = float(of_images.mean()), first.shape[1]
    if min(len(first), len(second)) < MANY:
        return Estimate(change, math.nan, math.nan)
    if paired:
        samples = [(after - before).mean(axis=1)]
        gained = (after * (1 - before)).mean()
        lost = (before * (1 - after)).mean()
    else:
        samples = [after.mean(axis=1), before.mean(axis=1)]
        gained = (after.mean(axis=0) * (1 - before.mean(axis=0))).mean()
        lost = (before.mean(axis=0) * (1 - after.mean(axis=0))).mean()
    half = _half_width([*samples, of_images], level)
    low, high = differences.interval(float(gained * n), float(lost * n), n, level)
    exact = ((1 + low) / 2, (1 + high) / 2)
    low, high = _widened(exact, (1 + change) / 2, half / 2)
    return Estimate(change, 2 * low - 1, 2 * high - 1)


def _half_width(samples: Sequence[Floats], level: float) -> float:
    """The half width of the interval of a sum of means of independent samples."""
    parts = [
        special.stdtrit(len(sample) - 1, (1 + level) / 2) * sample.std(ddof=1) / len(sample) ** 0.5
        for sample in samples
        if len(sample) > 1
    ]
    return float(np.sqrt(np.sum(np.square(parts))))


def _widened(exact: tuple[float, float], share: float, half: float) -> tuple[float, float]:
    """An interval united with that of a half width around the share, on the logit scale."""
    if share in (0, 1):
        return exact
    scaled = half / (share * (1 - share))
    around = [float(special.expit(special.logit(share) + side)) for side in (-scaled, scaled)]
    return min(exact[0], around[0]), max(exact[1], around[1])
