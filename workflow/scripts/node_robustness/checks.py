"""Sanity checks of an evaluation: each a named row with its figure, threshold and outcome.

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

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.protocols import CONTROL, Attacked, Attempt
from node_robustness.sizes import within
from node_robustness.storage import open_hdf5, read_settings
from node_robustness.tables import SOLVED, place, tabulate

PASSED, FAILED, NOT_MEASURED = "passed", "failed", "not measured"

SOLVER_SUCCEEDS = "solver_succeeds"
"""The check of failed solves; its figure is 1 where all fail."""

AUDITED = "batch_invariant"
"""A check that every audit measures, whatever it finds."""

BLACK_BOX = ("square", "transfer")
"""Methods that use no gradient of the model under attack."""

_CHECKS = {
    **SOLVED,
    **dict.fromkeys(["check", "title"], "str"),
    **dict.fromkeys(["figure", "threshold"], "float64"),
    "bound": "str",
    "outcome": "str",
    "supports": "bool",
    "failure": "str",
}

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Evidence:
    """What is known of one model at one tolerance.

    Attributes:
        groups: Its attacks, one item a norm.
        clean: The arrays of its clean.h5.
        audit: Those of its audit.h5, None without one.
        judged: Those of its judged.h5, one item a cell, with the cell's ``tolerance`` beside.
    """

    groups: list[Attacked]
    clean: Arrays
    audit: Arrays | None
    judged: list[tuple[float | None, Arrays]]

    @property
    def ode(self) -> bool:
        """Whether the model solves an ODE."""
        return "nfe" in self.clean

    def of_correct(self, name: str) -> NDArray[Any] | None:
        """An array of the audit, of those images that the model classifies correctly."""
        if self.audit is None or name not in self.audit:
            return None
        values: NDArray[Any] = self.audit[name][self.audit["correct"]]
        return values


def _mean(values: NDArray[Any] | None) -> float:
    return math.nan if values is None or not len(values) else float(np.mean(values))


def _largest(values: Iterable[float]) -> float:
    return max(values, default=math.nan)


def _single_step_alone(evidence: Evidence) -> float:
    single = evidence.of_correct("single_step_success")
    several = evidence.of_correct("iterations_success")
    return math.nan if single is None or several is None else _mean(single & ~several[:, 0])


def _gained_by_doubling(evidence: Evidence) -> float:
    success = evidence.of_correct("iterations_success")
    return math.nan if success is None else _mean(success[:, 1]) - _mean(success[:, 0])


def _lost_with_epsilon(evidence: Evidence) -> float:
    """The largest loss of success from one epsilon to the next; none where there is but one."""
    losses = []
    for group in evidence.groups:
        rates: dict[str, list[float]] = {}
        for attempt in group.attempts:
            if attempt.method != CONTROL:
                rates.setdefault(attempt.attack, []).append(_mean(attempt.success))
        losses += [float(max(0.0, *-np.diff([0.0, *found]))) for found in rates.values()]
    return _largest(losses)


def _unbroken_at_large_epsilon(evidence: Evidence) -> float:
    return 1 - _mean(evidence.of_correct("large_epsilon_success"))


def _alone(evidence: Evidence, own: Callable[[Attempt], bool]) -> float:
    """The largest share of images, over norms and epsilons, that only these attacks break."""
    shares = []
    for group in evidence.groups:
        if not any(own(attempt) for attempt in group.attempts):
            continue
        mine = group.smallest(own)
        others = group.smallest(lambda a: not own(a) and a.method != CONTROL)
        shares += [
            _mean(group.correct & within(mine, epsilon) & ~within(others, epsilon))
            for epsilon in group.epsilons
        ]
    return _largest(shares)


def _black_box_alone(evidence: Evidence) -> float:
    return _alone(evidence, lambda attempt: attempt.method in BLACK_BOX)


def _noise_alone(evidence: Evidence) -> float:
    return _alone(evidence, lambda attempt: attempt.method == CONTROL)


def _of_direct(evidence: Evidence, name: str) -> NDArray[Any] | None:
    """The column of the source ``direct`` of an array of the audit."""
    if evidence.audit is None or name not in evidence.audit:
        return None
    column: NDArray[Any] = evidence.audit[name][:, _source(evidence.audit, "direct")]
    return column


def _source(audit: Arrays, name: str) -> int:
    return [str(source) for source in audit["sources"]].index(name)


def _no_gradient(evidence: Evidence) -> float:
    norms = _of_direct(evidence, "gradient_norm")
    return math.nan if norms is None else _mean(~(np.isfinite(norms) & (norms > 0)))


def derivative_errors(audit: Arrays, source: str, reference: str) -> NDArray[np.float64]:
    """How far directional derivatives are from finite differences, relative to these, [n].

    Args:
        audit: Arrays of an audit.h5.
        source: Where the gradient comes from, such as ``direct``.
        reference: ``finite_difference`` or ``finite_difference_frozen``.

    Returns:
        For every image the Euclidean norm over directions of the deviation, over that of the
        finite differences; NaN where these are all zero.
    """
    derivative = audit["derivative"][:, _source(audit, source)].astype(float)
    differences = audit[reference].astype(float)
    size = np.linalg.norm(differences, axis=1)
    errors = np.linalg.norm(derivative - differences, axis=1)
    relative: NDArray[np.float64] = np.divide(
        errors, size, out=np.full(len(size), math.nan), where=size > 0
    )
    return relative


def _median_error(evidence: Evidence, reference: str) -> float:
    if evidence.audit is None or reference not in evidence.audit:
        return math.nan
    errors = derivative_errors(evidence.audit, "direct", reference)
    known = errors[np.isfinite(errors)]
    return float(np.median(known)) if len(known) else math.nan


def _adjoint_cosine(evidence: Evidence) -> float:
    audit = evidence.audit
    if audit is None or "adjoint" not in [str(source) for source in audit["sources"]]:
        return math.nan
    cosines = audit["cosine"][:, _source(audit, "direct"), _source(audit, "adjoint")]
    known = cosines[np.isfinite(cosines)]
    return float(np.median(known)) if len(known) else math.nan


def _precision_cosine(evidence: Evidence) -> float:
    cosines = _of_direct(evidence, "precision_cosine")
    if cosines is None:
        return math.nan
    known = cosines[np.isfinite(cosines)]
    return float(np.median(known)) if len(known) else math.nan


def _neighbours(evidence: Evidence) -> float:
    return _mean(evidence.of_correct("neighbours_changed"))


def _unlike_its_claim(evidence: Evidence) -> float:
    """Claims of success or failure that the prediction for the returned image contradicts."""
    shares = []
    for group in evidence.groups:
        for attempt in group.attempts:
            # A failed search for the smallest adversarial may return one beyond epsilon.
            broken = (attempt.predictions != group.labels) & ~attempt.beyond
            shares.append(_mean(group.correct & (attempt.claimed != broken)))
    return _largest(shares)


def _unconfirmed(evidence: Evidence) -> float:
    shares = []
    for tolerance, judged in evidence.judged:
        at = np.flatnonzero(judged["tolerances"] == tolerance)
        if len(at) and judged["success"].any():
            again = judged["adversarial_predictions"][:, at[0]] != judged["labels"]
            shares.append(_mean(~again[judged["success"]]))
    return _largest(shares)


def _depends_on_batch(evidence: Evidence) -> float:
    return math.nan if evidence.audit is None else _mean(evidence.audit["alone_prediction_differs"])


def _planted_survived(evidence: Evidence) -> float:
    return math.nan if evidence.audit is None else 1 - _mean(evidence.audit["planted_success"])


def _failed_solves(evidence: Evidence) -> float:
    failed = [_mean(evidence.clean["status"] != 0)] if "status" in evidence.clean else []
    for group in evidence.groups:
        failed += [_mean(a.success & (a.predictions < 0)) for a in group.attempts]
    return _largest(failed)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: Its name in tables.
        title: Its name for people, a statement that is true where it passes.
        figure: From the evidence to its figure; NaN where it was not measured.
        bound: ``at most`` or ``at least``: on which side of the threshold it passes.
        threshold: The limit, which itself passes.
        failure: What a failure means, in one sentence.
        supports: Whether robustness can hold only where it passes.
        ode_only: Whether it means nothing to a model without an ODE.
        needs: The attack without which it is not measured; empty if that is an audit.
    """

    name: str
    title: str
    figure: Callable[[Evidence], float]
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
        none): ``check``, ``title``, ``figure``, ``bound`` (at most, at least) and ``threshold``,
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


def read_arrays(file: Any, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the datasets of an open file by name, all at its root or those of the names."""
    arrays = {}
    for name in file if names is None else names:
        if name in file:
            text = file[name].dtype.kind == "O"
            arrays[name] = file[name].asstr()[:] if text else file[name][()]
    return arrays


def _row(check: Check, evidence: Evidence) -> dict[str, Any]:
    figure = check.figure(evidence)
    return {
        "check": check.name,
        "title": check.title,
        "figure": figure,
        "bound": check.bound,
        "threshold": check.threshold,
        "outcome": _outcome(check, figure),
        "supports": check.supports,
        "failure": check.failure,
    }


def _outcome(check: Check, figure: float) -> str:
    if math.isnan(figure):
        return NOT_MEASURED
    good = figure <= check.threshold if check.bound == "at most" else figure >= check.threshold
    return PASSED if good else FAILED
