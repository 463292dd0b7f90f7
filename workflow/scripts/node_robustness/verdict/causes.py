"""What a gap comes from: gradients that mislead the paper's attack, or an attack that is weak.

An attack of ten steps and one loss leaves more than the strongest of many on any model, also where
its gradients are as good as gradients can be. A gap is laid at the gradients' door unless the
evaluation shows them sound.
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
"""Share of the images below which no difference is spoken of."""

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
    """What speaks against the gradients that an attack follows.

    Attributes:
        found: what does, in words.
        unmeasured: titles of the checks that might, and were not made.
    """

    found: tuple[str, ...]
    unmeasured: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether the gradients were looked at and nothing speaks against them."""
        return not self.found and not self.unmeasured


def doubts(item: Replicated, checks: pd.DataFrame, paper: str | None, epsilon: float) -> Doubts:
    """Say what speaks against the gradients of the paper's attack.

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
    letters = [_attempt(group.attempts, paper, epsilon) for group in item.groups.values()]
    wanted = {*_OF_GRADIENTS}
    if any(letter is not None and letter.gradient == "adjoint" for letter in letters):
        wanted.add(_OF_ADJOINT)
    own = checks[checks.check.isin(wanted)]
    failed = [f"failed: {title}" for title in dict.fromkeys(own.title[own.outcome == FAILED])]
    return Doubts(
        (*failed, *_repaired(item, paper, epsilon)),
        tuple(dict.fromkeys(own.title[own.outcome == NOT_MEASURED])),
    )


def _attempt(attempts: tuple[Attempt, ...], attack: str | None, epsilon: float) -> Attempt | None:
    return next((a for a in attempts if (a.attack, a.epsilon) == (attack, epsilon)), None)


def _repaired(item: Replicated, paper: str | None, epsilon: float) -> list[str]:
    """What the same attack breaks with another gradient."""
    more: dict[str, list[float]] = {}
    for group in item.groups.values():
        letter = _attempt(group.attempts, paper, epsilon)
        for other in group.attempts:
            if letter is None or other.epsilon != epsilon or not _alike(letter, other):
                continue
            gained = group.correct & other.success & ~letter.success
            more.setdefault(other.attack, []).append(float(np.mean(gained)))
    return [
        f"the same steps along the gradient of {attack} break {points(float(np.mean(shares)))} more"
        for attack, shares in more.items()
        if np.mean(shares) > SMALL
    ]


def _alike(letter: Attempt, other: Attempt) -> bool:
    """Whether two attacks differ in their gradient alone."""

    def budget(attempt: Attempt) -> dict[str, Any]:
        return {name: attempt.settings.get(name) for name in _BUDGET}

    return letter.gradient != other.gradient and budget(letter) == budget(other)
