"""Intervals: of a proportion or a median over images, a mean over seeds, a change, an AUC.

All are 95 % intervals. Within one trained model the images are the sample (Wilson, Newcombe);
where a model was trained from several seeds, the seeds are (Student's t).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.stats import norm, quantile_test
from sklearn.metrics import roc_auc_score, roc_curve
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from node_robustness.statistics.proportions import SIGNIFICANCE as SIGNIFICANCE
from node_robustness.statistics.proportions import Estimate as Estimate


@overload
def wilson(successes: float, n: float) -> tuple[float, float]: ...
@overload
def wilson(
    successes: ArrayLike, n: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def wilson(successes: ArrayLike, n: ArrayLike) -> tuple[Any, Any]:
    """Return the 95 % Wilson score interval of a proportion (E. B. Wilson, JASA 1927).

    Args:
        successes: Counts of any shape.
        n: Numbers of trials of the same shape, at least the counts.

    Returns:
        The lower and the upper bounds, in [0, 1], shaped like the counts; NaN where ``n`` is 0.

    Raises:
        ValueError: A count is negative or exceeds its number of trials.
    """
    count, trials = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if ((count < 0) | (count > trials)).any():
        raise ValueError("counts must lie between 0 and the number of trials")
    low, high = proportion_confint(
        count, np.where(trials > 0, trials, np.nan), SIGNIFICANCE, method="wilson"
    )
    # Rounding may put a bound a hair outside [0, 1], or off the rate it bounds at 0 and n.
    low = np.where(count == 0, np.where(trials > 0, 0.0, np.nan), np.clip(low, 0, 1))
    high = np.where((count == trials) & (trials > 0), 1.0, np.clip(high, 0, 1))
    if count.ndim == 0:
        return float(low), float(high)
    return low, high


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


def mean_with_interval(values: Sequence[float], bounds: tuple[float, float]) -> Estimate:
    """Return the mean with Student's t interval.

    Args:
        values: At least two, one for each seed or whatever else is the sample.
        bounds: The interval is cut to this range, that of possible values.

    Returns:
        Mean and interval.
    """
    described = DescrStatsW(np.asarray(values, float))
    low, high = described.tconfint_mean(SIGNIFICANCE)
    return Estimate(float(described.mean), max(float(low), bounds[0]), min(float(high), bounds[1]))


def across_seeds(frame: pd.DataFrame, by: Sequence[str], rate: str, prefix: str) -> pd.DataFrame:
    """Summarise a rate over seeds.

    Args:
        frame: Rows with the columns ``by``, ``seed``, ``rate``, ``{prefix}_low`` and
            ``{prefix}_high``; one row for each seed in a group.
        by: Columns that make a group; NaN is a value like any other.
        rate: Column of a rate in [0, 1].
        prefix: Prefix of the columns that hold the rate's interval within a seed.

    Returns:
        One row a group, in order of appearance: ``by``, ``seeds`` (how many have a rate),
        ``value``, ``low``, ``high``: with one seed its rate and interval over images, with
        several the mean and Student's t interval over seeds. Groups without a rate are left out.
    """
    rows = []
    known = frame.dropna(subset=[rate])
    for key, group in known.groupby(list(by), dropna=False, sort=False):
        if len(group) == 1:
            estimate = Estimate(
                *(float(group[c].iloc[0]) for c in (rate, f"{prefix}_low", f"{prefix}_high"))
            )
        else:
            estimate = mean_with_interval(group[rate].tolist(), (0.0, 1.0))
        rows.append((*key, len(group), *estimate))
    types = {column: frame.dtypes[column] for column in by}
    return pd.DataFrame(rows, columns=[*by, "seeds", "value", "low", "high"]).astype(types)


def rate_change(
    before: Sequence[tuple[int, int]], after: Sequence[tuple[int, int]]
) -> Estimate | None:
    """Estimate by how much a rate changed.

    Args:
        before: ``(successes, n)`` for every seed.
        after: The same for the same seeds, in the same order.

    Returns:
        The difference, after minus before, in [-1, 1]. With one seed the interval is Newcombe's
        (Stat. Med. 1998, method 10); it takes the two groups of images as independent, which is
        too wide where they are mostly the same images. With several it is Student's t of the
        differences seed by seed. None where an ``n`` is 0 or there is no seed.
    """
    if not before or any(n == 0 for _, n in (*before, *after)):
        return None
    differences = [s1 / n1 - s0 / n0 for (s0, n0), (s1, n1) in zip(before, after, strict=True)]
    if len(differences) > 1:
        return mean_with_interval(differences, (-1.0, 1.0))
    low, high = confint_proportions_2indep(
        *after[0], *before[0], method="newcomb", compare="diff", alpha=SIGNIFICANCE
    )
    return Estimate(differences[0], float(low), float(high))


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
