"""Attacked networks of which every outcome is given, without files: many tables in little time."""

import numpy as np
import pandas as pd

from node_robustness.verdict.protocols import PROTOCOLS, AttackedNetwork, Attempt
from samples import SUITE, solved

BROKEN_BY = {"bim_adjoint": "paper", "bim_direct": "corrected", "noise": None}
"""Under which protocol an attack breaks what is broken; the others are the strongest."""


def network(outcomes, *, norm="linf", **where):
    """All attacks on one network, from the images that it keeps.

    Args:
        outcomes: By epsilon, which images are robust under the paper's attack, under that with a
            corrected gradient too, and under all attacks; bool [3, n], each within the one before.
        norm: Of the perturbations.
        **where: As for `samples.solved`; a tolerance of None is a network without an ODE.
    """
    place = solved(**where)
    ode = place["tolerance"] is not None
    attempts = [
        _attempt(attack, settings, epsilon, dict(zip(PROTOCOLS, left, strict=True)))
        for epsilon, left in outcomes.items()
        for attack, settings in SUITE.items()
        if ode or attack != "apgd_surrogate"
    ]
    n = next(iter(outcomes.values())).shape[1]
    return AttackedNetwork(
        place | {"norm": norm},
        ode,
        np.arange(n),
        np.zeros(n, int),
        np.ones(n, bool),
        tuple(attempts),
    )


def _attempt(attack, settings, epsilon, left):
    protocol = BROKEN_BY.get(attack, "strongest")
    kept = left["strongest"] | True if protocol is None else left[protocol]
    success = ~kept
    size = np.where(success, epsilon, np.inf)
    moved = np.full(len(success), epsilon)
    return Attempt(
        attack,
        epsilon,
        settings | {"attack": attack},
        success,
        size,
        np.where(success, 1, 0),
        np.zeros_like(success),
        success,
        np.zeros_like(success),
        (moved, moved),
    )


def passed(networks):
    """The table of checks of networks that pass the only one."""
    about = {
        "check": "drawn",
        "title": "Drawn",
        "supports": True,
        "outcome": "passed",
        "value": 0.0,
    }
    return pd.DataFrame([item.where | {"norm": ""} | about for item in networks]).astype(
        {"tolerance": float}
    )
