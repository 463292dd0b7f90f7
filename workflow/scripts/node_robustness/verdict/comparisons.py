"""Robust accuracy compared on the same images: between models, and between tolerances."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.errors import UserError
from node_robustness.grid import paths
from node_robustness.perturbations.sizes import Bools
from node_robustness.statistics.crossed import Difference, difference, holm, proportion
from node_robustness.statistics.intervals import SIGNIFICANCE, Estimate
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.protocols import AttackedNetwork

PROTOCOLS = ("paper", "strongest")

_COMPARISONS = {
    **dict.fromkeys(["kind", "protocol", "experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    "reference_model": "str",
    "reference_tolerance": "float64",
    **dict.fromkeys(["n", "seeds"], "int64"),
    **{
        f"{name}{part}": "float64"
        for name in ("robust", "reference", "difference")
        for part in ("", "_low", "_high")
    },
    **dict.fromkeys(["gained", "lost", "p", "p_holm"], "float64"),
    "direction": "int64",
}


@dataclass(frozen=True)
class Replicated:
    """A model attacked at one tolerance in one norm, trained from one or several seeds.

    Attributes:
        where: Experiment, dataset, model, tolerance (None without one) and norm.
        groups: Its attacks by seed, all on the same images.
    """

    where: dict[str, Any]
    groups: dict[int, AttackedNetwork]

    @property
    def ode(self) -> bool:
        """Whether the model solves an ODE."""
        return any(group.ode for group in self.groups.values())

    @property
    def epsilons(self) -> list[float]:
        """The epsilons that all seeds share, ascending."""
        own = [set(group.epsilons) for group in self.groups.values()]
        return sorted(set.intersection(*own))

    @property
    def correct(self) -> Bools:
        """Which images are classified correctly without an attack, bool [seeds, n]."""
        return np.stack([group.correct for group in self.groups.values()])

    def robust(
        self, protocol: str, paper: str | None, epsilon: float, seeds: Iterable[int] | None = None
    ) -> Bools | None:
        """Which images stay correct, bool [seeds, n]; None if a seed lacks the paper's attack."""
        rows = [
            group.strongest(epsilon) if protocol == "strongest" else group.paper(paper, epsilon)
            for seed, group in self.groups.items()
            if seeds is None or seed in seeds
        ]
        found = [row for row in rows if row is not None]
        return np.stack(found) if rows and len(found) == len(rows) else None


def replicated(attacked: Iterable[AttackedNetwork]) -> list[Replicated]:
    """Put the seeds of every model, tolerance and norm together.

    Args:
        attacked: Result of `protocols.read_attacked`.

    Returns:
        One item for every dataset, model, tolerance and norm, in order of appearance.

    Raises:
        UserError: Models of one dataset were attacked on different images.
    """
    found: dict[tuple[Any, ...], Replicated] = {}
    images: dict[str, AttackedNetwork] = {}
    for group in attacked:
        first = images.setdefault(group.where["dataset"], group)
        if not np.array_equal(first.index, group.index):
            raise UserError(
                f"{_place(group)} and {_place(first)} were attacked on different images, so that "
                "they cannot be compared: delete their attack.h5 and run snakemake again"
            )
        where = {name: value for name, value in group.where.items() if name != "seed"}
        item = found.setdefault(tuple(where.values()), Replicated(where, {}))
        item.groups[group.where["seed"]] = group
    return list(found.values())


def _place(group: AttackedNetwork) -> str:
    return paths.fill(paths.folder(paths.TRAINED), group.where)


def reference_tolerance(items: Iterable[Replicated], trained: float | None) -> float | None:
    """The tolerance that others are compared with: the training one, else the smallest."""
    known = sorted({t for item in items if (t := item.where["tolerance"]) is not None})
    return trained if trained in known else next(iter(known), None)


def references(
    items: list[Replicated], trained: Mapping[str, float]
) -> Iterator[tuple[str, Replicated, Replicated]]:
    """Pair every model with what it is compared with.

    Args:
        items: Result of `replicated`.
        trained: Tolerance in training, by model.

    Yields:
        ``model``, a model with an ODE and one without on the same dataset and norm; ``tolerance``,
        a model at a tolerance and at the reference tolerance.
    """
    for item in items:
        where = item.where
        comparable = [
            other
            for other in items
            if all(other.where[name] == where[name] for name in ("experiment", "dataset", "norm"))
        ]
        if item.ode:
            for other in comparable:
                if not other.ode:
                    yield "model", item, other
        own = [other for other in comparable if other.where["model"] == where["model"]]
        reference = reference_tolerance(own, trained.get(where["model"]))
        if where["tolerance"] is not None and where["tolerance"] != reference:
            yield "tolerance", item, next(o for o in own if o.where["tolerance"] == reference)


def comparison_table(
    items: list[Replicated], paper: str | None, trained: Mapping[str, float]
) -> pd.DataFrame:
    """Compare robust accuracy between models and between tolerances, under both protocols.

    Args:
        items: Result of `replicated`.
        paper: Name of the paper's attack, None without one.
        trained: Tolerance in training, by model.

    Returns:
        One row for every pair of `references`, epsilon and ``protocol`` that ran on both: robust
        accuracy (``robust``) and that of the ``reference``, their ``difference`` with Bonett and
        Price's paired interval, the shares of images robust only here (``gained``) and only there
        (``lost``), McNemar's exact ``p``, adjusted by Holm over all rows of its kind and protocol
        (``p_holm``), and ``direction``: the sign of the difference where that is below 0.05, else
        0. Where there are several seeds the number of images is the effective one of `crossed`.
    """
    rows = []
    for kind, item, reference in references(items, trained):
        for epsilon in item.epsilons:
            for protocol in PROTOCOLS:
                row = _compare(item, reference, protocol, paper, epsilon)
                if row is not None:
                    rows.append({"kind": kind, "protocol": protocol} | row)
    for family in {(row["kind"], row["protocol"]) for row in rows}:
        own = [row for row in rows if (row["kind"], row["protocol"]) == family]
        for row, p in zip(own, holm([row["p"] for row in own]), strict=True):
            row["p_holm"] = p
            row["direction"] = int(np.sign(row["difference"])) if p < SIGNIFICANCE else 0
    rows.sort(key=lambda row: (row["kind"], row["protocol"]))
    return tabulate(rows, _COMPARISONS)


def _compare(
    item: Replicated, reference: Replicated, protocol: str, paper: str | None, epsilon: float
) -> dict[str, Any] | None:
    seeds = sorted(set(item.groups) & set(reference.groups))
    if epsilon not in reference.epsilons:
        return None
    after = item.robust(protocol, paper, epsilon, seeds)
    before = reference.robust(protocol, paper, epsilon, seeds)
    if after is None or before is None or not after.size:
        return None
    change = difference(before, after)
    return (
        item.where
        | {
            "epsilon": epsilon,
            "reference_model": reference.where["model"],
            "reference_tolerance": _number(reference.where["tolerance"]),
            "n": after.shape[1],
            "seeds": len(seeds),
            "gained": change.gained,
            "lost": change.lost,
            "p": change.p,
        }
        | columns("robust", proportion(after))
        | columns("reference", proportion(before))
        | columns("difference", change)
    )


def columns(name: str, estimate: Estimate | Difference) -> dict[str, float]:
    """A value and its interval as the columns ``name``, ``{name}_low`` and ``{name}_high``."""
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
