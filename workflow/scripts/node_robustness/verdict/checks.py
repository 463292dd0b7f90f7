"""Sanity checks of an evaluation: each a named row with its value, threshold and outcome.

What robustness can be mistaken for: gradients that vanish or point nowhere, attacks too short or
broken, predictions that depend on the batch. After Carlini et al., On Evaluating Adversarial
Robustness (2019), Athalye et al., Obfuscated Gradients Give a False Sense of Security (2018), and
Pintor et al., Indicators of Attack Failure (2022).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.tables.audit import Arrays, read_arrays
from node_robustness.tables.frame import SOLVED, place, tabulate
from node_robustness.verdict import measures
from node_robustness.verdict.measures import Evidence
from node_robustness.verdict.protocols import AttackedNetwork

PASSED, FAILED, NOT_MEASURED = "passed", "failed", "not measured"

SOLVER_SUCCEEDS = "solver_succeeds"
"""The check of failed solves; its value is 1 where all fail."""

AUDITED = "batch_invariant"
"""A check that every audit measures, whatever it finds."""

_CHECKS = {
    **SOLVED,
    **dict.fromkeys(["check", "title"], "str"),
    **dict.fromkeys(["value", "threshold"], "float64"),
    "bound": "str",
    "outcome": "str",
    "supports": "bool",
    "failure": "str",
}


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name in tables.
        title: Its name for people, a statement that is true where it passes.
        measure: From the evidence to its value; NaN where it was not measured.
        limit: ``at most`` or ``at least``, on which side of the threshold it passes, and the
            threshold, which itself passes.
        failure: What a failure means, in one sentence.
        supports: Whether robustness can hold only where it passes.
        ode_only: Whether it means nothing to a model without an ODE.
        needs: The attack without which it is not measured; empty if that is an audit.
    """

    name: str
    title: str
    measure: Callable[[Evidence], float]
    limit: tuple[str, float]
    failure: str
    supports: bool = True
    ode_only: bool = False
    needs: str = ""


CHECKS = (
    Check(
        "gradients_exist",
        "Gradients are neither zero nor missing",
        measures.no_gradient,
        ("at most", 0.01),
        "This share of the images has no gradient to follow, so that gradient attacks fail whether "
        "or not the model is robust.",
    ),
    Check(
        "gradients_precise",
        "Gradients exceed rounding errors",
        measures.precision_cosine,
        ("at least", 0.9),
        "The median cosine between gradients in single and in double precision is this low. Where "
        "a model is very confident, the gradient of the cross-entropy has no digits left.",
        supports=False,
    ),
    Check(
        "gradients_computed",
        "Gradients agree with finite differences with steps held",
        partial(measures.median_error, reference="finite_difference_frozen"),
        ("at most", 0.01),
        "The direct gradients are computed wrongly: their median relative error is this large.",
        supports=False,
    ),
    Check(
        "gradients_describe",
        "Gradients agree with finite differences of the model",
        partial(measures.median_error, reference="finite_difference"),
        ("at most", 0.5),
        "The model does not change as its direct gradients say (median relative error), so that "
        "gradient attacks are misled.",
    ),
    Check(
        "adjoint_agrees",
        "Adjoint gradients agree with direct ones",
        measures.adjoint_cosine,
        ("at least", 0.9),
        "The median cosine between the two is this low. Attacks with adjoint gradients, the "
        "paper's among them, say little about this model at this tolerance.",
        supports=False,
        ode_only=True,
    ),
    Check(
        "iterations_help",
        "Several steps break what one step breaks",
        measures.single_step_alone,
        ("at most", 0.05),
        "A single step breaks this share of the images that several steps do not: the iterative "
        "attack is badly tuned or misled by its gradients.",
    ),
    Check(
        "iterations_suffice",
        "Twice the steps break few more images",
        measures.gained_by_doubling,
        ("at most", 0.05),
        "Twice the iterations break this share of the images more: the attack had not converged.",
    ),
    Check(
        "epsilon_monotone",
        "Success grows with epsilon",
        measures.lost_with_epsilon,
        ("at most", 0.05),
        "An attack breaks this share of the images fewer at a larger epsilon: its search, not the "
        "model, sets the limit.",
        needs="attack that searches",
    ),
    Check(
        "epsilon_breaks_all",
        "A large epsilon breaks every image",
        measures.unbroken_at_large_epsilon,
        ("at most", 0.05),
        "This share of the images survives a change so large that any image can become another: "
        "the attack is broken or its gradients are masked.",
    ),
    Check(
        "white_box_stronger",
        "Gradient attacks break what black-box attacks break",
        measures.black_box_alone,
        ("at most", 0.05),
        "Attacks that use no gradient break this share of the images that no gradient attack "
        "breaks: the gradients are masked.",
        needs="attack without gradients (square or transfer)",
    ),
    Check(
        "noise_weaker",
        "Attacks break what random noise breaks",
        measures.noise_alone,
        ("at most", 0.05),
        "Random noise breaks this share of the images that no attack breaks: the attacks are "
        "broken.",
        needs="attack of method noise",
    ),
    Check(
        "predictions_stable",
        "Predictions are stable around the image",
        measures.neighbours_changed,
        ("at most", 0.05),
        "This share of neighbours within 1/255 is predicted otherwise: the prediction depends on "
        "rounding or on the solver's steps, and gradients say little there.",
    ),
    Check(
        "claims_agree",
        "Claims of success agree with predictions",
        measures.unlike_its_claim,
        ("at most", 0.0),
        "For this share of the images an attack's claim contradicts the prediction for the image "
        "that it returned.",
        needs="attack",
    ),
    Check(
        "adversarials_confirmed",
        "Adversarial examples are confirmed by a second solve",
        measures.unconfirmed,
        ("at most", 0.01),
        "This share of the adversarial examples of a cell is classified correctly when evaluated "
        "again.",
        supports=False,
        ode_only=True,
    ),
    Check(
        AUDITED,
        "Predictions do not depend on the batch",
        measures.depends_on_batch,
        ("at most", 0.0),
        "This share of the images is predicted otherwise alone than in a batch.",
    ),
    Check(
        "planted_broken",
        "The attack breaks a planted weak model",
        measures.planted_survived,
        ("at most", 0.01),
        "The same attack leaves this share of the images of a model that is weak by construction: "
        "its code is broken.",
    ),
    Check(
        SOLVER_SUCCEEDS,
        "The solver does not fail",
        measures.failed_solves,
        ("at most", 0.0),
        "The solve fails for this share of the images, clean or adversarial. They count as "
        "misclassified, though nothing was predicted.",
        ode_only=True,
    ),
)


def check_table(
    clean: Iterable[Path | str],
    attacked: Iterable[AttackedNetwork],
    audits: Iterable[Path | str],
    reevaluated: Iterable[Path | str],
) -> pd.DataFrame:
    """Run all checks.

    Args:
        clean: Files of kind "clean", one a model, seed and tolerance.
        attacked: Result of `protocols.read_attacked`.
        audits: Files of kind "audit".
        reevaluated: Files of kind "reevaluated".

    Returns:
        For every clean file one row a check (without those that need an ODE for a model that has
        none): ``check``, ``title``, ``value``, ``bound`` (at most, at least) and ``threshold``,
        ``outcome`` (passed, failed, not measured), whether robustness can hold only where it
        passes (``supports``), and what a ``failure`` means.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    groups: dict[tuple[Any, ...], list[AttackedNetwork]] = {}
    for group in attacked:
        groups.setdefault(_key(group.where), []).append(group)
    by_audit = {_key(where): arrays for where, arrays in _files(audits, "audit")}
    by_reevaluated: dict[tuple[Any, ...], list[tuple[float | None, Arrays]]] = {}
    for where, arrays in _files(reevaluated, "reevaluated"):
        by_reevaluated.setdefault(_key(where), []).append((where["tolerance"], arrays))
    rows = []
    for where, arrays in _files(clean, "clean"):
        key = _key(where)
        evidence = Evidence(
            groups.get(key, []), arrays, by_audit.get(key), by_reevaluated.get(key, [])
        )
        rows += [
            {name: where[name] for name in SOLVED} | _row(check, evidence)
            for check in CHECKS
            if evidence.ode or not check.ode_only
        ]
    return tabulate(sorted(rows, key=place), _CHECKS)


def _key(where: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in SOLVED)


# Of the large arrays only those that a check looks at.
_READ = {
    "clean": ("nfe", "status"),
    "reevaluated": ("labels", "success", "tolerances", "adversarial_predictions"),
}


def _files(paths: Iterable[Path | str], kind: str) -> Iterable[tuple[dict[str, Any], Arrays]]:
    for path in paths:
        with open_hdf5(path, kind) as file:
            yield read_settings(file), read_arrays(file, _READ.get(kind))


def _row(check: Check, evidence: Evidence) -> dict[str, Any]:
    value = check.measure(evidence)
    bound, threshold = check.limit
    good = value <= threshold if bound == "at most" else value >= threshold
    return {
        "check": check.name,
        "title": check.title,
        "value": value,
        "bound": bound,
        "threshold": threshold,
        "outcome": NOT_MEASURED if math.isnan(value) else PASSED if good else FAILED,
        "supports": check.supports,
        "failure": check.failure,
    }
