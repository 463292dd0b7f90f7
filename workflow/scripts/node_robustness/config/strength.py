"""What an attack suite must contain for robustness under it to count.

Croce & Hein (ICML 2020) show which attacks are needed together: Auto-PGD with the cross-entropy and
with a targeted loss, and a black box, whose success does not depend on gradients. An ODE net needs
the gradient of an accurate solve in addition, because its own may mislead.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Any

STEPS = 100
"""Gradient steps on an image, restarts and targets included, of a strong direct Auto-PGD."""

SURROGATE_STEPS = 40
"""The same of one with surrogate gradients, which asks whether the direct ones mislead."""

QUERIES = 1000
"""Queries of an image of a strong Square attack."""

Settings = Mapping[str, Any]


def missing(attacks: Iterable[Settings], ode: bool) -> list[str]:
    """Say what an attack suite lacks.

    Args:
        attacks: The settings of its attacks on one model, as recorded in attack.h5.
        ode: Whether the model solves an ODE.

    Returns:
        For each kind of attack that is missing, what to add; empty if none is.
    """
    ran = list(attacks)
    wanted: list[tuple[Callable[[Settings], bool], str]] = [
        (
            lambda settings: _apgd(settings, "direct", STEPS) and settings.get("loss") == "ce",
            f"apgd with the loss ce, direct gradients and at least {STEPS} steps (apgd_ce)",
        ),
        (
            lambda settings: (
                _apgd(settings, "direct", STEPS) and settings.get("targets") is not None
            ),
            f"apgd with targets, direct gradients and at least {STEPS} steps in all (apgd_t)",
        ),
        (
            lambda settings: settings["method"] == "square" and settings["queries"] >= QUERIES,
            f"square with at least {QUERIES:,} queries (square)",
        ),
    ]
    if ode:
        wanted.insert(
            2,
            (
                lambda settings: _apgd(settings, "surrogate", SURROGATE_STEPS),
                "apgd with surrogate gradients and at least "
                f"{SURROGATE_STEPS} steps (apgd_surrogate)",
            ),
        )
    return [what for fits, what in wanted if not any(map(fits, ran))]


def _apgd(settings: Settings, gradient: str, steps: int) -> bool:
    """Whether an attack is Auto-PGD with this gradient and at least so many steps."""
    if settings["method"] != "apgd" or settings["gradient"] != gradient:
        return False
    counts = (settings.get(name) or 1 for name in ("iterations", "restarts", "targets"))
    return prod(counts) >= steps


LATER = frozenset({3, 4})
"""The ranks after those that every strong suite begins with: what these add shows saturation."""


def rank(settings: Mapping[str, Any]) -> int:
    """The place of an attack in the order in which attacks of a strong suite add to each other.

    Auto-PGD untargeted (1), targeted (2) and along surrogate gradients (3), Square (4); 0 for every
    other attack.
    """
    if settings["method"] == "apgd":
        return 3 if settings.get("gradient") == "surrogate" else 2 if settings.get("targets") else 1
    return 4 if settings["method"] == "square" else 0
