"""Claim records: what is claimed of a model's robustness, what it rests on, and its footnotes.

After RobustBench's model cards (Croce et al. 2021): a value travels with the attacks, budgets
and weights that it was measured with, and with whether it is reliable.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.errors import UserError
from node_robustness.files.atomic import SOFTWARE
from node_robustness.provenance.software import versions
from node_robustness.statistics.networks import MANY
from node_robustness.statistics.proportions import SIGNIFICANCE
from node_robustness.tables.catalogue import CLAIMED
from node_robustness.tables.shares import PATCHES
from node_robustness.verdict.models import PROCEDURES
from node_robustness.verdict.tolerances import REAL
from node_robustness.verdict.verdicts import (
    LEVEL,
    MARGIN,
    SATURATED,
    SHARES,
    SMALL,
    SURVIVES,
)

SCHEMA_VERSION = 4
"""Of the record: 4 says where the margin is lost."""

_PLACE = ("experiment", "dataset", "model")


def claim(
    tables: Mapping[str, pd.DataFrame], place: Mapping[str, str], paper: str | None
) -> dict[str, Any]:
    """Write the record of one model on one dataset.

    Args:
        tables: `CLAIMED` of the experiment.
        place: Its ``experiment``, ``dataset`` and ``model``.
        paper: Name of the paper's attack, None without one.

    Returns:
        What JSON can hold: the place, ``images`` (their number and a SHA-256 of their rows in the
        test set), ``seeds`` with the SHA-256 of their weights, ``attacks`` with all parameters and
        budgets, the ``rules``, and ``results``: for every tolerance, norm and epsilon the shares
        with their intervals and ``level`` of inference, whether the paper's value is ``reliable``,
        and the ``footnote``; ``networks``, the same for each; ``models`` and ``tolerances``, the
        two comparisons; ``dynamics``, where the margin is lost; ``populations``, empty with fewer
        than five networks; ``checks``, and the software. Of a model that nothing attacked
        ``images`` is None, and what would speak of attacks is empty.
    """
    own = {name: _own(tables[name], place) for name in CLAIMED}
    budgets = own["budgets"].to_dict("records")
    return {
        "schema_version": SCHEMA_VERSION,
        **place,
        "images": (
            {"n": budgets[0]["n"], "index_sha256": budgets[0]["images_sha256"]} if budgets else None
        ),
        "seeds": {
            str(row["seed"]): {"weights_sha256": row["weights_sha256"] or None} for row in budgets
        },
        "protocols": {
            "paper": paper,
            "corrected": "the paper's attack and every attack that differs in its gradient alone",
            "strongest": "every adversarial example known for these weights and this tolerance",
        },
        "attacks": _attacks(budgets),
        "rules": {
            "margin": MARGIN,
            "smallest_difference": SMALL,
            "saturated_below": SATURATED,
            "level_of_each_error": LEVEL,
            "multiplicity": {
                "results": "Holm, over all settings of the experiment",
                "models, tolerances and dynamics": "Holm at the primary epsilon of each norm, "
                "then in a fixed sequence along epsilon",
            },
            "several_networks": "each has to show it; intervals contain those of every network",
            "networks_for_a_population": MANY,
            "confidence_level": 1 - SIGNIFICANCE,
        },
        "results": [
            _record(row, SHARES)
            | {"reliable": row["verdict"] == SURVIVES, "footnote": row["reason"]}
            for row in own["verdicts"].to_dict("records")
        ],
        "networks": [_record(row, SHARES[1:]) for row in own["protocols"].to_dict("records")],
        "models": [_record(row, PROCEDURES) for row in own["models"].to_dict("records")],
        "tolerances": [
            _record(row, ("paper", "corrected", "strongest", "masked"))
            | {"reliable": row["claim"] == REAL}
            for row in own["tolerances"].to_dict("records")
        ],
        "dynamics": [
            _record(row, ("share", "most", *PATCHES)) for row in own["dynamics"].to_dict("records")
        ],
        "populations": [
            _plain({name: value for name, value in row.items() if name not in _PLACE})
            for row in own["populations"].to_dict("records")
        ],
        "checks": [
            _plain({name: row[name] for name in _CHECKED})
            for row in own["checks"].to_dict("records")
        ],
        "software": SOFTWARE,
        "versions": versions(),
    }


_CHECKED = (
    *("seed", "tolerance", "norm", "check", "n", "value", "low", "high"),
    *("bound", "threshold", "outcome", "supports"),
)


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


def _record(row: Mapping[Any, Any], estimates: Sequence[str]) -> dict[str, Any]:
    """A row without its place, with its estimates as objects."""
    bounds = {f"{name}{part}" for name in estimates for part in ("", "_low", "_high")}
    rest = {k: v for k, v in row.items() if k not in bounds and k not in (*_PLACE, "reason")}
    return _plain(rest) | {
        name: _plain({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]})
        for name in estimates
    }


def read_claim(path: Path | str) -> dict[str, Any]:
    """Read a record.

    Raises:
        UserError: It is none, or one of another schema.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        version = record["schema_version"]
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path}: not a claim record; run snakemake again") from None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path}: a claim record of schema {version}, and this version reads "
            f"{SCHEMA_VERSION}; delete it and run snakemake again"
        )
    found: dict[str, Any] = record
    return found


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Values that JSON has: no NaN, which is None, and no numpy types."""
    plain = {}
    for key, value in row.items():
        item = value.item() if isinstance(value, np.generic) else value
        missing = isinstance(item, float) and not math.isfinite(item)
        plain[str(key)] = None if missing else item
    return plain
