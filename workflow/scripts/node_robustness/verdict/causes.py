"""What causes a gap: gradients that mislead the paper's attack, or an attack that is weak.

An attack of ten steps and one loss leaves more than the strongest of many on any model, even where
its gradients are accurate. A gap is attributed to masked gradients unless the audit shows that the
gradients are accurate.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.verdict.checks import FAILED, NOT_MEASURED
from node_robustness.verdict.comparisons import Replicated
from node_robustness.verdict.protocols import Attempt
from node_robustness.words import points

SMALL = 0.05
"""Share of the images below which a difference is not reported."""

_OF_GRADIENTS = (
    "gradients_exist",
    "gradients_precise",
    "gradients_describe",
    "white_box_stronger",
)
_OF_ADJOINT = "adjoint_agrees"
_BUDGET = ("method", "iterations", "step", "restarts", "loss", "early_stop", "targets", "halvings")


@dataclass(frozen=True)
class Doubts:
    """Why the gradients that an attack follows may be inaccurate.

    Attributes:
        found: the evidence, in words.
        unmeasured: titles of the checks of gradients that were not measured.
    """

    found: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether all checks of the gradients were measured and found nothing."""
        return not self.found and not self.unmeasured


def doubts(item: Replicated, checks: pd.DataFrame, paper: str | None, epsilon: float) -> Doubts:
    """Say why the gradients of the paper's attack may be inaccurate.

    Args:
        item: A model at a tolerance in a norm.
        checks: The rows of `checks.check_table` for it, of all its seeds.
        paper: Name of the paper's attack, None without one.
        epsilon: One of the item's epsilons.

    Returns:
        The checks of its gradients that failed, that of the adjoint among them where the attack
        follows it; and attacks which differ from the paper's in their gradient alone, where they
        break at least 5 points of the images more.
    """
    papers = [_attempt(group.attempts, paper, epsilon) for group in item.groups.values()]
    wanted = {*_OF_GRADIENTS}
    if any(own is not None and own.gradient == "adjoint" for own in papers):
        wanted.add(_OF_ADJOINT)
    rows = checks[checks.check.isin(wanted)]
    failed = [f"failed: {title}" for title in dict.fromkeys(rows.title[rows.outcome == FAILED])]
    return Doubts(
        (*failed, *_with_other_gradients(item, paper, epsilon)),
        tuple(dict.fromkeys(rows.title[rows.outcome == NOT_MEASURED])),
    )


def _attempt(attempts: tuple[Attempt, ...], attack: str | None, epsilon: float) -> Attempt | None:
    return next((a for a in attempts if (a.attack, a.epsilon) == (attack, epsilon)), None)


def _with_other_gradients(item: Replicated, paper: str | None, epsilon: float) -> list[str]:
    """What the same attack breaks with another gradient."""
    more: dict[str, list[float]] = {}
    for group in item.groups.values():
        own = _attempt(group.attempts, paper, epsilon)
        for other in group.attempts:
            if own is None or other.epsilon != epsilon or not _alike(own, other):
                continue
            gained = group.correct & other.success & ~own.success
            more.setdefault(other.attack, []).append(float(np.mean(gained)))
    return [
        f"the same steps along the gradient of {attack} break {points(float(np.mean(shares)))} more"
        for attack, shares in more.items()
        if np.mean(shares) > SMALL
    ]


def _alike(own: Attempt, other: Attempt) -> bool:
    """Whether two attacks differ in their gradient alone."""

    def budget(attempt: Attempt) -> dict[str, Any]:
        return {name: attempt.settings.get(name) for name in _BUDGET}

    return own.gradient != other.gradient and budget(own) == budget(other)
