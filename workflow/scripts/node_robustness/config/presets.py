"""Attacks that need no entry under `attacks`, and the lists of them that one name stands for."""

from collections.abc import Sequence
from typing import Any

PAPER_ATTACK = "bim_adjoint"
"""The paper's protocol, unless an experiment says otherwise."""

BUILT_IN: dict[str, dict[str, Any]] = {
    "fgsm": {"method": "fgsm"},
    # The paper's, but for its steps, which are absolute.
    "bim_adjoint": {
        "method": "bim",
        "iterations": 10,
        "relative_step": 0.25,
        "gradient": "adjoint",
    },
    "bim_direct": {"method": "bim", "iterations": 10, "relative_step": 0.25},
    "bim_surrogate": {
        "method": "bim",
        "iterations": 10,
        "relative_step": 0.25,
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
    "pgd": {
        "method": "pgd",
        "iterations": 20,
        "restarts": 2,
        "relative_step": 0.125,
        "loss": "margin",
    },
    "pgd_surrogate": {
        "method": "pgd",
        "iterations": 40,
        "restarts": 2,
        "relative_step": 0.0625,
        "loss": "margin",
        "gradient": "surrogate",
        "surrogate": {"tolerance": 1e-4},
    },
    "eot_pgd": {
        "method": "eot_pgd",
        "iterations": 20,
        "relative_step": 0.125,
        "loss": "margin",
        "draws": 5,
    },
    "bisection": {"method": "bisection", "iterations": 10, "relative_step": 0.25, "halvings": 6},
    "apgd_ce": {"method": "apgd", "loss": "ce", "iterations": 100},
    "apgd_t": {"method": "apgd", "loss": "dlr", "iterations": 100, "targets": 9},
    "fab_t": {"method": "fab", "iterations": 100, "targets": 9},
    "cw": {"method": "cw"},
    "square": {"method": "square", "queries": 5000},
    "square_short": {"method": "square", "queries": 200},
    "transfer": {"method": "transfer", "by": "pgd"},
    "noise": {"method": "noise", "draws": 20},
}

PRESETS: dict[str, list[str]] = {
    # The published protocol, to the letter, and nothing else.
    "paper": ["bim_adjoint"],
    # At little cost: enough to see masked gradients where they are gross.
    "quick": [
        "bim_adjoint",
        "bim_direct",
        "bim_surrogate",
        "pgd",
        "bisection",
        "square_short",
        "transfer",
        "noise",
    ],
    # AutoAttack's standard version with its parameters (apgd_ce, apgd_t, fab_t, square), and what a
    # changed tolerance or an ODE asks for besides.
    "standard": [
        "bim_adjoint",
        "bim_direct",
        "apgd_ce",
        "apgd_t",
        "fab_t",
        "square",
        "pgd_surrogate",
        "cw",
        "transfer",
        "noise",
    ],
}


def expand(names: Sequence[str]) -> list[str]:
    """The attacks that names of attacks and presets stand for, without repetition."""
    return list(dict.fromkeys(attack for name in names for attack in PRESETS.get(name, [name])))


def from_preset(attack: str, attacks: Sequence[str]) -> bool:
    """Whether an attack belongs to a preset that is wholly among the attacks."""
    return any(attack in members <= set(attacks) for members in map(set, PRESETS.values()))
