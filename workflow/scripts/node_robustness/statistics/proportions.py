"""A proportion: its exact interval and its exact tests (Clopper and Pearson, Biometrika 1934).

The images are the sample: one network classified each of them once.
"""

from bisect import bisect_left
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

SIGNIFICANCE = 0.05
"""One minus the confidence level of every interval that is shown."""

_MOST_IMAGES = 10**6

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float


@overload
def interval(count: float, n: float, level: float = ...) -> tuple[float, float]: ...
@overload
def interval(count: ArrayLike, n: ArrayLike, level: float = ...) -> tuple[Floats, Floats]: ...
def interval(count: ArrayLike, n: ArrayLike, level: float = 1 - SIGNIFICANCE) -> tuple[Any, Any]:
    """Return the Clopper-Pearson interval of a proportion.

    Args:
        count: Counts of any shape. They may be fractions, as means of counts are.
        n: Numbers of trials, at least the counts; broadcast with them.
        level: The confidence level. Each bound fails with at most half of the rest.

    Returns:
        The lower and the upper bounds, in [0, 1], shaped like the counts; NaN where ``n`` is 0.

    Raises:
        ValueError: A count is negative or exceeds its number of trials.
    """
    low, high = limits(count, n, (1 - level) / 2)
    return (float(low), float(high)) if low.ndim == 0 else (low, high)


def limits(count: ArrayLike, n: ArrayLike, tail: ArrayLike) -> tuple[Floats, Floats]:
    """Return the lower and the upper limits, arrays, each of which fails with at most ``tail``."""
    count, n, tail = np.broadcast_arrays(
        np.asarray(count, float), np.asarray(n, float), np.asarray(tail, float)
    )
    if ((count < 0) | (count > n)).any():
        raise ValueError("counts must lie between 0 and the number of trials")
    rest = n - count
    # The beta distributions have no first or no second parameter at 0 and at n.
    low = special.betaincinv(np.where(count > 0, count, 1), rest + 1, tail)
    high = special.betainccinv(count + 1, np.where(rest > 0, rest, 1), tail)
    low, high = np.where(count > 0, low, 0.0), np.where(rest > 0, high, 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


@overload
def above(count: float, n: float, share: float) -> float: ...
@overload
def above(count: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats: ...
def above(count: ArrayLike, n: ArrayLike, share: ArrayLike) -> Any:
    """Return the exact one-sided p-value of "the true share is at most ``share``".

    Args:
        count: Counts of any shape; fractions are allowed, as in `interval`.
        n: Numbers of trials; with none the p-value is 1.
        share: Shares in [0, 1].

    Returns:
        A float for scalars, else an array.
    """
    count, n = np.asarray(count, float), np.asarray(n, float)
    # P(X >= count) of a binomial X.
    tail = special.betainc(np.where(count > 0, count, 1), n - count + 1, share)
    p = np.where(count > 0, tail, 1.0)
    return float(p) if p.ndim == 0 else p


@overload
def below(count: float, n: float, share: float) -> float: ...
@overload
def below(count: ArrayLike, n: ArrayLike, share: ArrayLike) -> Floats: ...
def below(count: ArrayLike, n: ArrayLike, share: ArrayLike) -> Any:
    """Return the exact one-sided p-value of "the true share is at least ``share``"."""
    n = np.asarray(n, float)
    return above(n - np.asarray(count, float), n, 1 - np.asarray(share, float))


def difference(
    count: int, n: int, reference_count: int, reference_n: int, level: float = 1 - SIGNIFICANCE
) -> Estimate | None:
    """Return by how much a proportion is larger than another, where no more than counts is known.

    Args:
        count: A count.
        n: Its number of trials.
        reference_count: The count of the reference.
        reference_n: Its number of trials.
        level: The confidence level.

    Returns:
        The difference in [-1, 1], from the limits of both proportions, which share the error
        (Bonferroni). It holds the level however the two depend on each other, as on the same
        images. None where there are no trials.
    """
    if n == 0 or reference_n == 0:
        return None
    low, high = interval(count, n, (1 + level) / 2)
    reference_low, reference_high = interval(reference_count, reference_n, (1 + level) / 2)
    change = count / n - reference_count / reference_n
    return Estimate(change, low - reference_high, high - reference_low)


def images_needed(
    share: float, margin: float, side: Literal["above", "below"], level: float = SIGNIFICANCE / 2
) -> int | None:
    """Return how many images would decide on which side of a margin a share lies.

    Args:
        share: The share that is expected, in [0, 1].
        margin: The margin, in [0, 1].
        side: The side to be shown.
        level: The one-sided significance level.

    Returns:
        The smallest number of images of which such a share gives a p-value of at most ``level``;
        None where a million are not enough, as where the share lies on the other side.
    """
    test = above if side == "above" else below

    def shown(n: int) -> bool:
        return test(share * n, n, margin) <= level

    if (share <= margin) if side == "above" else (share >= margin):
        return None
    n = bisect_left(range(1, _MOST_IMAGES + 1), True, key=shown) + 1
    return n if n <= _MOST_IMAGES else None
