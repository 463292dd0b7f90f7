"""The values that checks compare with their thresholds, each with its interval."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from node_robustness.perturbations.sizes import Bools, Floats, within
from node_robustness.statistics import paired, proportions
from node_robustness.statistics.intervals import median_with_interval
from node_robustness.tables.audit import Arrays, derivative_errors, source_of
from node_robustness.verdict.protocols import CONTROL, AttackedNetwork, Attempt

LEVEL = 0.9
"""The confidence level of the intervals: each of the two bounds fails with at most 5 %."""

UNSTABLE = 0.1
"""The mean relative change of the margin around an image from which it is unstable (Pintor et al.
2022, indicator 2)."""

RISING = 0.05
"""The share of its whole range by which the loss still rises over the last steps of an optimisation
that is incomplete (indicator 4 in the authors' code)."""

LAST = 10
"""The last steps: so many, or a quarter of them where that is fewer."""

_HUGE = 1e6

_SMALLEST = ("bisection", "cw", "fab")
"""The methods that look for the smallest perturbation and not for any within epsilon."""


class Measured(NamedTuple):
    """A value that was measured.

    Attributes:
        value: A share, a median or a difference; NaN if nothing was measured.
        n: The number of images that it rests on.
        low: Lower bound, NaN if these are too few for one.
        high: Upper bound.
    """

    value: float
    n: int
    low: float
    high: float


@dataclass(frozen=True)
class Evidence:
    """What is known of one model at one tolerance.

    Attributes:
        groups: Its attacks, one item a norm.
        clean: The arrays of its clean.h5.
        audit: Those of its audit.h5, None without one.
        reevaluated: Those of its reevaluated.h5, with the settings of the cell.
        unaudited: What its audit.h5 lacks, and why, in sentences.
    """

    groups: list[AttackedNetwork]
    clean: Arrays
    audit: Arrays | None
    reevaluated: list[tuple[Mapping[str, Any], Arrays]]
    unaudited: str = ""

    @property
    def ode(self) -> bool:
        """Whether the model solves an ODE."""
        return "nfe" in self.clean

    @property
    def norms(self) -> list[str]:
        """The norms in which it was attacked or audited."""
        audited = [] if self.audit is None else [str(norm) for norm in self.audit["norms"]]
        return sorted({*(str(group.where["norm"]) for group in self.groups), *audited})

    def attacked(self, norm: str) -> list[AttackedNetwork]:
        """Its attacks in one norm, or in all for the empty one."""
        return [group for group in self.groups if norm in ("", group.where["norm"])]

    def audited(self, name: str) -> NDArray[Any] | None:
        """An array of the audit, if there is one."""
        return None if self.audit is None else self.audit.get(name)

    def of_correct(self, name: str) -> NDArray[Any] | None:
        """The same of those images that the model classifies correctly."""
        if self.audit is None or name not in self.audit:
            return None
        values: NDArray[Any] = self.audit[name][self.audit["correct"]]
        return values


Measure = Callable[[Evidence, str], Iterable[Measured]]
"""From the evidence and a norm to what was measured; the check passes if all of it passes."""


def _share(hits: Bools) -> Iterator[Measured]:
    n, count = len(hits), int(np.sum(hits))
    if n:
        yield Measured(count / n, n, *proportions.interval(count, n, LEVEL))


def _median(values: NDArray[Any] | None) -> Iterator[Measured]:
    known = np.asarray([] if values is None else values[~np.isnan(values)], float)
    # A finite number stands for an infinite error, which is as much above any threshold.
    known = np.minimum(known, _HUGE)
    if len(known):
        found = median_with_interval(known)
        yield Measured(found.value, len(known), found.low, found.high)


def _net_loss(before: Bools, after: Bools) -> Measured:
    """The share of images that are true before and not after, less that of those after alone."""
    n, lost, gained = len(before), int(np.sum(before & ~after)), int(np.sum(after & ~before))
    return Measured((lost - gained) / n, n, *paired.interval(lost, gained, n, LEVEL))


def no_gradient(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images without a direct gradient, as they are or along the path of Auto-PGD."""
    norms = evidence.audited("gradient_norm")
    if evidence.audit is not None and norms is not None:
        own = norms[:, source_of(evidence.audit, "direct")]
        missing = ~(np.isfinite(own) & (own > 0))
        along = evidence.audited(f"{norm}/apgd/no_gradient")
        yield from _share(missing if along is None else missing | along)


def precision_cosine(evidence: Evidence, _: str) -> Iterator[Measured]:
    """The median cosine between direct gradients in single and in double precision."""
    yield from _median(evidence.audited("precision_cosine"))


def slope_error(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Median relative errors of direct derivatives, at the images and on the path of Auto-PGD."""
    if evidence.audit is not None:
        yield from _median(derivative_errors(evidence.audit, "direct", "finite_difference"))
        yield from _median(evidence.audited(f"{norm}/apgd/slope_error"))


def adjoint_cosine(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Median cosines of adjoint and direct gradients, at the images and on the paper's path."""
    audit = evidence.audit
    if audit is not None and "adjoint" in [str(source) for source in audit["sources"]]:
        yield from _median(
            audit["cosine"][:, source_of(audit, "direct"), source_of(audit, "adjoint")]
        )
        yield from _median(evidence.audited(f"{norm}/paper/cosine"))


def single_step_alone(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that a single step breaks and several steps do not."""
    single = evidence.of_correct(f"{norm}/single_step_success")
    several = evidence.of_correct(f"{norm}/iterations_success")
    if single is not None and several is not None:
        yield from _share(single & ~several)


def broken_late(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that the second half of Auto-PGD's steps breaks."""
    losses = evidence.of_correct(f"{norm}/apgd/loss")
    success = evidence.of_correct(f"success/apgd_{norm}")
    if losses is not None and success is not None:
        steps = (~np.isnan(losses)).sum(axis=1) - 1
        yield from _share(success & (steps > (losses.shape[1] - 1) // 2))


def silent_success(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images with an adversarial iterate for which a recorded attack returned none."""
    silent = []
    for path in ("paper", "apgd"):
        reached = evidence.of_correct(f"{norm}/{path}/reached")
        success = evidence.of_correct(f"success/{path}_{norm}")
        if reached is not None and success is not None:
            silent.append(reached & ~success)
    if silent:
        yield from _share(np.logical_or.reduce(silent))


def still_rising(evidence: Evidence, norm: str, path: str) -> Iterator[Measured]:
    """Images that an attack leaves although its loss still rises over the last steps."""
    losses = evidence.of_correct(f"{norm}/{path}/loss")
    success = evidence.of_correct(f"success/{path}_{norm}")
    if losses is not None and success is not None:
        last = min(LAST, (losses.shape[1] - 1) // 4)
        highest = np.fmax.accumulate(losses, axis=1)
        whole = highest[:, -1] - np.fmin.reduce(losses, axis=1)
        rises = highest[:, -1] - highest[:, -1 - last] > RISING * whole
        yield from _share(rises & ~success)


def unbroken(evidence: Evidence, _: str, name: str) -> Iterator[Measured]:
    """Images that survive the largest change."""
    success = evidence.of_correct(name)
    if success is not None:
        yield from _share(~success)


def unstable(evidence: Evidence, _: str) -> Iterator[Measured]:
    """Images around which the prediction changes, or the margin by more than a tenth."""
    changed = evidence.of_correct("neighbours_changed")
    variation = evidence.of_correct("neighbours_variation")
    if changed is not None and variation is not None:
        # A failed solve has no margin, which is unstable.
        yield from _share((changed > 0) | ~(variation <= UNSTABLE))


def survives_held_steps(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Adversarial examples that fool the model with the solver's steps for the clean image."""
    adversarial = evidence.audited(f"{norm}/held/adversarial")
    survives = evidence.audited(f"{norm}/held/survives")
    if adversarial is not None and survives is not None:
        yield from _share(survives[adversarial])


def lost_with_epsilon(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that an attack breaks fewer from one epsilon to the next."""
    for group in evidence.attacked(norm):
        cells: dict[str, list[Bools]] = {}
        for attempt in group.attempts:
            if attempt.method != CONTROL:
                start = [np.zeros(len(group.index), bool)]
                cells.setdefault(attempt.attack, start).append(group.correct & attempt.success)
        for successes in cells.values() if len(group.index) else ():
            for smaller, larger in pairwise(successes):
                yield _net_loss(smaller, larger)


def lost_with_budget(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that a gradient attack breaks fewer than another one with fewer gradient steps.

    Both follow the same kind of gradient in the same cell. Images that an attack left out count as
    broken by it.
    """
    for group in evidence.attacked(norm):
        cells: dict[tuple[Any, ...], list[tuple[int, Bools]]] = {}
        for attempt in group.attempts:
            steps = _gradient_steps(attempt)
            if steps is not None:
                broken = group.correct & within(attempt.cumulative, attempt.epsilon)
                kind = attempt.gradient, str(attempt.settings.get("surrogate"))
                cells.setdefault((attempt.epsilon, *kind), []).append((steps, broken))
        for cell in cells.values() if len(group.index) else ():
            ordered = sorted(cell, key=lambda item: item[0])
            for (few, fewer), (many, more) in combinations(ordered, 2):
                if few < many:
                    yield _net_loss(fewer, more)


def _gradient_steps(attempt: Attempt) -> int | None:
    """The gradient steps of an attack in all; None if it is of another kind."""
    settings = attempt.settings
    if attempt.gradient in ("", "none") or attempt.method in _SMALLEST:
        return None
    if attempt.method == "fgsm":
        return 1
    if "iterations" not in settings:
        return None
    return int(
        settings["iterations"] * (settings.get("restarts") or 1) * (settings.get("targets") or 1)
    )


def _alone(evidence: Evidence, norm: str, own: Callable[[Attempt], bool]) -> Iterator[Measured]:
    """Images that only these attacks break, at each epsilon."""
    for group in evidence.attacked(norm):
        if not any(own(attempt) for attempt in group.attempts):
            continue
        mine: Floats = group.smallest(own)
        others = group.smallest(lambda a: not own(a) and a.method != CONTROL)
        for epsilon in group.epsilons:
            yield from _share(group.correct & within(mine, epsilon) & ~within(others, epsilon))


def black_box_alone(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that only black-box attacks break."""
    return _alone(evidence, norm, lambda attempt: attempt.black_box)


def noise_alone(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images that only random noise breaks."""
    return _alone(evidence, norm, lambda attempt: attempt.method == CONTROL)


def unconfirmed(evidence: Evidence, norm: str) -> Iterator[Measured]:
    """Images with an adversarial example that a second solve classifies correctly."""
    found, wrong = [], []
    for cell, reevaluated in evidence.reevaluated:
        at = np.flatnonzero(reevaluated["tolerances"] == cell["tolerance"])
        if cell["norm"] == norm and len(at):
            right = reevaluated["adversarial_predictions"][:, at[0]] == reevaluated["labels"]
            found.append(reevaluated["success"])
            wrong.append(reevaluated["success"] & right)
    if found:
        yield from _share(np.logical_or.reduce(wrong)[np.logical_or.reduce(found)])


def failed_solves(evidence: Evidence, _: str) -> Iterator[Measured]:
    """Images for which a solve fails: the clean one, or that of an adversarial example."""
    if "status" in evidence.clean:
        yield from _share(evidence.clean["status"] != 0)
    for group in evidence.groups:
        failures = [a.success & (a.predictions < 0) for a in group.attempts]
        yield from _share(np.logical_or.reduce(failures))


def worst(found: Iterable[Measured], fails: Callable[[Measured], bool], most: bool) -> Measured:
    """Of several measured values the one that decides: one that fails, else the least certain.

    Args:
        found: What was measured.
        fails: Whether a value is on the wrong side of the threshold by its bound.
        most: Whether the check allows at most so much, and not at least so much.
    """

    def severity(item: Measured) -> tuple[bool, bool, float, float]:
        bound = item.high if most else -item.low
        return fails(item), math.isnan(bound), bound, item.value if most else -item.value

    return max(found, key=severity, default=Measured(math.nan, 0, math.nan, math.nan))
