"""The values that checks compare with their thresholds."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node_robustness.perturbations.sizes import within
from node_robustness.tables.audit import Arrays, derivative_errors, source_of
from node_robustness.verdict.protocols import CONTROL, AttackedNetwork, Attempt


@dataclass(frozen=True)
class Evidence:
    """What is known of one model at one tolerance.

    Attributes:
        groups: Its attacks, one item a norm.
        clean: The arrays of its clean.h5.
        audit: Those of its audit.h5, None without one.
        reevaluated: Those of its reevaluated.h5, one item a cell, with the cell's ``tolerance``.
    """

    groups: list[AttackedNetwork]
    clean: Arrays
    audit: Arrays | None
    reevaluated: list[tuple[float | None, Arrays]]

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


def _median(values: NDArray[Any]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _largest(values: Iterable[float]) -> float:
    return max(values, default=math.nan)


def single_step_alone(evidence: Evidence) -> float:
    """The share of the images that a single step breaks and several steps do not."""
    single = evidence.of_correct("single_step_success")
    several = evidence.of_correct("iterations_success")
    return math.nan if single is None or several is None else _mean(single & ~several[:, 0])


def gained_by_doubling(evidence: Evidence) -> float:
    """The share of the images that twice the iterations break more."""
    success = evidence.of_correct("iterations_success")
    return math.nan if success is None else _mean(success[:, 1]) - _mean(success[:, 0])


def lost_with_epsilon(evidence: Evidence) -> float:
    """The largest loss of success from one epsilon to the next; none where there is but one."""
    losses = []
    for group in evidence.groups:
        rates: dict[str, list[float]] = {}
        for attempt in group.attempts:
            if attempt.method != CONTROL:
                rates.setdefault(attempt.attack, []).append(_mean(attempt.success))
        losses += [float(max(0.0, *-np.diff([0.0, *found]))) for found in rates.values()]
    return _largest(losses)


def unbroken_at_large_epsilon(evidence: Evidence) -> float:
    """The share of the images that survive the largest change."""
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


def black_box_alone(evidence: Evidence) -> float:
    """The largest share of the images that only black-box attacks break."""
    return _alone(evidence, lambda attempt: attempt.black_box)


def noise_alone(evidence: Evidence) -> float:
    """The largest share of the images that only random noise breaks."""
    return _alone(evidence, lambda attempt: attempt.method == CONTROL)


def _of_direct(evidence: Evidence, name: str) -> NDArray[Any] | None:
    """The column of the source ``direct`` of an array of the audit."""
    if evidence.audit is None or name not in evidence.audit:
        return None
    column: NDArray[Any] = evidence.audit[name][:, source_of(evidence.audit, "direct")]
    return column


def no_gradient(evidence: Evidence) -> float:
    """The share of the images whose direct gradient is zero or not finite."""
    norms = _of_direct(evidence, "gradient_norm")
    return math.nan if norms is None else _mean(~(np.isfinite(norms) & (norms > 0)))


def median_error(evidence: Evidence, reference: str) -> float:
    """The median relative error of direct derivatives against finite differences."""
    if evidence.audit is None or reference not in evidence.audit:
        return math.nan
    return _median(derivative_errors(evidence.audit, "direct", reference))


def adjoint_cosine(evidence: Evidence) -> float:
    """The median cosine between adjoint and direct gradients."""
    audit = evidence.audit
    if audit is None or "adjoint" not in [str(source) for source in audit["sources"]]:
        return math.nan
    return _median(audit["cosine"][:, source_of(audit, "direct"), source_of(audit, "adjoint")])


def precision_cosine(evidence: Evidence) -> float:
    """The median cosine between gradients in single and in double precision."""
    cosines = _of_direct(evidence, "precision_cosine")
    return math.nan if cosines is None else _median(cosines)


def neighbours_changed(evidence: Evidence) -> float:
    """The share of close neighbours of images that are predicted otherwise."""
    return _mean(evidence.of_correct("neighbours_changed"))


def unlike_its_claim(evidence: Evidence) -> float:
    """Claims of success or failure that the prediction for the returned image contradicts."""
    shares = []
    for group in evidence.groups:
        for attempt in group.attempts:
            # A failed search for the smallest adversarial may return one beyond epsilon.
            broken = (attempt.predictions != group.labels) & ~attempt.beyond
            shares.append(_mean(group.correct & (attempt.claimed != broken)))
    return _largest(shares)


def unconfirmed(evidence: Evidence) -> float:
    """The largest share of the adversarial examples of a cell that a second solve gets right."""
    shares = []
    for tolerance, reevaluated in evidence.reevaluated:
        at = np.flatnonzero(reevaluated["tolerances"] == tolerance)
        if len(at) and reevaluated["success"].any():
            again = reevaluated["adversarial_predictions"][:, at[0]] != reevaluated["labels"]
            shares.append(_mean(~again[reevaluated["success"]]))
    return _largest(shares)


def depends_on_batch(evidence: Evidence) -> float:
    """The share of the images that are predicted otherwise alone than in a batch."""
    return math.nan if evidence.audit is None else _mean(evidence.audit["alone_prediction_differs"])


def planted_survived(evidence: Evidence) -> float:
    """The share of the images of a planted weak model that survive the attack."""
    return math.nan if evidence.audit is None else 1 - _mean(evidence.audit["planted_success"])


def failed_solves(evidence: Evidence) -> float:
    """The largest share of failed solves, of clean images or of adversarial examples."""
    failed = [_mean(evidence.clean["status"] != 0)] if "status" in evidence.clean else []
    for group in evidence.groups:
        failed += [_mean(a.success & (a.predictions < 0)) for a in group.attempts]
    return _largest(failed)
