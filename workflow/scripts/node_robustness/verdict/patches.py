"""What repair and insertion show of one window: necessary, sufficient, both or neither.

The window is chosen on one half of the images, by its repair. All that is said of it, and its
comparison with other windows of its length, is tested on the other half.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from node_robustness.perturbations.sizes import Bools
from node_robustness.statistics import networks, paired, proportions
from node_robustness.statistics.proportions import Estimate, Floats
from node_robustness.verdict.followed import FIRST, SECOND, Followed, Half, Window, windows

HALF = 0.5
"""The share of the images, and of a loss, above which there is most of it."""

_UNKNOWN = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Patched:
    """The chosen window and what its patches did on the other half of the images.

    Attributes:
        window: None if nothing was patched.
        ties: how many other windows of its length restore as many on the half that chose it.
        repaired: share of the adversarial examples restored, over networks.
        inserted: share of the clean images whose decision is taken away.
        repair_others: the mean share that the other windows of its length restore.
        insert_others: the mean share whose decision they take away.
        necessary: p-value of "its repair restores at most half", the largest of the networks.
        sufficient: the same of its insertion.
        neither: p-value of "one of the two does at least half".
        special: p-value of "it restores no more than a random other window of its length".
        more: by how much more it restores than that, over networks.
    """

    window: Window | None = None
    ties: int = 0
    repaired: Estimate = _UNKNOWN
    inserted: Estimate = _UNKNOWN
    repair_others: float = math.nan
    insert_others: float = math.nan
    necessary: float = 1.0
    sufficient: float = 1.0
    neither: float = 1.0
    special: float = 1.0
    more: Estimate = _UNKNOWN


def patched(items: Sequence[Followed]) -> Patched:
    """Choose a window and test it.

    Args:
        items: The networks of a setting.

    Returns:
        The shortest length at which the repair of some window (of at most a third of the parts)
        restores at least half of the examples of the first half of the images, and of that length
        the window that restores most, the earliest of equals; where none restores half, the best
        of the longest windows. Tested on the second half.
    """
    known = windows(max(window.stop for window in items[0].patched)) if items[0].patched else []
    chosen = _chosen(items, known)
    if chosen is None:
        return Patched()
    window, ties = chosen
    others = [w for w in known if _length(w) == _length(window) and w != window]
    repaired = [_tried(item, item.repaired, window, SECOND) for item in items]
    inserted = [_tried(item, item.inserted, window, SECOND) for item in items]
    if not all(len(own) for own in (*repaired, *inserted)):
        return Patched(window, ties)
    tests = {
        "necessary": max(proportions.above(own.sum(), len(own), HALF) for own in repaired),
        "sufficient": max(proportions.above(own.sum(), len(own), HALF) for own in inserted),
        "neither": max(
            proportions.below(own.sum(), len(own), HALF) for own in (*repaired, *inserted)
        ),
    }
    found = Patched(window, ties, _share(repaired), _share(inserted), **tests)
    return _compared(items, found, window, others) if others else found


def _compared(
    items: Sequence[Followed], found: Patched, window: Window, others: Sequence[Window]
) -> Patched:
    """Compare the window with the others of its length."""
    gained, lost, n = _against(items, window, others)
    return replace(
        found,
        repair_others=float(_rates(items, "repaired", others, SECOND).mean()),
        insert_others=float(_rates(items, "inserted", others, SECOND).mean()),
        special=float(np.max(paired.mcnemar(gained, lost)[0])),
        more=networks.across((gained - lost) / n, *paired.interval(gained, lost, n)),
    )


def _chosen(items: Sequence[Followed], known: Sequence[Window]) -> tuple[Window, int] | None:
    """The window, and how many others of its length restore as many."""
    if not known:
        return None
    rates = _rates(items, "repaired", known, FIRST)
    if np.isnan(rates).all():
        return None
    rates = np.nan_to_num(rates, nan=-1.0)
    lengths = np.array([_length(window) for window in known])
    enough = lengths[rates >= HALF]
    of_length = np.flatnonzero(lengths == (enough.min() if len(enough) else lengths.max()))
    best = of_length[rates[of_length].argmax()]
    return known[best], int((rates[of_length] == rates[best]).sum()) - 1


def _length(window: Window) -> int:
    return window.stop - window.first


def _rates(items: Sequence[Followed], patch: str, known: Sequence[Window], half: Half) -> Floats:
    """The share of decisions that a patch of each window changes on a half, a mean of networks."""
    found = []
    for item in items:
        outcomes = [_tried(item, getattr(item, patch), window, half) for window in known]
        found.append([own.mean() if len(own) else math.nan for own in outcomes])
    means: Floats = np.mean(found, axis=0)
    return means


def _tried(item: Followed, outcome: NDArray[np.int8], window: Window, half: Half) -> Bools:
    """What a patch of a window did to the images of a half for which it could be tried."""
    own = outcome[item.among(half), item.patched.index(window)]
    changed: Bools = own[own >= 0] == 1
    return changed


def _against(
    items: Sequence[Followed], window: Window, others: Sequence[Window]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Images that only the window restores, and that only another one does, and all, by network.

    Each image is compared with one other window, the next image with the next. So images are
    independent, and on the average both restore equally many if the window is nothing special.
    """
    counts = []
    for item in items:
        places = [item.patched.index(other) for other in others]
        rows = np.flatnonzero(item.among(SECOND))
        own = item.repaired[rows, item.patched.index(window)]
        other = item.repaired[rows, np.resize(places, len(rows))]
        known = (own >= 0) & (other >= 0)
        here, there = own[known] == 1, other[known] == 1
        counts.append([(here & ~there).sum(), (there & ~here).sum(), known.sum()])
    gained, lost, n = np.array(counts).T
    return gained, lost, n


def _share(outcomes: Sequence[Bools]) -> Estimate:
    counts = [(int(own.sum()), len(own)) for own in outcomes]
    bounds = [proportions.interval(*count) for count in counts]
    return networks.across([own.mean() for own in outcomes], *zip(*bounds, strict=True))
