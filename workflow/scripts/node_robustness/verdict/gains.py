"""What a larger tolerance gains in robust accuracy, and whether that is real."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from node_robustness.perturbations.sizes import Bools
from node_robustness.statistics.crossed import Difference, difference, holm
from node_robustness.statistics.intervals import SIGNIFICANCE
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.causes import SMALL
from node_robustness.verdict.comparisons import Replicated, columns, reference_tolerance
from node_robustness.verdict.verdicts import (
    ABSENT,
    ENDING,
    HOLDS,
    LEVEL,
    MASKED,
    UNDECIDED,
    WHERE,
    ending,
)
from node_robustness.words import points, signed

_GAINS = {
    **WHERE,
    "reference": "float64",
    **{
        f"{name}{part}": "float64"
        for name in ("paper", "strongest", "hidden")
        for part in ("", "_low", "_high")
    },
    **dict.fromkeys(["p_paper", "p_strongest"], "float64"),
    **ENDING,
}


def gain_table(
    items: Sequence[Replicated],
    verdicts: pd.DataFrame,
    paper: str | None,
    trained: Mapping[str, float],
) -> pd.DataFrame:
    """Give a verdict on the claim that a larger tolerance makes a model more robust.

    Args:
        items: Result of `comparisons.replicated`.
        verdicts: Result of `verdicts.verdict_table`.
        paper: Name of the paper's attack, None without one.
        trained: Tolerance in training, by model.

    Returns:
        One row for every model, norm, epsilon and tolerance above the ``reference`` (the training
        tolerance, else the smallest): the gain in robust accuracy over that under the ``paper``'s
        protocol and under the ``strongest``, and how much of the first the second does not show
        (``hidden``), with paired 95 % intervals; Holm-adjusted p-values of either gain and of the
        two one-sided hypotheses on ``hidden``; and the ``verdict``: ``absent`` where the paper's
        protocol shows no gain in the first place.
    """
    found: list[tuple[dict[str, Any], _Gain]] = []
    for item, reference in _raised(items, trained):
        for epsilon in item.epsilons:
            gain = _gain(item, reference, paper, epsilon)
            if gain is not None:
                found.append(
                    (
                        item.where
                        | {"epsilon": epsilon, "reference": reference.where["tolerance"]}
                        | {"n": gain.n, "seeds": gain.seeds}
                        | columns("paper", gain.paper)
                        | columns("strongest", gain.strongest)
                        | columns("hidden", gain.hidden),
                        gain,
                    )
                )
    adjusted = zip(
        holm([gain.paper.p for _, gain in found]),
        holm([gain.strongest.p for _, gain in found]),
        holm([gain.hidden.above(SMALL) for _, gain in found]),
        holm([gain.hidden.below(SMALL) for _, gain in found]),
        strict=True,
    )
    names = ("p_paper", "p_strongest", "p_masked", "p_holds")
    rows = [
        row | dict(zip(names, p, strict=True)) for (row, _), p in zip(found, adjusted, strict=True)
    ]
    return tabulate((row | _decide_gain(row, verdicts) for row in rows), _GAINS)


@dataclass(frozen=True)
class _Gain:
    n: int
    seeds: int
    paper: Difference
    strongest: Difference
    hidden: Difference


def _raised(
    items: Sequence[Replicated], trained: Mapping[str, float]
) -> Iterable[tuple[Replicated, Replicated]]:
    """Pairs of a model at a tolerance and at its smaller reference tolerance."""
    for item in items:
        own = [
            other
            for other in items
            if {**other.where, "tolerance": 0} == {**item.where, "tolerance": 0}
        ]
        reference = reference_tolerance(own, trained.get(item.where["model"]))
        tolerance = item.where["tolerance"]
        if tolerance is not None and reference is not None and tolerance > reference:
            yield item, next(o for o in own if o.where["tolerance"] == reference)


def _gain(
    item: Replicated, reference: Replicated, paper: str | None, epsilon: float
) -> _Gain | None:
    def both(protocol: str) -> tuple[Bools | None, Bools | None]:
        before = reference.robust(protocol, paper, epsilon, item.groups)
        return before, item.robust(protocol, paper, epsilon, reference.groups)

    before, after = both("paper")
    strongest_before, strongest_after = both("strongest")
    if before is None or after is None or strongest_before is None or strongest_after is None:
        return None
    # Whatever the paper's attack breaks the strongest does: an image's two gains differ by how
    # its gap between the protocols changes.
    hidden = difference(before & ~strongest_before, after & ~strongest_after)
    return _Gain(
        after.shape[1],
        len(after),
        difference(before, after),
        difference(strongest_before, strongest_after),
        hidden,
    )


def _decide_gain(row: Mapping[str, Any], verdicts: pd.DataFrame) -> dict[str, str]:
    if row["paper"] <= 0 or row["p_paper"] >= SIGNIFICANCE:
        return ending(
            ABSENT,
            "no_gain",
            f"Under the paper's protocol robust accuracy changes by {signed(row['paper'])} "
            f"({signed(row['paper_low'])} to {signed(row['paper_high'])}): no clear gain.",
        )
    shown = (
        f"The paper's protocol shows a gain of {points(row['paper'])}, the strongest attack "
        f"a change of {signed(row['strongest'])}"
    )
    if row["p_masked"] < LEVEL:
        return ending(MASKED, "hidden", f"{shown}: {points(row['hidden'])} are masked gradients.")
    cell = _cell(row, verdicts)
    remains = row["strongest"] > 0 and row["p_strongest"] < SIGNIFICANCE
    if remains and row["p_holds"] < LEVEL and cell == HOLDS:
        return ending(HOLDS, "hidden", f"{shown}: both protocols show the gain.")
    if not remains:
        why = "whether a gain remains under the strongest attack is not clear"
    elif not row["p_holds"] < LEVEL:
        why = "how much of it remains is not clear"
    else:
        why = f"but the verdict on robust accuracy at this tolerance is {cell}"
    return ending(UNDECIDED, "unclear", f"{shown}; {why}.")


def _cell(row: Mapping[str, Any], verdicts: pd.DataFrame) -> str:
    keys = ("dataset", "model", "tolerance", "norm", "epsilon")
    own = verdicts
    for key in keys:
        own = own[own[key] == row[key]]
    return str(own.verdict.iloc[0])
