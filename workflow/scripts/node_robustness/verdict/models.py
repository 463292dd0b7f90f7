"""Claim 1: are models with an ODE more robust than models without, and under which procedure?"""

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
from node_robustness.verdict.pairs import MODEL
from node_robustness.verdict.verdicts import SMALL, level_of
from node_robustness.words import percent, points, signed

PROCEDURES = ("paper", "strongest")

_MODELS = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    "reference_model": "str",
    **dict.fromkeys(["n", "networks", "reference_networks"], "int64"),
    "level": "str",
    "primary": "bool",
    **{
        f"{procedure}{part}": "float64"
        for procedure in PROCEDURES
        for part in ("", "_low", "_high", "_robust", "_reference", "_p_more", "_p_less", "_p_equal")
    },
    **{f"{procedure}_claim": "str" for procedure in PROCEDURES},
    "reversed": "bool",
    "reason": "str",
}
_WORDS = {
    MORE: "more robust",
    LESS: "less robust",
    EQUIVALENT: "equally robust",
    UNDECIDED: "neither shown to be more nor less nor equally robust",
}
_UNDER = {"paper": "Under the paper's procedure", "strongest": "Under the strongest attack"}


def model_table(pairs: pd.DataFrame, primary: Mapping[str, float]) -> pd.DataFrame:
    """Compare every model with an ODE to every model without, under both procedures.

    Args:
        pairs: Result of `pairs.pair_table`.
        primary: Epsilon at which claims are made first, by norm.

    Returns:
        One row for every model, tolerance, norm, epsilon and reference, over all networks of both
        (``level``), which are compared each with each. For ``paper`` and for ``strongest`` the
        difference of robust accuracy with an interval that contains those of all pairs, the two
        accuracies, the p-values adjusted over this experiment (`contrasts.adjusted`), and the
        claim: more, less, equivalent (within 5 points, where either keeps an image) or undecided;
        empty where the paper's attack did not run. ``reversed``: the two claims are opposite
        directions. ``primary``: the epsilon at which the claim is made first.
    """
    own = pairs[pairs.kind == MODEL]
    found = {procedure: _decided(contrasts(own, procedure), primary) for procedure in PROCEDURES}
    every = found["strongest"]
    rows = [
        _row(row, {name: rows.get(key) for name, rows in found.items()})
        for key, row in every.items()
    ]
    return tabulate(rows, _MODELS)


_KEYS = (*KEY, "reference_model")
_Key = tuple[Any, ...]


def _decided(found: pd.DataFrame, primary: Mapping[str, float]) -> dict[_Key, dict[str, Any]]:
    """The comparisons under one procedure with adjusted p-values and claims, by setting."""
    found = found.join(adjusted(found, ["more", "less", "equal"], primary).add_prefix("p_"))
    found["primary"] = is_primary(found, primary)
    return {
        setting_key(row, _KEYS): row
        | {
            "claim": UNDECIDED
            if nothing_left(row)
            else direction(row["value"], row["p_more"], row["p_less"], row["p_equal"])
        }
        for row in records(found)
    }


def _row(row: dict[str, Any], found: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The columns of one comparison under both procedures; the paper's may be missing."""
    kept = (*_KEYS, "n", "networks", "reference_networks", "primary")
    merged = {name: row[name] for name in kept}
    merged["level"] = level_of(row["networks"] + row["reference_networks"])
    for procedure, own in found.items():
        merged[f"{procedure}_claim"] = "" if own is None else own["claim"]
        if own is not None:
            merged[procedure] = own["value"]
            for name in ("low", "high", "robust", "reference", "p_more", "p_less", "p_equal"):
                merged[f"{procedure}_{name}"] = own[name]
    claims = {merged[f"{procedure}_claim"] for procedure in found}
    return merged | {
        "reversed": claims == {MORE, LESS},
        "reason": " ".join(_sentence(name, row["model"], own) for name, own in found.items()),
    }


def _sentence(procedure: str, model: str, own: dict[str, Any] | None) -> str:
    if own is None:
        return "The paper's attack did not run on both models."
    if nothing_left(own):
        return f"{_UNDER[procedure]} neither keeps an image: there is nothing to compare."
    within = f"within {points(SMALL)}; " if own["claim"] == EQUIVALENT else ""
    return (
        f"{_UNDER[procedure]} {model} is {_WORDS[own['claim']]} ({within}{percent(own['robust'])} "
        f"against {percent(own['reference'])}: {signed(own['value'])}, {signed(own['low'])} to "
        f"{signed(own['high'])})."
    )
