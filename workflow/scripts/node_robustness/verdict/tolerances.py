"""Claim 2: does a larger tolerance protect?"""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from node_robustness.tables.frame import records, tabulate
from node_robustness.verdict.contrasts import (
    EQUIVALENT,
    KEY,
    LESS,
    MORE,
    UNDECIDED,
    adjusted,
    contrasts,
    direction,
    is_primary,
    nothing_left,
    setting_key,
)
from node_robustness.verdict.pairs import MASKED as MASKED_IMAGES
from node_robustness.verdict.pairs import TOLERANCE
from node_robustness.verdict.verdicts import LEVEL, MASKED, SMALL, level_of
from node_robustness.words import points, signed

REAL, REVERSED, NONE = "real", "reversed", "none"
CLAIMS = (REAL, MASKED, REVERSED, NONE, UNDECIDED)

_TESTS: dict[str, tuple[str, ...]] = {
    "paper": ("more", "less"),
    "corrected": (),
    "strongest": ("more", "less", "equal"),
    "masked": ("beyond",),
}
"""The p-values of each change that the rules look at."""

_CHANGES = ("paper", "corrected", "strongest", "masked")
_TOLERANCES = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "reference": "float64",
    "norm": "str",
    "epsilon": "float64",
    **dict.fromkeys(["n", "networks"], "int64"),
    "level": "str",
    "primary": "bool",
    **{f"{name}{part}": "float64" for name in _CHANGES for part in ("", "_low", "_high")},
    **dict.fromkeys(
        [f"p_{name}_{p}" for name, tests in _TESTS.items() for p in tests],
        "float64",
    ),
    **dict.fromkeys(["claim", "because", "reason"], "str"),
}


def tolerance_table(
    pairs: pd.DataFrame, verdicts: pd.DataFrame, primary: Mapping[str, float]
) -> pd.DataFrame:
    """Give a verdict on the claim that a larger tolerance makes a model more robust.

    Args:
        pairs: Result of `pairs.pair_table`.
        verdicts: Result of `verdicts.verdict_table`.
        primary: Epsilon at which claims are made first, by norm.

    Returns:
        One row for every model, norm, epsilon and tolerance above the ``reference`` (the training
        tolerance, else the smallest), over all networks (``level``): how much larger robust
        accuracy is under ``paper``, ``corrected`` and ``strongest``, and the share of images whose
        robustness is ``masked`` gradient; each the mean over networks with an interval that
        contains the paired 95 % intervals of all, NaN where not known. p-values adjusted over this
        experiment (`contrasts.adjusted`): of a change either way, of equality within 5 points, and
        of at most 5 points more masked gradient. The ``claim``: real, masked, reversed, none or
        undecided, ``because`` of which rule, and the ``reason``.
    """
    own = pairs[pairs.kind == TOLERANCE]
    tables = {name: contrasts(own, name) for name in ("paper", "corrected", "strongest")}
    tables["masked"] = contrasts(own, MASKED_IMAGES)
    columns: dict[tuple[Any, ...], dict[str, Any]] = {}
    for name, found in tables.items():
        for row in records(found.join(adjusted(found, _TESTS[name], primary).add_prefix("p_"))):
            own_columns = columns.setdefault(setting_key(row), {})
            own_columns |= {name: row["value"], f"{name}_low": row["low"]}
            own_columns |= {f"{name}_high": row["high"]}
            own_columns |= {f"p_{name}_{p}": row[f"p_{p}"] for p in _TESTS[name]}
    lacks = {setting_key(row): row["lacks"] for row in records(verdicts)}
    strongest = tables["strongest"].assign(primary=is_primary(tables["strongest"], primary))
    rows = []
    for row in records(strongest):
        key = setting_key(row)
        merged = {name: row[name] for name in (*KEY, "n", "networks", "primary")}
        merged |= {"reference": row["reference_tolerance"], "level": level_of(row["networks"])}
        merged |= dict.fromkeys(("paper", "masked"), math.nan) | columns[key]
        rows.append(merged | _decide(merged, lacks.get(key, ""), nothing_left(row)))
    return tabulate(rows, _TOLERANCES)


def _ruled(claim: str, because: str, reason: str) -> dict[str, str]:
    return {"claim": claim, "because": because, "reason": reason}


def _decide(row: dict[str, Any], lacks: str, nothing: bool) -> dict[str, str]:
    """Apply the rules of docs/verdict.md to one row."""
    strongest = direction(
        row["strongest"],
        row["p_strongest_more"],
        row["p_strongest_less"],
        row["p_strongest_equal"],
    )
    found = f"Under the strongest attack robust accuracy changes by {_interval(row, 'strongest')}"
    if math.isnan(row["paper"]):
        reason = f"The paper's attack did not run at both tolerances. {found}."
        return _ruled(UNDECIDED, "no_paper", reason)
    paper = direction(row["paper"], row["p_paper_more"], row["p_paper_less"], 1.0)
    shown = f"The paper's procedure shows a change of {_interval(row, 'paper')}"
    both = f"{shown}, the strongest attack one of {_interval(row, 'strongest')}"
    if strongest == LESS:
        return _ruled(REVERSED, REVERSED, f"{both}: the larger tolerance makes it less robust.")
    if paper != MORE:
        if nothing:
            return _ruled(
                UNDECIDED,
                "nothing_left",
                f"{both}: no image is left at either, and there is nothing to compare.",
            )
        if strongest == EQUIVALENT:
            return _ruled(NONE, NONE, f"{both}: the tolerance changes less than {points(SMALL)}.")
        return _ruled(
            UNDECIDED, "images", f"{both}: neither a change nor that there is none is shown."
        )
    if strongest == MORE:
        if lacks:
            return _ruled(UNDECIDED, "attacks", f"{both}. At this tolerance: {lacks}")
        return _ruled(REAL, REAL, f"{both}: both show the gain.")
    hidden = row["paper"] - row["strongest"]
    masked = f"{points(hidden)} of the gain are not there under the strongest attack"
    if math.isnan(row["masked"]):
        return _ruled(UNDECIDED, "no_corrected", f"{both}. {masked}; by which cause is not known.")
    if row["p_masked_beyond"] < LEVEL and 2 * row["masked"] >= hidden:
        return _ruled(
            MASKED,
            MASKED,
            f"{both}. {masked}; masked gradient grows by {_interval(row, 'masked')}.",
        )
    return _ruled(
        UNDECIDED,
        "unclear",
        f"{both}. {masked}; masked gradient grows by {_interval(row, 'masked')}, which is not "
        "shown to be the reason.",
    )


def _interval(row: dict[str, Any], name: str) -> str:
    return f"{signed(row[name])} ({signed(row[f'{name}_low'])} to {signed(row[f'{name}_high'])})"
