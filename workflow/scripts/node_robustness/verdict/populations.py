"""What networks trained like these keep: the level of inference above the networks at hand.

It takes at least `networks.MANY` networks of a model; with fewer the table is empty, because how
much networks differ cannot be told from two or three.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.perturbations.sizes import Bools
from node_robustness.statistics.networks import MANY, population_difference, population_mean
from node_robustness.statistics.proportions import Estimate
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.pairs import MASKED, MODEL, TOLERANCE, References, outcomes
from node_robustness.verdict.protocols import PROTOCOLS, AttackedNetwork

_SHARE = "share"
_POPULATIONS = {
    **dict.fromkeys(["kind", "protocol", "experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    "reference_model": "str",
    "reference_tolerance": "float64",
    **dict.fromkeys(["n", "networks", "reference_networks"], "int64"),
    **dict.fromkeys(["value", "low", "high"], "float64"),
}
_Key = tuple[Any, ...]


def population_table(
    attacked: Iterable[AttackedNetwork], paper: str | None, references: References
) -> pd.DataFrame:
    """Estimate what networks trained like these keep, and how they differ.

    Args:
        attacked: Result of `protocols.read_attacked`.
        paper: Name of the paper's attack, None without one.
        references: With what larger tolerances are compared.

    Returns:
        Rows of the kinds ``share`` (robust accuracy under a ``protocol``, or the share of images
        whose robustness is ``masked`` gradient), ``model`` (its difference to a model without an
        ODE) and ``tolerance`` (its change over the reference tolerance), each the ``value`` with a
        95 % interval over networks and images (`networks.population_mean`). Only where a model has
        at least five networks.
    """
    groups: dict[_Key, list[AttackedNetwork]] = {}
    for item in attacked:
        key = tuple(value for name, value in item.where.items() if name != "seed")
        groups.setdefault(key, []).append(item)
    many = [_Population(own, paper) for own in groups.values() if len(own) >= MANY]
    rows = [row for item in many for row in item.rows(many, references)]
    return tabulate(sorted(rows, key=lambda row: _ORDER.index(row["kind"])), _POPULATIONS)


_ORDER = (_SHARE, MODEL, TOLERANCE)


class _Population:
    """The networks of a model at a tolerance in a norm, in the order of their seeds."""

    def __init__(self, items: list[AttackedNetwork], paper: str | None) -> None:
        self.items = sorted(items, key=lambda item: int(item.where["seed"]))
        self.where = {k: v for k, v in items[0].where.items() if k != "seed"}
        self.ode = any(item.ode for item in items)
        shared = set.intersection(*(set(item.epsilons) for item in items))
        self.outcomes: dict[tuple[float, str], Bools] = {}
        for epsilon in sorted(shared):
            found = [outcomes(item, paper, epsilon) for item in self.items]
            for protocol in (*PROTOCOLS, MASKED):
                if all(protocol in own for own in found):
                    self.outcomes[epsilon, protocol] = np.stack([own[protocol] for own in found])

    def rows(self, every: "list[_Population]", references: References) -> Iterator[dict[str, Any]]:
        for (epsilon, protocol), own in self.outcomes.items():
            yield self._row(_SHARE, protocol, epsilon, population_mean(own))
        comparable = [o for o in every if self._same(o, ("experiment", "dataset", "norm"))]
        for other in comparable if self.ode else []:
            if not other.ode:
                yield from self._against(MODEL, other, paired=False)
        own_models = [other for other in comparable if self._same(other, ("model",))]
        reference = references.of(
            self.where["model"], (other.where["tolerance"] for other in own_models)
        )
        if reference is not None and reference.below(self.where["tolerance"]):
            for other in own_models:
                same = other.where["tolerance"] == reference.tolerance
                if same and self._seeds() == other._seeds():
                    yield from self._against(TOLERANCE, other, paired=True)

    def _seeds(self) -> list[int]:
        return [int(item.where["seed"]) for item in self.items]

    def _same(self, other: "_Population", names: Iterable[str]) -> bool:
        return all(self.where[name] == other.where[name] for name in names)

    def _against(
        self, kind: str, other: "_Population", *, paired: bool
    ) -> Iterator[dict[str, Any]]:
        for key, own in self.outcomes.items():
            if key in other.outcomes and (kind == TOLERANCE or key[1] != MASKED):
                estimate = population_difference(other.outcomes[key], own, paired=paired)
                yield self._row(kind, key[1], key[0], estimate, other)

    def _row(
        self,
        kind: str,
        protocol: str,
        epsilon: float,
        estimate: Estimate,
        other: "_Population | None" = None,
    ) -> dict[str, Any]:
        tolerance = None if other is None else other.where["tolerance"]
        return {
            "kind": kind,
            "protocol": protocol,
            **self.where,
            "epsilon": epsilon,
            "reference_model": "" if other is None else other.where["model"],
            "reference_tolerance": np.nan if tolerance is None else tolerance,
            "n": len(self.items[0].index),
            "networks": len(self.items),
            "reference_networks": 0 if other is None else len(other.items),
            **estimate._asdict(),
        }
