"""Two networks on the same images: of two models, or one network at two tolerances.

What is compared are images: those that only the one and those that only the other keeps. Nothing
ties the seed of one model to that of another, so that every network of the one is compared with
every network of the other. A network at two tolerances is the same network.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from node_robustness.errors import UserError
from node_robustness.grid import paths
from node_robustness.perturbations.sizes import Bools
from node_robustness.statistics import paired, proportions
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.protocols import PROTOCOLS, AttackedNetwork
from node_robustness.verdict.verdicts import MARGIN

MODEL, TOLERANCE = "model", "tolerance"
MASKED = "masked"
"""Compared as a protocol is: the images whose robustness is masked gradient."""

PLACE = ("kind", "experiment", "dataset", "model", "tolerance", "norm", "epsilon")
REFERENCE = ("reference_model", "reference_tolerance")
_PAIRS = {
    **dict.fromkeys(["kind", "protocol", "experiment", "dataset", "model"], "str"),
    "seed": "int64",
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    "reference_model": "str",
    "reference_seed": "int64",
    "reference_tolerance": "float64",
    **dict.fromkeys(["n", "robust", "reference", "gained", "lost"], "int64"),
    **dict.fromkeys(["difference", "difference_low", "difference_high"], "float64"),
}


@dataclass(frozen=True)
class References:
    """The tolerances that the larger ones of a model are compared with.

    Attributes:
        trained: Tolerance in training, by model; None for the own settings.
        own: The tolerance to which the own settings of a model correspond, by model
            (`networks.own_tolerances`).
    """

    trained: Mapping[str, float | None]
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, model: str, solved_at: Iterable[float | None]) -> "Reference | None":
        """The reference of a model: its own settings, else those in training, else the smallest.

        Args:
            model: Its name.
            solved_at: The tolerances at which it is known; None for its own settings.
        """
        every = set(solved_at)
        if model in self.own and None in every:
            return Reference(None, self.own[model])
        known = sorted(tolerance for tolerance in every if tolerance is not None)
        if not known:
            return None
        trained = self.trained.get(model)
        smallest = known[0] if trained is None or trained not in known else trained
        return Reference(smallest, smallest)


class Reference(NamedTuple):
    """What larger tolerances are compared with.

    Attributes:
        tolerance: Its tolerance; None for the own settings of a model.
        number: The tolerance to which it corresponds.
    """

    tolerance: float | None
    number: float

    def below(self, tolerance: float | None) -> bool:
        """Whether a tolerance is larger."""
        return tolerance is not None and tolerance > self.number


def compared(
    attacked: Iterable[AttackedNetwork], references: References
) -> Iterator[tuple[str, AttackedNetwork, AttackedNetwork]]:
    """Pair every network with what it is compared with.

    Args:
        attacked: Result of `protocols.read_attacked`.
        references: With what larger tolerances are compared.

    Yields:
        ``model``, a network with an ODE and one without; ``tolerance``, a network at a tolerance
        and at the smaller one that is the reference. Only where
        the accuracy of every network without an attack is shown to be above `MARGIN`: what others
        keep is no robustness.

    Raises:
        UserError: Two networks of a dataset were attacked on different images.
    """
    every = list(attacked)
    _check_images(every)
    useless = {_setting(item) for item in every if not _accurate(item)}
    every = [item for item in every if _setting(item) not in useless]
    for item in every:
        where = item.where
        comparable = [
            other
            for other in every
            if all(other.where[name] == where[name] for name in ("experiment", "dataset", "norm"))
        ]
        if item.ode:
            for other in comparable:
                if not other.ode:
                    yield MODEL, item, other
        own = [o for o in comparable if (o.where["model"], o.where["seed"]) == _network(item)]
        reference = references.of(where["model"], (o.where["tolerance"] for o in own))
        if reference is not None and reference.below(where["tolerance"]):
            smaller = next(o for o in own if o.where["tolerance"] == reference.tolerance)
            yield TOLERANCE, item, smaller


def _setting(item: AttackedNetwork) -> tuple[Any, ...]:
    return tuple(value for name, value in item.where.items() if name != "seed")


def _accurate(item: AttackedNetwork) -> bool:
    low, _ = proportions.interval(int(item.correct.sum()), len(item.index))
    return bool(low > MARGIN)


def _network(item: AttackedNetwork) -> tuple[str, int]:
    return item.where["model"], item.where["seed"]


def _check_images(attacked: Iterable[AttackedNetwork]) -> None:
    images: dict[str, AttackedNetwork] = {}
    for item in attacked:
        first = images.setdefault(item.where["dataset"], item)
        if not np.array_equal(first.index, item.index):
            here, there = (
                paths.fill(paths.folder(paths.TRAINED), network.where) for network in (item, first)
            )
            raise UserError(
                f"{here} and {there} were attacked on different images, so that they cannot be "
                "compared: delete their attack.h5 and run snakemake again"
            )


def pair_table(
    attacked: Iterable[AttackedNetwork], paper: str | None, references: References
) -> pd.DataFrame:
    """Compare networks image by image.

    Args:
        attacked: Result of `protocols.read_attacked`.
        paper: Name of the paper's attack, None without one.
        references: With what larger tolerances are compared.

    Returns:
        One row for every pair of `compared`, epsilon of both, and ``protocol`` that is known of
        both (`protocols.PROTOCOLS`; for tolerances also ``masked``, the images whose robustness is
        masked gradient): how many of ``n`` images are ``robust`` and how many in the ``reference``,
        only here (``gained``) and only there (``lost``), and the ``difference`` of the two shares
        with its 95 % interval (`statistics.paired`). Of this pair of networks.
    """
    every = list(attacked)
    found = {
        id(item): {epsilon: outcomes(item, paper, epsilon) for epsilon in item.epsilons}
        for item in every
    }
    rows = [
        row
        for kind, item, reference in compared(every, references)
        for row in _rows(kind, item, reference, found)
    ]
    table = tabulate(sorted(rows, key=lambda row: row["kind"]), _PAIRS)
    table["difference"] = (table.gained - table.lost) / table.n
    table["difference_low"], table["difference_high"] = paired.interval(
        table.gained.to_numpy(), table.lost.to_numpy(), table.n.to_numpy()
    )
    return table


def _rows(
    kind: str,
    item: AttackedNetwork,
    reference: AttackedNetwork,
    found: Mapping[int, Mapping[float, Mapping[str, Bools]]],
) -> Iterator[dict[str, Any]]:
    if not len(item.index):
        return
    for epsilon, here in found[id(item)].items():
        there = found[id(reference)].get(epsilon, {})
        for protocol in (*PROTOCOLS, *([MASKED] if kind == TOLERANCE else [])):
            after, before = here.get(protocol), there.get(protocol)
            if after is None or before is None:
                continue
            yield {
                "kind": kind,
                "protocol": protocol,
                **item.where,
                "epsilon": epsilon,
                **{f"reference_{name}": reference.where[name] for name in ("model", "seed")},
                "reference_tolerance": _number(reference.where["tolerance"]),
                "n": len(after),
                "robust": int(after.sum()),
                "reference": int(before.sum()),
                "gained": int((after & ~before).sum()),
                "lost": int((before & ~after).sum()),
            }


def outcomes(network: AttackedNetwork, paper: str | None, epsilon: float) -> dict[str, Bools]:
    """Which images are robust under each protocol that is known, and which are `MASKED`."""
    found = {
        protocol: outcomes
        for protocol in PROTOCOLS
        if (outcomes := network.robust(protocol, paper, epsilon)) is not None
    }
    if "corrected" in found:
        found[MASKED] = found["paper"] & ~found["corrected"]
    return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
