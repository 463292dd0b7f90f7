"""Intervals and tests for outcomes of the same images under one or several training seeds.

Outcomes are arrays [seeds, n], one row a seed, one column an image. With one seed the images are
the sample. With several, images and seeds are crossed: every model classifies the same images.
Then the number of images is replaced by an effective one (Korn and Graubard, Survey Methodology
1998): that of independent images which would estimate the mean as exactly as the crossed sample
does, whose variance is (MS_seeds + MS_images) / (seeds n) of a two-way layout without
replication, with Satterthwaite's degrees of freedom. It never exceeds n: to classify an image by
several models makes it no more than one image.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.stats.multitest import multipletests

from node_robustness.statistics.intervals import SIGNIFICANCE, Estimate, wilson

Outcomes = NDArray[np.bool_]

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def effective_images(values: NDArray[np.float64]) -> float:
    """Return how many independent images estimate the mean as exactly as these values do.

    Args:
        values: [seeds, n].

    Returns:
        n with one seed, and where all values are equal; else a number in (0, n].
    """
    seeds, n = values.shape
    if seeds == 1 or n < 2 or np.ptp(values) == 0:
        return float(n)
    of_seeds = n * values.mean(axis=1).var(ddof=1)
    of_images = seeds * values.mean(axis=0).var(ddof=1)
    squares = of_seeds**2 / (seeds - 1) + of_images**2 / (n - 1)
    if squares == 0:
        return float(n)
    freedom = (of_seeds + of_images) ** 2 / squares
    alone = values.var() * n / (n - 1) / ((of_seeds + of_images) / (seeds * n))
    wider = stats.t.ppf(1 - SIGNIFICANCE / 2, freedom) / stats.t.ppf(1 - SIGNIFICANCE / 2, n - 1)
    return float(min(alone / wider**2, n))


def proportion(outcomes: Outcomes) -> Estimate:
    """Return the share of true outcomes with its 95 % Wilson interval on the effective images.

    Args:
        outcomes: bool [seeds, n].

    Returns:
        The share and its interval in [0, 1]; NaN where there are no outcomes.
    """
    if outcomes.size == 0:
        return _UNKNOWN
    share, images = float(outcomes.mean()), effective_images(outcomes.astype(float))
    return Estimate(share, *wilson(share * images, images))


class Share(NamedTuple):
    """A share of effectively ``images`` images, to be tested against a margin."""

    value: float
    images: float

    @classmethod
    def of(cls, outcomes: Outcomes) -> "Share":
        """The share of true outcomes, bool [seeds, n], n > 0."""
        return cls(float(outcomes.mean()), effective_images(outcomes.astype(float)))

    def above(self, margin: float) -> float:
        """One-sided p-value of "the share is at most the margin" (binomial, exact for one seed)."""
        return _upper_tail(self.value * self.images, self.images, margin)

    def below(self, margin: float) -> float:
        """One-sided p-value of "the share is at least the margin"."""
        return 1 - _upper_tail(self.value * self.images + 1, self.images, margin)


class Difference(NamedTuple):
    """The change of a share between two conditions on the same images and seeds.

    The interval is Bonett and Price's (J. Educ. Behav. Stat. 2012): one image is added to either
    kind of change. ``p`` is McNemar's exact two-sided test, on effective images.
    """

    value: float
    low: float
    high: float
    gained: float
    lost: float
    p: float
    centre: float
    error: float

    def above(self, margin: float) -> float:
        """One-sided p-value of "the difference is at most the margin"."""
        return float(stats.norm.sf((self.centre - margin) / self.error))

    def below(self, margin: float) -> float:
        """One-sided p-value of "the difference is at least the margin"."""
        return float(stats.norm.cdf((self.centre - margin) / self.error))


def difference(before: Outcomes, after: Outcomes) -> Difference:
    """Compare two conditions on the same images.

    Args:
        before: bool [seeds, n], n > 0.
        after: The same images and seeds in the other condition.

    Returns:
        Share after minus share before in [-1, 1], with ``gained`` and ``lost``: the shares of
        outcomes that are true only after and only before.
    """
    images = effective_images(after.astype(float) - before.astype(float))
    gained, lost = float((after & ~before).mean()), float((before & ~after).mean())
    up, down = (gained * images + 1) / (images + 2), (lost * images + 1) / (images + 2)
    centre = up - down
    error = math.sqrt((up + down - centre**2) / (images + 2))
    half = float(stats.norm.ppf(1 - SIGNIFICANCE / 2)) * error
    changed, larger = (gained + lost) * images, max(gained, lost) * images
    return Difference(
        value=gained - lost,
        low=max(centre - half, -1.0),
        high=min(centre + half, 1.0),
        gained=gained,
        lost=lost,
        p=min(1.0, 2 * _upper_tail(larger, changed, 0.5)),
        centre=centre,
        error=error,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values (Scand. J. Stat. 1979), in the order given."""
    if not len(p_values):
        return []
    return [float(p) for p in multipletests(np.asarray(p_values, float), method="holm")[1]]


def _upper_tail(count: float, n: float, probability: float) -> float:
    """P(X >= count) for a binomial X, continued to counts and n that are not whole."""
    if count <= 0:
        return 1.0
    if count > n:
        return 0.0
    return float(special.betainc(count, n - count + 1, probability))
