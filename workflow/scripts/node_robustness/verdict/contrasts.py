"""What pairs of networks show together: a direction, equality, or neither.

A direction needs a p-value below its level and an estimate of at least `SMALL`: less is never
called a difference. Of several networks every pair has to show it (the largest p-value counts).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.statistics import paired
from node_robustness.statistics.multiplicity import holm_chains
from node_robustness.verdict.pairs import REFERENCE
from node_robustness.verdict.verdicts import LEVEL, SMALL

MORE, LESS, EQUIVALENT, UNDECIDED = "more", "less", "equivalent", "undecided"

KEY = ("experiment", "dataset", "model", "tolerance", "norm", "epsilon")


def contrasts(pairs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Put the pairs of networks of every comparison together, under one protocol.

    Args:
        pairs: Rows of one kind of `pairs.pair_table`.
        protocol: One of its protocols.

    Returns:
        One row for every comparison (`KEY` and the reference) in the order of the table: ``value``,
        the mean difference of the pairs, and an interval that contains the exact 95 % intervals of
        all (``low``, ``high``); the mean robust accuracy here and in the ``reference``; the number
        of ``networks`` and ``reference_networks``; and the largest p-values of the pairs, not
        adjusted: of no gain (``more``), of no loss (``less``), of a difference of at least `SMALL`
        either way (``equal``), and of a gain of at most `SMALL` (``beyond``).
    """
    own = pairs[pairs.protocol == protocol]
    gained, lost, n = (own[name].to_numpy() for name in ("gained", "lost", "n"))
    more, less = paired.mcnemar(gained, lost)
    # All tests in one call, which solves them together.
    beyond, no_loss, no_gain = paired.above(
        [gained, gained, lost], [lost, lost, gained], n, [[SMALL], [-SMALL], [-SMALL]]
    )
    equal = np.maximum(no_loss, no_gain)
    p = own.assign(
        more=more,
        less=less,
        equal=equal,
        beyond=beyond,
        rate=own.robust / own.n,
        reference_rate=own.reference / own.n,
    )
    grouped = p.groupby([*KEY, *REFERENCE], sort=False, dropna=False).agg(
        n=("n", "max"),
        networks=("seed", "nunique"),
        reference_networks=("reference_seed", "nunique"),
        value=("difference", "mean"),
        low=("difference_low", "min"),
        high=("difference_high", "max"),
        robust=("rate", "mean"),
        reference=("reference_rate", "mean"),
        more=("more", "max"),
        less=("less", "max"),
        equal=("equal", "max"),
        beyond=("beyond", "max"),
    )
    found: pd.DataFrame = grouped.reset_index()
    return found


def adjusted(
    found: pd.DataFrame,
    names: Sequence[str],
    primary: Mapping[str, float],
    also: Sequence[str] = REFERENCE,
) -> pd.DataFrame:
    """Adjust p-values of comparisons for their number, each column separately.

    The comparisons at the primary epsilon of each norm are one family. The other epsilons of a
    comparison follow it in a fixed order, the smaller ones from the largest down, then the larger
    ones: each is tested only after those before it are shown (`holm_chains`).

    Args:
        found: Comparisons, or whatever else is claimed a row a setting (`KEY`).
        names: Its columns of p-values.
        primary: See `is_primary`.
        also: The columns besides `KEY` that tell comparisons apart.

    Returns:
        These columns, of the same index.
    """
    chain = [name for name in (*KEY, *also) if name != "epsilon"]
    number = found.groupby(chain, sort=False, dropna=False).ngroup().to_numpy()
    epsilons, first = found.epsilon.to_numpy(), is_primary(found, primary).to_numpy()
    starts = np.full(number.max(initial=-1) + 1, math.inf)
    starts[number[first]] = epsilons[first]
    later = epsilons > starts[number]
    order = np.lexsort([np.where(later, epsilons, -epsilons), later, number])
    chains = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    values = found[list(names)].astype(float)
    for name in names:
        p = values[name].to_numpy(copy=True)
        p[order] = np.concatenate(holm_chains([p[rows].tolist() for rows in chains]))
        values[name] = p
    return values


def is_primary(found: pd.DataFrame, primary: Mapping[str, float]) -> "pd.Series[bool]":
    """Whether each row is at the primary epsilon of its norm.

    Args:
        found: Comparisons, or whatever else is claimed a row a setting.
        primary: The primary epsilons by norm. Of a norm of which nothing was measured at it, and
            of one that is missing, the middle one of those that were measured counts.
    """
    first = {}
    for norm, epsilons in found.groupby("norm").epsilon:
        own = sorted(set(epsilons))
        chosen = primary.get(str(norm))
        first[norm] = chosen if chosen in own else own[len(own) // 2]
    return found.epsilon == found.norm.map(first).astype(float)


def setting_key(row: Mapping[str, Any], names: Sequence[str] = KEY) -> tuple[Any, ...]:
    """The coordinates of a row, to be compared: without an ODE there is no tolerance."""
    return tuple(None if pd.isna(row[name]) else row[name] for name in names)


def nothing_left(row: Mapping[str, Any]) -> bool:
    """Whether a comparison is of networks that keep no image: there is nothing to compare.

    That both keep none is no equality: at a smaller epsilon they may differ.
    """
    return row["robust"] == 0 and row["reference"] == 0  # type: ignore[no-any-return]


def direction(value: float, more: float, less: float, equal: float) -> str:
    """What adjusted p-values and an estimate show."""
    if more < LEVEL and value >= SMALL:
        return MORE
    if less < LEVEL and value <= -SMALL:
        return LESS
    return EQUIVALENT if equal < LEVEL else UNDECIDED
