"""All tables of a run: what each holds, and which travel with the page of results.

The workflow reads this module while it is parsed, so it imports nothing heavy.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class TableEntry:
    """One table.

    Attributes:
        holds: what it holds, as the page of results says it.
        on_page: whether it travels with the page of results.
        medians_alone: whether the other quantiles and the means stay behind: megabytes that only
            figures show.
    """

    holds: str
    on_page: bool = True
    medians_alone: bool = False


TABLES = {
    "training": TableEntry("how each training ended"),
    "clean": TableEntry("accuracy and cost on clean images"),
    "nfe": TableEntry("images by their number of function evaluations", on_page=False),
    "attacks": TableEntry("what each attack achieved in each cell"),
    "protocols": TableEntry("what each network keeps under each protocol"),
    "verdicts": TableEntry("the verdict in every setting"),
    "models": TableEntry(
        "the claim that models with an ODE are more robust, under both procedures"
    ),
    "tolerances": TableEntry("the claim that a larger tolerance protects"),
    "populations": TableEntry("what networks trained like these keep, with five or more of them"),
    "pairs": TableEntry("networks compared two at a time, image by image"),
    "attack_suite": TableEntry("what each attack alone leaves at each epsilon"),
    "audit": TableEntry("the agreement of gradients"),
    "checks": TableEntry("the outcome of every sanity check"),
    "matrix": TableEntry("adversarial examples evaluated at other tolerances"),
    "randomisation": TableEntry("accuracy with a tolerance drawn at random"),
    "detection": TableEntry("detection by the disagreement of tolerances and by confidence"),
    "adjoint_sweep": TableEntry("the paper's attack with its adjoint solved at other tolerances"),
    "trajectories": TableEntry("perturbations along t", medians_alone=True),
    "trajectory_summary": TableEntry("perturbations along t, summarised by cell"),
    "responsible": TableEntry("repairs of every interval of t"),
    "probes": TableEntry("accuracy of the head and of linear probes along t"),
    "trajectory_images": TableEntry("what became of every image followed", on_page=False),
    "trajectory_roc": TableEntry("detection by the solver's steps", on_page=False),
    "examples": TableEntry("the smallest adversarial example of every image", on_page=False),
    "budgets": TableEntry("the parameters of every attack", on_page=False),
    "curves": TableEntry("robust accuracy as a function of epsilon", on_page=False),
    "roc": TableEntry("ROC curves of the detectors", on_page=False),
}
"""By name."""

ON_PAGE = tuple(name for name, entry in TABLES.items() if entry.on_page)
"""The tables that the page of results rests on, or that belong to it."""

CLAIMED = ("budgets", "protocols", "verdicts", "models", "tolerances", "populations", "checks")
"""The tables that claim records are made from."""
