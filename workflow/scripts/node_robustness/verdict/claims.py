"""Claim records: what is claimed of a model's robustness, what it rests on, and its footnotes.

After RobustBench's model cards (Croce et al. 2021): a value travels with the attacks, budgets
and weights that it was measured with, and with whether it is reliable.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.files.atomic import SOFTWARE
from node_robustness.provenance.software import versions
from node_robustness.statistics.intervals import SIGNIFICANCE
from node_robustness.verdict.causes import SMALL
from node_robustness.verdict.verdicts import HOLDS, LEVEL, MARGIN

_SCHEMA_VERSION = 2
_ESTIMATES = ("clean", "paper", "strongest", "gap", "hidden")
_PLACE = ("experiment", "dataset", "model")
_TABLES = ("budgets", "verdicts", "gains", "checks")


def claim(
    tables: Mapping[str, pd.DataFrame], place: Mapping[str, str], paper: str | None
) -> dict[str, Any]:
    """Write the record of one model on one dataset.

    Args:
        tables: ``budgets``, ``verdicts``, ``gains`` and ``checks`` of the experiment.
        place: Its ``experiment``, ``dataset`` and ``model``.
        paper: Name of the paper's attack, None without one.

    Returns:
        What JSON can hold: the place, ``images`` (their number and a SHA-256 of their rows in the
        test set), ``seeds`` with the SHA-256 of their weights, ``attacks`` with all parameters and
        budgets, the ``rules``, and ``results``: for every tolerance, norm and epsilon the values
        with their intervals, whether the paper's value is ``reliable``, and the ``footnote``;
        then ``gains`` with the tolerance, ``checks``, and the software. Of a model that nothing
        attacked ``images`` is None, and what would speak of attacks is empty.
    """
    own = {name: _own(tables[name], place) for name in _TABLES}
    budgets = own["budgets"].to_dict("records")
    return {
        "schema_version": _SCHEMA_VERSION,
        **place,
        "images": (
            {"n": budgets[0]["n"], "index_sha256": budgets[0]["images_sha256"]} if budgets else None
        ),
        "seeds": {
            str(row["seed"]): {"weights_sha256": row["weights_sha256"] or None} for row in budgets
        },
        "protocols": {
            "paper": paper,
            "strongest": "for every image the smallest adversarial of all attacks and epsilons",
        },
        "attacks": _attacks(budgets),
        "rules": {
            "margin": MARGIN,
            "margin_of_gains": SMALL,
            "level_of_each_error": LEVEL,
            "multiplicity": "Holm, over all cells of the experiment",
            "confidence_level": 1 - SIGNIFICANCE,
        },
        "results": [_result(row) for row in own["verdicts"].to_dict("records")],
        "gains": [_result(row) for row in own["gains"].to_dict("records")],
        "checks": [
            _plain({name: row[name] for name in _CHECKED})
            for row in own["checks"].to_dict("records")
        ],
        "software": SOFTWARE,
        "versions": versions(),
    }


_CHECKED = ("seed", "tolerance", "check", "value", "bound", "threshold", "outcome", "supports")


def _own(table: pd.DataFrame, place: Mapping[str, str]) -> pd.DataFrame:
    for name, value in place.items():
        table = table[table[name] == value]
    return table


def _attacks(budgets: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Every attack with its parameters, once where seeds and tolerances share them."""
    found: list[dict[str, Any]] = []
    for row in budgets:
        entry = {name: row[name] for name in ("attack", "norm", "epsilon")}
        entry["parameters"] = json.loads(row["parameters"])
        if entry not in found:
            found.append(entry)
    return found


def _result(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A verdict as a claim: estimates as objects, the reason as the footnote."""
    bounds = {f"{name}{part}" for name in _ESTIMATES for part in ("", "_low", "_high")}
    rest = {k: v for k, v in row.items() if k not in bounds and k not in (*_PLACE, "reason")}
    estimates = {
        name: {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}
        for name in _ESTIMATES
        if name in row
    }
    return _plain(
        rest
        | {name: _plain(estimate) for name, estimate in estimates.items()}
        | {"reliable": row["verdict"] == HOLDS, "footnote": row["reason"]}
    )


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values that JSON has: no NaN, which is None, and no numpy types."""
    plain = {}
    for key, value in row.items():
        item = value.item() if isinstance(value, np.generic) else value
        missing = isinstance(item, float) and not math.isfinite(item)
        plain[str(key)] = None if missing else item
    return plain
