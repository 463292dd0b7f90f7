"""Phrases that the sentences of the report share: settings, and how many of them."""

import pandas as pd

from node_robustness.numbers import label
from node_robustness.tables.frame import NO_ODE, tau_words

NORMS = {"linf": "L∞", "l2": "L2", "l2_rms": "root-mean-square L2"}
"""The names of the norms in sentences."""


def counted(n: int, noun: str) -> str:
    """A number of things, such as `1 setting` or `1,234 settings`."""
    return f"{n:,} {noun}" + ("s" if n != 1 else "")


def among(count: int, n: int, noun: str = "setting") -> str:
    """How many of n things, such as `none of 36 settings` or `2 of 36 settings`."""
    return f"{count or 'none'} of {counted(n, noun)}"


def networks(n: int) -> str:
    """The networks about which a sentence speaks: all that were trained, and no others."""
    return "this network" if n == 1 else f"these {n:,} networks"


def sized(norm: str, epsilon: float) -> str:
    """A norm and an epsilon, such as `L∞ ε = 0.1`."""
    return f"{NORMS[norm]} ε = {label(float(epsilon))}"


def setting(row: pd.Series) -> str:
    """Tolerance, norm and epsilon of a row; without an ODE there is no tolerance."""
    return f"{_tau_first(row)}{sized(row.norm, row.epsilon)}"


def attack_setting(row: pd.Series) -> str:
    """Tolerance, attack and epsilon of a row; without an ODE there is no tolerance."""
    return f"{_tau_first(row)}{row.attack}, ε = {label(float(row.epsilon))}"


def _tau_first(row: pd.Series) -> str:
    return "" if row.tau == NO_ODE else f"{tau_words(row.tau)}, "
