"""Intervals: of a proportion over images, of a mean over seeds, and of a change between two rates.

All are 95 % intervals. Within one trained model the images are the sample (Wilson, Newcombe);
where a model was trained from several seeds, the seeds are (Student's t).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import roc_curve
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

SIGNIFICANCE = 0.05
"""One minus the confidence level of every interval."""


@overload
def wilson(successes: int, n: int) -> tuple[float, float]: ...
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


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_over_seeds(values: Sequence[float], bounds: tuple[float, float]) -> Estimate:
    """Return the mean over seeds with Student's t interval.

    Args:
        values: One value a seed; at least two.
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
            estimate = mean_over_seeds(group[rate].tolist(), (0.0, 1.0))
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
        return mean_over_seeds(differences, (-1.0, 1.0))
    low, high = confint_proportions_2indep(
        *after[0], *before[0], method="newcomb", compare="diff", alpha=SIGNIFICANCE
    )
    return Estimate(differences[0], float(low), float(high))


def roc(
    negatives: NDArray[Any], positives: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ROC curve of a score that should be larger for positives.

    Args:
        negatives: Scores of n negatives, n > 0.
        positives: Scores of m positives, m > 0.

    Returns:
        False positive rates and true positive rates, both ascending from 0 to 1.
    """
    truth = np.repeat([0, 1], [len(negatives), len(positives)])
    false, true, _ = roc_curve(truth, np.concatenate([negatives, positives]))
    return false, true


def auc_with_interval(negatives: NDArray[Any], positives: NDArray[Any]) -> Estimate:
    """Return the area under the ROC curve, the chance that a positive has the larger score.

    The variance is DeLong's (Biometrics 1988); the interval is Wilson's for the number of images
    that a proportion of that variance would need, and at most the smaller of the two samples,
    which keeps it in [0, 1] and open where the scores do not overlap.

    Args:
        negatives: Scores of n negatives, n > 0.
        positives: Scores of m positives, m > 0.

    Returns:
        The area with its 95 % interval; ties count by half.
    """
    n, m = len(negatives), len(positives)
    ranks = rankdata(np.concatenate([negatives, positives]))
    above = (ranks[n:] - rankdata(positives)) / n
    below = 1 - (ranks[:n] - rankdata(negatives)) / m
    area = float(above.mean())
    images = float(min(n, m))
    if n > 1 and m > 1:
        variance = above.var(ddof=1) / m + below.var(ddof=1) / n
        if variance > 0:
            images = min(area * (1 - area) / float(variance), images)
    return Estimate(area, *wilson(area * images, images))
