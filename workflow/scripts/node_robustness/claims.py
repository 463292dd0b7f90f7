"""Claim records: what is claimed of a model's robustness, what it rests on, and its footnotes.

After RobustBench's model cards (Croce et al. 2021): a figure travels with the attacks, budgets
and weights that it was measured with, and with whether it is reliable.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from node_robustness import provenance
from node_robustness.causes import SMALL
from node_robustness.protocols import Attacked
from node_robustness.statistics import SIGNIFICANCE
from node_robustness.storage import SOFTWARE
from node_robustness.tables import CELL
from node_robustness.verdicts import HOLDS, LEVEL, MARGIN

_SCHEMA_VERSION = 1
_ESTIMATES = ("clean", "paper", "strongest", "gap", "hidden")
_PLACE = ("experiment", "dataset", "model")


def claim(
    attacked: Sequence[Attacked], tables: Mapping[str, pd.DataFrame], paper: str | None
) -> dict[str, Any]:
    """Write the record of one model on one dataset.

    Args:
        attacked: Its attacks, result of `protocols.read_attacked`, at least one.
        tables: ``verdicts``, ``gains`` and ``checks`` of the experiment.
        paper: Name of the paper's attack, None without one.

    Returns:
        What JSON can hold: the place, ``images`` (their number and a SHA-256 of their rows in the
        test set), ``seeds`` with the SHA-256 of their weights, ``attacks`` with all parameters and
        budgets, the ``rules``, and ``results``: for every tolerance, norm and epsilon the figures
        with their intervals, whether the paper's figure is ``reliable``, and the ``footnote``;
        then ``gains`` with the tolerance, ``checks``, and the software.
    """
    first = attacked[0]
    place = {name: first.where[name] for name in _PLACE}
    own = {name: _own(table, place) for name, table in tables.items()}
    return {
        "schema_version": _SCHEMA_VERSION,
        **place,
        "images": {
            "n": len(first.index),
            "index_sha256": hashlib.sha256(first.index.astype("<i8").tobytes()).hexdigest(),
        },
        "seeds": {
            str(group.where["seed"]): {"weights_sha256": _weights(group)} for group in attacked
        },
        "protocols": {
            "paper": paper,
            "strongest": "for every image the smallest adversarial of all attacks and epsilons",
        },
        "attacks": _attacks(attacked),
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
        "versions": provenance.versions(),
    }


_CHECKED = ("seed", "tolerance", "check", "figure", "bound", "threshold", "outcome", "supports")


def _own(table: pd.DataFrame, place: Mapping[str, str]) -> pd.DataFrame:
    for name, value in place.items():
        table = table[table[name] == value]
    return table


def _weights(group: Attacked) -> str | None:
    """The hash of the weights that were attacked; None in files that do not say."""
    return group.attempts[0].settings.get("weights_sha256")


def _attacks(attacked: Sequence[Attacked]) -> list[dict[str, Any]]:
    """Every attack with its parameters, once where seeds and tolerances share them."""
    coordinates = {*CELL, "weights_sha256"} - {"gradient"}
    found: list[dict[str, Any]] = []
    for group in attacked:
        for attempt in group.attempts:
            parameters = {k: v for k, v in attempt.settings.items() if k not in coordinates}
            entry = {
                "attack": attempt.attack,
                "norm": group.where["norm"],
                "epsilon": attempt.epsilon,
                "parameters": parameters,
            }
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
