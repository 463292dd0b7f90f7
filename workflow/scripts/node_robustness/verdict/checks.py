"""Sanity checks of an evaluation: each a named row with its value, threshold and outcome.

What robustness can be mistaken for: gradients that vanish or point nowhere, attacks too short or
broken, predictions that depend on the batch. After Carlini et al., On Evaluating Adversarial
Robustness (2019), Athalye et al., Obfuscated Gradients Give a False Sense of Security (2018), and
Pintor et al., Indicators of Attack Failure (2022).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.tables.audit import Arrays, read_arrays
from node_robustness.tables.frame import SOLVED, place, tabulate
from node_robustness.verdict.measures import (
    Evidence,
    _adjoint_cosine,
    _black_box_alone,
    _depends_on_batch,
    _failed_solves,
    _gained_by_doubling,
    _lost_with_epsilon,
    _median_error,
    _neighbours,
    _no_gradient,
    _noise_alone,
    _planted_survived,
    _precision_cosine,
    _single_step_alone,
    _unbroken_at_large_epsilon,
    _unconfirmed,
    _unlike_its_claim,
)
from node_robustness.verdict.protocols import Attacked

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
        bound: ``at most`` or ``at least``: on which side of the threshold it passes.
        threshold: The limit, which itself passes.
        failure: What a failure means, in one sentence.
        supports: Whether robustness can hold only where it passes.
        ode_only: Whether it means nothing to a model without an ODE.
        needs: The attack without which it is not measured; empty if that is an audit.
    """

    name: str
    title: str
    measure: Callable[[Evidence], float]
    bound: str
    threshold: float
    failure: str
    supports: bool = True
    ode_only: bool = False
    needs: str = ""


CHECKS = (
    Check(
        "gradients_exist",
        "Gradients are neither zero nor missing",
        _no_gradient,
        "at most",
        0.01,
        "On this share of the images there is no gradient to follow, so that attacks by gradients "
        "fail whether or not the model is robust.",
    ),
    Check(
        "gradients_precise",
        "Gradients do not drown in rounding",
        _precision_cosine,
        "at least",
        0.9,
        "The median cosine between gradients in single and in double precision is this low: where "
        "a model is very confident, the cross-entropy has no digits left for its gradient.",
        supports=False,
    ),
    Check(
        "gradients_computed",
        "Gradients are those of the steps taken (finite differences, steps held)",
        lambda evidence: _median_error(evidence, "finite_difference_frozen"),
        "at most",
        0.01,
        "The direct gradients are computed wrongly: their median relative error is this large.",
        supports=False,
    ),
    Check(
        "gradients_describe",
        "Gradients describe the model (finite differences)",
        lambda evidence: _median_error(evidence, "finite_difference"),
        "at most",
        0.5,
        "The model does not change as its direct gradients say (median relative error), so that "
        "attacks by gradients are led astray.",
    ),
    Check(
        "adjoint_agrees",
        "Adjoint gradients agree with direct ones",
        _adjoint_cosine,
        "at least",
        0.9,
        "The median cosine between the two is this low: attacks with adjoint gradients, the "
        "paper's among them, say little about this model at this tolerance.",
        supports=False,
        ode_only=True,
    ),
    Check(
        "iterations_help",
        "Several steps do what one does",
        _single_step_alone,
        "at most",
        0.05,
        "A single step breaks this share of the images that several steps do not: the iterative "
        "attack is badly tuned or its gradients mislead it.",
    ),
    Check(
        "iterations_suffice",
        "Twice the steps find little more",
        _gained_by_doubling,
        "at most",
        0.05,
        "Twice the iterations break this share of the images more: the attack had not converged.",
    ),
    Check(
        "epsilon_monotone",
        "Success grows with epsilon",
        _lost_with_epsilon,
        "at most",
        0.05,
        "An attack breaks this share of the images fewer at a larger epsilon: its search, not the "
        "model, sets the limit.",
        needs="attack that searches",
    ),
    Check(
        "epsilon_breaks_all",
        "A large epsilon breaks every image",
        _unbroken_at_large_epsilon,
        "at most",
        0.05,
        "This share of the images survives a change so large that any image can become another: "
        "the attack is broken or its gradients are masked.",
    ),
    Check(
        "white_box_stronger",
        "Gradients do what a black box does",
        _black_box_alone,
        "at most",
        0.05,
        "Attacks that see no gradient break this share of the images that no attack by gradients "
        "does: the gradients are masked.",
        needs="attack without gradients (square or transfer)",
    ),
    Check(
        "noise_weaker",
        "Attacks do what noise does",
        _noise_alone,
        "at most",
        0.05,
        "Random noise breaks this share of the images that no attack does: the attacks are broken.",
        needs="attack of method noise",
    ),
    Check(
        "predictions_stable",
        "Predictions are stable around the image",
        _neighbours,
        "at most",
        0.05,
        "This share of neighbours within 1/255 is predicted otherwise: the prediction hangs on "
        "rounding or on the solver's steps, and gradients say little there.",
    ),
    Check(
        "claims_agree",
        "Claims of success agree with predictions",
        _unlike_its_claim,
        "at most",
        0.0,
        "For this share of the images an attack's claim contradicts the prediction for the image "
        "that it returned: adversarials were overlooked or are none.",
        needs="attack",
    ),
    Check(
        "adversarials_confirmed",
        "Adversarials are confirmed by a second solve",
        _unconfirmed,
        "at most",
        0.01,
        "This share of the adversarials of a cell is classified correctly when judged again.",
        supports=False,
        ode_only=True,
    ),
    Check(
        AUDITED,
        "Predictions do not depend on the batch",
        _depends_on_batch,
        "at most",
        0.0,
        "This share of the images is predicted otherwise alone than in a batch.",
    ),
    Check(
        "planted_broken",
        "The attack breaks a planted weak model",
        _planted_survived,
        "at most",
        0.01,
        "The same attack leaves this share of the images of a model that is weak by construction: "
        "its code is broken.",
    ),
    Check(
        SOLVER_SUCCEEDS,
        "The solver does not fail",
        _failed_solves,
        "at most",
        0.0,
        "The solve fails for this share of the images, clean or adversarial: they count as "
        "misclassified, though nothing was predicted.",
        ode_only=True,
    ),
)


def check_table(
    clean: Iterable[Path | str],
    attacked: Iterable[Attacked],
    audits: Iterable[Path | str],
    judged: Iterable[Path | str],
) -> pd.DataFrame:
    """Run all checks.

    Args:
        clean: Files of kind "clean", one a model, seed and tolerance.
        attacked: Result of `protocols.read_attacked`.
        audits: Files of kind "audit".
        judged: Files of kind "judged".

    Returns:
        For every clean file one row a check (without those that need an ODE for a model that has
        none): ``check``, ``title``, ``value``, ``bound`` (at most, at least) and ``threshold``,
        ``outcome`` (passed, failed, not measured), whether robustness can hold only where it
        passes (``supports``), and what a ``failure`` means.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    groups: dict[tuple[Any, ...], list[Attacked]] = {}
    for group in attacked:
        groups.setdefault(_key(group.where), []).append(group)
    by_audit = {_key(where): arrays for where, arrays in _files(audits, "audit")}
    by_judged: dict[tuple[Any, ...], list[tuple[float | None, Arrays]]] = {}
    for where, arrays in _files(judged, "judged"):
        by_judged.setdefault(_key(where), []).append((where["tolerance"], arrays))
    rows = []
    for where, arrays in _files(clean, "clean"):
        key = _key(where)
        evidence = Evidence(groups.get(key, []), arrays, by_audit.get(key), by_judged.get(key, []))
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
    "judged": ("labels", "success", "tolerances", "adversarial_predictions"),
}


def _files(paths: Iterable[Path | str], kind: str) -> Iterable[tuple[dict[str, Any], Arrays]]:
    for path in paths:
        with open_hdf5(path, kind) as file:
            yield read_settings(file), read_arrays(file, _READ.get(kind))


def _row(check: Check, evidence: Evidence) -> dict[str, Any]:
    value = check.measure(evidence)
    return {
        "check": check.name,
        "title": check.title,
        "value": value,
        "bound": check.bound,
        "threshold": check.threshold,
        "outcome": _outcome(check, value),
        "supports": check.supports,
        "failure": check.failure,
    }


def _outcome(check: Check, value: float) -> str:
    if math.isnan(value):
        return NOT_MEASURED
    good = value <= check.threshold if check.bound == "at most" else value >= check.threshold
    return PASSED if good else FAILED
