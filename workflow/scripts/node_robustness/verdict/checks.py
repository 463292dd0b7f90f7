"""Sanity checks of an evaluation: each a named row with its value, interval and outcome.

What robustness can be mistaken for: gradients that vanish or point nowhere, attacks too short or
broken, predictions that are noise. After Carlini et al., On Evaluating Adversarial Robustness
(2019), Athalye et al., Obfuscated Gradients Give a False Sense of Security (2018), and the six
indicators of Pintor et al., Indicators of Attack Failure: Debugging and Improving Optimization of
Adversarial Examples (NeurIPS 2022, arXiv 2106.09947).

A check passes or fails by the bound of its interval. What the images are too few to tell is
undecided.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.tables.audit import Arrays, read_arrays
from node_robustness.tables.frame import SOLVED, lacks, place, tabulate, with_results
from node_robustness.verdict import measures
from node_robustness.verdict.measures import Evidence, Measure, Measured
from node_robustness.verdict.protocols import AttackedNetwork

PASSED, FAILED, UNDECIDED, NOT_MEASURED = "passed", "failed", "undecided", "not measured"

SOLVER_SUCCEEDS = "solver_succeeds"
"""The check of failed solves; its value is 1 where all fail."""

_CHECKS = {
    **SOLVED,
    **dict.fromkeys(["check", "title", "norm"], "str"),
    "value": "float64",
    "n": "int64",
    **dict.fromkeys(["low", "high", "threshold"], "float64"),
    **dict.fromkeys(["bound", "outcome"], "str"),
    "supports": "bool",
    **dict.fromkeys(["failure", "reason"], "str"),
}


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name in tables.
        title: Its name for people, a statement that is true where it passes.
        measure: From the evidence and a norm to its values.
        limit: ``at most`` or ``at least``, on which side of the threshold the bound must lie, and
            the threshold.
        failure: What a failure means, in one sentence.
        supports: Whether robustness can hold only where it passes.
        ode_only: Whether it means nothing to a model without an ODE.
        by_norm: Whether every norm has a row.
        tolerated: The share that may be found, where that is less than the threshold, which images
            are too few to come below.
        needs: Without what it is not measured; empty if that is an audit.
    """

    name: str
    title: str
    measure: Measure
    limit: tuple[str, float]
    failure: str
    supports: bool = True
    ode_only: bool = False
    by_norm: bool = True
    tolerated: float | None = None
    needs: str = ""


CHECKS = (
    Check(
        "unavailable_gradients",
        "Gradients are neither zero nor missing",
        measures.no_gradient,
        ("at most", 0.05),
        "This share of the images has no gradient to follow, as they are or on the path of "
        "Auto-PGD, so that gradient attacks fail whether or not the model is robust.",
        tolerated=0.01,
    ),
    Check(
        "gradients_precise",
        "Gradients exceed rounding errors",
        measures.precision_cosine,
        ("at least", 0.9),
        "The median cosine between gradients in single and in double precision is this low. Where "
        "a model is very confident, the gradient of the cross-entropy has no digits left.",
        supports=False,
        by_norm=False,
    ),
    Check(
        "gradients_describe",
        "Gradients agree with finite differences of the model",
        measures.slope_error,
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
        "unstable_predictions",
        "Predictions are stable around the image",
        measures.unstable,
        ("at most", 0.05),
        "Within 1/255 of this share of the images the prediction changes, or the margin by more "
        "than 10 %: it depends on rounding or on the solver's steps, and gradients say little "
        "there.",
        by_norm=False,
    ),
    Check(
        "silent_success",
        "Attacks return the adversarial examples that they meet",
        measures.silent_success,
        ("at most", 0.05),
        "On the way of an attack lies an adversarial example of this share of the images, and the "
        "attack returned none: its code is broken.",
    ),
    Check(
        "incomplete_optimisation",
        "The loss of Auto-PGD levels off",
        partial(measures.still_rising, path="apgd"),
        ("at most", 0.05),
        "For this share of the images Auto-PGD found nothing while its loss still rose: more steps "
        "may break them.",
        supports=False,
    ),
    Check(
        "paper_incomplete",
        "The loss of the paper's attack levels off",
        partial(measures.still_rising, path="paper"),
        ("at most", 0.05),
        "For this share of the images the paper's attack found nothing while its loss still rose: "
        "it has too few steps.",
        supports=False,
    ),
    Check(
        "transferability",
        "Adversarial examples hold in a second solve",
        measures.unconfirmed,
        ("at most", 0.05),
        "This share of the images with an adversarial example is classified correctly when it is "
        "evaluated again: what the attack attacked is not what the model does.",
        supports=False,
        ode_only=True,
        tolerated=0.01,
    ),
    Check(
        "unconstrained_failure",
        "A large epsilon breaks every image",
        partial(measures.unbroken, name="large_epsilon_success"),
        ("at most", 0.05),
        "This share of the images survives a change so large that any image can become another: "
        "the attack is broken or its gradients are masked.",
        by_norm=False,
    ),
    Check(
        "paper_breaks_all",
        "The paper's attack breaks every image at a large epsilon",
        partial(measures.unbroken, name="paper_large_epsilon_success"),
        ("at most", 0.05),
        "This share of the images survives the paper's attack at a change so large that any image "
        "can become another: its gradients are masked, or it has too few steps.",
        supports=False,
        by_norm=False,
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
        "The second half of Auto-PGD's steps breaks few images",
        measures.broken_late,
        ("at most", 0.05),
        "The second half of Auto-PGD's steps breaks this share of the images: the attack has not "
        "converged.",
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
        "larger_budget_finds_more",
        "More gradient steps break no fewer images",
        measures.lost_with_budget,
        ("at most", 0.05),
        "An attack breaks this share of the images fewer than another one that takes fewer steps "
        "along the same kind of gradient: its steps are badly tuned.",
        needs="second gradient attack with another number of steps along the same gradient",
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
        "held_steps",
        "Adversarial examples survive with the solver's steps held",
        measures.survives_held_steps,
        ("at least", 0.8),
        "Only this share of Auto-PGD's adversarial examples fools the model with the solver's "
        "steps for the clean image: accepted and rejected steps make the others.",
        supports=False,
        ode_only=True,
    ),
    Check(
        SOLVER_SUCCEEDS,
        "The solver does not fail",
        measures.failed_solves,
        ("at most", 0.05),
        "The solve fails for this share of the images, clean or adversarial. They count as "
        "misclassified, though nothing was predicted.",
        ode_only=True,
        by_norm=False,
        tolerated=0.0,
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
        none), or one for each norm: ``check``, ``title``, ``norm`` (empty where it has none);
        ``value`` with the bounds ``low`` and ``high``, each of which holds with 95 %, and the ``n``
        images that it rests on; ``bound`` (at most, at least) and ``threshold``; ``outcome``:
        passed or failed by the bound, undecided where the images are too few, or not measured;
        whether robustness can hold only where it passes (``supports``), what a ``failure`` means,
        and the ``reason`` why it is undecided or not measured. Level: this network.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    groups: dict[tuple[Any, ...], list[AttackedNetwork]] = {}
    for group in attacked:
        groups.setdefault(_key(group.where), []).append(group)
    audits = list(audits)
    by_audit = {_key(where): arrays for where, arrays in _files(audits, "audit")}
    unaudited = {_key(where): why for where, why in lacks(audits, "audit")}
    by_reevaluated: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Arrays]]] = {}
    for where, arrays in _files(reevaluated, "reevaluated"):
        by_reevaluated.setdefault(_key(where), []).append((where, arrays))
    rows = []
    for where, arrays in _files(clean, "clean"):
        key = _key(where)
        evidence = Evidence(
            groups.get(key, []),
            arrays,
            by_audit.get(key),
            by_reevaluated.get(key, []),
            unaudited.get(key, ""),
        )
        rows += [
            {name: where[name] for name in SOLVED} | _row(check, evidence, norm)
            for check in CHECKS
            if evidence.ode or not check.ode_only
            for norm in (evidence.norms if check.by_norm else None) or [""]
        ]
    # Sorting is stable: the checks of a network keep their order.
    ordered = sorted(rows, key=lambda row: place({name: row[name] for name in SOLVED}))
    return tabulate(ordered, _CHECKS)


def _key(where: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in SOLVED)


# Of the large arrays only those that a check looks at.
_READ = {
    "clean": ("nfe", "status"),
    "reevaluated": ("labels", "success", "tolerances", "adversarial_predictions"),
}


def _files(paths: Iterable[Path | str], kind: str) -> Iterable[tuple[dict[str, Any], Arrays]]:
    for file, settings in with_results(paths, kind):
        yield settings, read_arrays(file, _READ.get(kind))


def _row(check: Check, evidence: Evidence, norm: str) -> dict[str, Any]:
    bound, threshold = check.limit
    found = check.measure(evidence, norm)
    value = measures.worst(found, partial(_fails, check), bound == "at most")
    outcome = _outcome(check, value)
    return {
        "check": check.name,
        "title": check.title,
        "norm": norm,
        **value._asdict(),
        "threshold": threshold,
        "bound": bound,
        "outcome": outcome,
        "supports": check.supports,
        "failure": check.failure,
        "reason": _reason(check, evidence, value, outcome),
    }


def _fails(check: Check, found: Measured) -> bool:
    bound, threshold = check.limit
    if bound == "at least":
        return found.high < threshold
    return found.low > (threshold if check.tolerated is None else check.tolerated)


def _passes(check: Check, found: Measured) -> bool:
    bound, threshold = check.limit
    if bound == "at least":
        return found.low >= threshold
    tolerated = threshold if check.tolerated is None else check.tolerated
    return found.high <= threshold and found.value <= tolerated


def _outcome(check: Check, found: Measured) -> str:
    if math.isnan(found.value):
        return NOT_MEASURED
    if _fails(check, found):
        return FAILED
    return PASSED if _passes(check, found) else UNDECIDED


def _reason(check: Check, evidence: Evidence, found: Measured, outcome: str) -> str:
    """Why a check neither passed nor failed, and what can be done."""
    if outcome == UNDECIDED:
        bound, threshold = check.limit
        limit = found.high if bound == "at most" else found.low
        if math.isnan(limit):
            return f"{_images(found.n)} too few for a bound; measure more"
        return (
            f"{_images(found.n)} too few to tell whether {found.value:.3g} is {bound} "
            f"{threshold:g}: it may be {limit:.3g}; measure more"
        )
    if outcome != NOT_MEASURED:
        return ""
    if check.needs:
        return f"there was no {check.needs}; add one to the attacks"
    if check.name == "transferability":
        return "no adversarial example was evaluated again; turn matrix on"
    if check.name == SOLVER_SUCCEEDS:
        return "there was no image"
    if evidence.audit is None:
        return evidence.unaudited or (
            "there was no audit; turn audit on, which a model with backend torchdiffeq cannot have"
        )
    reason = (
        "the audit had no image for it: none is classified correctly, none has an adversarial "
        "example, or nothing changes their logits"
    )
    return f"{reason}. {evidence.unaudited}" if evidence.unaudited else reason


def _images(n: int) -> str:
    return "1 image is" if n == 1 else f"{n} images are"
