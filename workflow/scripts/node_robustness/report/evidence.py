"""What is said of each topic of the report, in sentences computed from the tables."""

from collections.abc import Callable, Mapping

import pandas as pd

from node_robustness.report import dynamics, findings
from node_robustness.report.paper import CITATION, PRIOR_WORK
from node_robustness.report.reservations import obstacles

Tables = Mapping[str, pd.DataFrame]

_SAID: Mapping[str, Callable[[Tables], list[str]]] = {
    "verdicts": lambda tables: obstacles(tables["verdicts"]),
    "dynamics": lambda tables: dynamics.sentences(
        *(tables[name] for name in ("trajectory_summary", "trajectories", "probes", "dynamics"))
    ),
    "attacks": lambda tables: findings.cautions(tables["attacks"]),
    "references": lambda tables: [
        f"The paper: {CITATION}",
        *(f"{work} {finding}" for work, finding in PRIOR_WORK.items()),
    ],
}


def said(topic: str, tables: Tables) -> list[str]:
    """Say what a run shows on a topic.

    Args:
        topic: One of `topics.TOPICS`.
        tables: The tables of the experiment by name.
    """
    return _SAID[topic](tables) if topic in _SAID else []
