"""Attacked networks of which every outcome is given, without files: many tables in little time."""

import numpy as np
import pandas as pd

from node_robustness.trajectories.layout import SHARED
from node_robustness.verdict.followed import Followed, Window
from node_robustness.verdict.protocols import PROTOCOLS, AttackedNetwork, Attempt
from samples import SUITE, cell, solved

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


PARTS = 10
PATCHED = tuple(Window(a, b) for a in range(PARTS) for b in range(a + 1, PARTS + 1))


def followed(random, start, part, n, skewed, *, patched=0.0, **where):
    """A network whose dynamics were followed, from the median fractions of h(0) and of one part.

    Args:
        random: draws what differs by image.
        start: of h(0).
        part: of the fifth part; None: it has as much as the others.
        n: images, all misled.
        skewed: to which side fractions have a long tail: -1, 0 (neither) or 1.
        patched: how often a patch works, whatever the window.
        **where: see `samples.cell`.
    """
    tail = random.gamma(1, 1, n) - np.log(2) if skewed else random.standard_normal(n)
    varied = 0.15 * (skewed or 1) * tail
    own = np.zeros((n, 1 + PARTS))
    own[:, 0], own[:, 5] = start, part or 0
    own[:, 5 if part else 0] += varied
    # Not next to that part: a window has no more than it does.
    others = [k for k in range(1, 1 + PARTS) if abs(k - 5) > 2 or not part]
    own[:, others] = ((1 - own.sum(axis=1)) / len(others))[:, None]
    loss = random.gamma(4, 1, n)
    shares = dict.fromkeys(SHARED, loss[:, None] * own)
    outcomes = (random.random((2, n, len(PATCHED))) < patched).astype(np.int8)
    return Followed(
        cell(**where),
        np.linspace(0, 1, PARTS + 1),
        np.ones(n, bool),
        shares,
        dict.fromkeys(SHARED, loss),
        PATCHED,
        *outcomes,
    )
