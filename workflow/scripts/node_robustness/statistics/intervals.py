"""Intervals of a median over images and of the area under an ROC curve, at 95 %."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, quantile_test
from sklearn.metrics import roc_auc_score, roc_curve

from node_robustness.statistics.proportions import SIGNIFICANCE, Estimate


def median_with_interval(values: ArrayLike) -> Estimate:
    """Return a median with the interval between two of the values themselves.

    Which two follows from the binomial distribution of how many values lie below the median,
    whatever theirs is (W. J. Conover, Practical Nonparametric Statistics, 1999, section 3.2).

    Args:
        values: [N]; those that are not finite are left out.

    Returns:
        Median and interval; all NaN without a value, the bounds NaN where fewer than six values can
        give no 95 % interval.
    """
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = quantile_test(known, p=0.5).confidence_interval(1 - SIGNIFICANCE)
    return Estimate(float(np.median(known)), float(low), float(high))


class Roc(NamedTuple):
    """A receiver operating characteristic: rates at each threshold, from (0, 0) to (1, 1)."""

    false_positive_rate: NDArray[np.float64]
    true_positive_rate: NDArray[np.float64]
    thresholds: NDArray[np.float64]


def roc(scores_negative: ArrayLike, scores_positive: ArrayLike) -> Roc:
    """Return what a detector finds and wrongly finds as its threshold falls.

    Args:
        scores_negative: Scores of what should not be found, at least one.
        scores_positive: Scores of what should, at least one; larger is more suspicious.

    Returns:
        Rates of scores at or above the thresholds; the first threshold is infinity.

    Raises:
        ValueError: There are no scores of a kind, or one is not finite.
    """
    return Roc(*roc_curve(*_labelled(scores_negative, scores_positive)))


def auc_with_interval(scores_negative: ArrayLike, scores_positive: ArrayLike) -> Estimate:
    """Return the area under the ROC curve, with its interval.

    It is the probability that a positive scores more than a negative, ties counting half. The
    interval is Newcombe's (Stat. Med. 2006, part 2, method 5): all areas from which the one that
    was found lies no further than 1.96 of the standard errors that Hanley and McNeil (Radiology
    1982) give for them. Unlike DeLong's or the bootstrap's it has a width where the two kinds are
    separated by chance. It takes them as independent, which is wide for scores of the same images.

    Args:
        scores_negative: Scores of what should not be found, at least one.
        scores_positive: Scores of what should, at least one; larger is more suspicious.

    Raises:
        ValueError: There are no scores of a kind, or one is not finite.
    """
    labels, scores = _labelled(scores_negative, scores_positive)
    area = float(roc_auc_score(labels, scores))
    positive = int(labels.sum())
    negative = len(labels) - positive
    z, size = norm.ppf(1 - SIGNIFICANCE / 2), len(labels) / 2 - 1

    def beyond(candidate: float) -> float:
        inner = (1 - candidate) / (2 - candidate) + candidate / (1 + candidate)
        variance = candidate * (1 - candidate) * (1 + size * inner) / (positive * negative)
        return float((area - candidate) ** 2 - z**2 * variance)

    # At 0 and 1 the area itself is a root, and not the one that is wanted.
    inside = min(max(area, 1e-12), 1 - 1e-12)
    return Estimate(area, float(brentq(beyond, 0, inside)), float(brentq(beyond, inside, 1)))


def _labelled(negative: ArrayLike, positive: ArrayLike) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Labels, 1 for the positives, and scores."""
    kinds = np.asarray(negative, float), np.asarray(positive, float)
    if not all(len(scores) for scores in kinds):
        raise ValueError("a ROC curve needs negative and positive scores, at least one of each")
    labels = np.repeat([0, 1], [len(scores) for scores in kinds])
    return labels, np.concatenate(kinds)
