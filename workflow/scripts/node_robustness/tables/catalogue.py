"""All tables of a run: what each holds, and which travel with the page of results.

The workflow reads this module while it is parsed, so it imports nothing heavy.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Level(StrEnum):
    """What a table or a figure speaks of (docs/verdict.md)."""

    NETWORK = "this network"
    NETWORKS = "these networks"
    POPULATION = "networks trained like these"
    RUN = "this run"

    @property
    def sentence(self) -> str:
        """What readers are told of it."""
        return f"Level: {self}; {_LEVELS[self]}."


_LEVELS = {
    Level.NETWORK: "each is taken by itself, and intervals are over its test images",
    Level.NETWORKS: "all that were trained of a model, as means over them, with intervals that "
    "contain the interval of each",
    Level.POPULATION: "from five networks on, over networks and images",
    Level.RUN: "what was measured, without inference",
}


@dataclass(frozen=True)
class TableEntry:
    """One table.

    Attributes:
        holds: what it holds, as the page of results says it.
        level: what its rows speak of.
        on_page: whether it travels with the page of results.
        medians_alone: whether the other quantiles and the means stay behind: megabytes that only
            figures show.
    """

    holds: str
    level: Level = field(kw_only=True)
    on_page: bool = True
    medians_alone: bool = False


TABLES = {
    "networks": TableEntry("what each network is, and what limits it", level=Level.NETWORK),
    "training": TableEntry("how each training ended", level=Level.NETWORK),
    "clean": TableEntry("accuracy and cost on clean images", level=Level.NETWORK),
    "nfe": TableEntry(
        "images by their number of function evaluations", on_page=False, level=Level.RUN
    ),
    "attacks": TableEntry("what each attack achieved in each cell", level=Level.NETWORK),
    "protocols": TableEntry("what each network keeps under each protocol", level=Level.NETWORK),
    "verdicts": TableEntry("the verdict in every setting", level=Level.NETWORKS),
    "models": TableEntry(
        "the claim that models with an ODE are more robust, under both procedures",
        level=Level.NETWORKS,
    ),
    "tolerances": TableEntry("the claim that a larger tolerance protects", level=Level.NETWORKS),
    "dynamics": TableEntry(
        "the claim that the part of the dynamics to blame can be pinpointed", level=Level.NETWORKS
    ),
    "populations": TableEntry(
        "what networks trained like these keep, with five or more of them", level=Level.POPULATION
    ),
    "pairs": TableEntry("networks compared two at a time, image by image", level=Level.NETWORK),
    "attack_suite": TableEntry(
        "what each attack alone leaves at each epsilon", level=Level.NETWORK
    ),
    "audit": TableEntry("the agreement of gradients", level=Level.NETWORK),
    "loss_curves": TableEntry("the loss of attacks, iteration by iteration", level=Level.NETWORK),
    "held_steps": TableEntry(
        "adversarial examples with the solver's steps held", level=Level.NETWORK
    ),
    "certificates": TableEntry(
        "what own models prove, and what attacks leave", level=Level.NETWORK
    ),
    "checks": TableEntry("the outcome of every sanity check", level=Level.NETWORK),
    "matrix": TableEntry("adversarial examples evaluated at other tolerances", level=Level.NETWORK),
    "randomisation": TableEntry("accuracy with a tolerance drawn at random", level=Level.NETWORK),
    "detection": TableEntry(
        "detection by the disagreement of tolerances and by confidence", level=Level.NETWORK
    ),
    "adjoint_sweep": TableEntry(
        "the paper's attack with its adjoint solved at other tolerances", level=Level.NETWORK
    ),
    "cost": TableEntry("function evaluations under an attack on their number", level=Level.NETWORK),
    "trajectories": TableEntry("perturbations along t", medians_alone=True, level=Level.NETWORK),
    "trajectory_summary": TableEntry(
        "perturbations along t, summarised by cell", level=Level.NETWORK
    ),
    "shares": TableEntry(
        "which part of the dynamics loses how much of the margin", level=Level.NETWORK
    ),
    "patches": TableEntry("repair and insertion of every interval of t", level=Level.NETWORK),
    "probes": TableEntry("accuracy of the head and of linear probes along t", level=Level.NETWORK),
    "trajectory_images": TableEntry(
        "what became of every image followed", on_page=False, level=Level.RUN
    ),
    "trajectory_roc": TableEntry(
        "detection by the solver's steps", on_page=False, level=Level.NETWORK
    ),
    "examples": TableEntry(
        "the smallest adversarial example of every image", on_page=False, level=Level.RUN
    ),
    "budgets": TableEntry("the parameters of every attack", on_page=False, level=Level.RUN),
    "curves": TableEntry(
        "robust accuracy as a function of epsilon", on_page=False, level=Level.NETWORK
    ),
    "roc": TableEntry("ROC curves of the detectors", on_page=False, level=Level.NETWORK),
}
"""By name."""

ON_PAGE = tuple(name for name, entry in TABLES.items() if entry.on_page)
"""The tables that the page of results rests on, or that belong to it."""

CLAIMED = (
    *("budgets", "protocols", "verdicts", "models", "tolerances", "dynamics", "populations"),
    "checks",
)
"""The tables that claim records are made from."""
