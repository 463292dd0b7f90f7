"""What the report says of own models: how they are solved, what limits them, what checks found."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from node_robustness.numbers import label
from node_robustness.report.phrases import counted
from node_robustness.tables.frame import records
from node_robustness.tables.networks import BETWEEN, OWN_MODEL
from node_robustness.words import listed

_LEVELS = {
    0: "from images to logits: no ODE in it is known",
    1: "its calls of torchdiffeq are intercepted",
    2: "it has a solver that is not torchdiffeq",
}


def own_models(networks: pd.DataFrame, quoted: Callable[[str], str]) -> list[str]:
    """Say of every own model what it is, what it lacks, and what its checks warn of.

    Args:
        networks: Result of `networks.network_table`.
        quoted: Makes text that a user wrote safe in what the sentences are put in.
    """
    own = networks[networks.kind == OWN_MODEL]
    said = [
        sentence
        for row in records(own)
        for sentence in (*_described(row, quoted), *_limited(row, quoted), *_failed(row, quoted))
    ]
    # The networks of a model mostly say the same.
    return list(dict.fromkeys(said))


def _described(row: Mapping[str, Any], quoted: Callable[[str], str]) -> list[str]:
    level = int(row["audit_level"])
    module = f" ({quoted(row['module'])})" if row["module"] else ""
    parts = [f"{row['model']}{module} is measured at level {level}: {_LEVELS[level]}"]
    if row["solves"]:
        solves = ", ".join(row["solves"].split(BETWEEN))
        ways = listed(list(dict.fromkeys(row["ways"].split(BETWEEN))))
        parts.append(f"solves by module and method: {quoted(solves)}; times of one image: {ways}")
    if pd.notna(row["own_rtol"]):
        parts.append(f"own settings: rtol {label(row['own_rtol'])}, atol {label(row['own_atol'])}")
    return [f"{'; '.join(parts)}."]


def _limited(row: Mapping[str, Any], quoted: Callable[[str], str]) -> list[str]:
    return [f"{row['model']}: {quoted(row['limits'])}"] if row["limits"] else []


def _failed(row: Mapping[str, Any], quoted: Callable[[str], str]) -> list[str]:
    if not row["failed"]:
        return []
    return [
        f"Of {counted(row['checks'], 'check')} of {row['model']} before the attacks, some warn: "
        f"{quoted(row['failed'])}"
    ]
