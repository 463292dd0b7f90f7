"""What single attacks found: how often they succeed in one place and in another.

All of it is descriptive. A difference is called clear
only where it is at least five points and every network shows it: its exact 95 % interval leaves
out zero on each. Low success of an attack is never called robustness.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from node_robustness.report.phrases import networks
from node_robustness.statistics import proportions
from node_robustness.statistics.networks import across
from node_robustness.statistics.proportions import Estimate
from node_robustness.tables.frame import NO_ODE, tau_of, tau_words, without_tolerance

CLEAR = 0.05
"""The smallest difference that is called clear."""

_CONDITION = ["dataset", "attack", "gradient", "norm", "epsilon"]


@dataclass(frozen=True)
class RateChange:
    """The success rates of one attack in two places, over networks."""

    condition: tuple[Any, ...]
    """Dataset, attack, gradient, norm, epsilon (of ``after`` where they differ)."""
    model: str
    before: Estimate
    after: Estimate
    change: Estimate

    @property
    def gradient(self) -> str:
        """How the attack gets its gradients."""
        return str(self.condition[2])

    @property
    def direction(self) -> int:
        """-1 or 1 where the success rate is clearly lower or higher after; else 0."""
        if abs(self.change.value) < CLEAR:
            return 0
        return (self.change.low > 0) - (self.change.high < 0)


def extremes(attacks: pd.DataFrame) -> tuple[float, float] | None:
    """Return the smallest and the largest tolerance, or None if there are not two."""
    known = sorted(set(attacks.tolerance.dropna()))
    return (float(known[0]), float(known[-1])) if len(known) > 1 else None


def _on_all(attacks: pd.DataFrame) -> pd.DataFrame:
    """The attacks that left out no image; the rates of others are those of the hard images."""
    return attacks[~attacks.attack.isin(attacks.attack[attacks.skipped > 0])]


def _solved_at(attacks: pd.DataFrame, tolerance: float) -> dict[str, str]:
    """By model with an ODE, this tolerance, or its own settings where no tolerance bounds it."""
    others = without_tolerance(attacks)
    return {
        str(model): tau_of(math.nan if model in others else tolerance, ode=True)
        for model in dict.fromkeys(attacks.model[attacks.tau != NO_ODE])
    }


def tolerance_changes(attacks: pd.DataFrame) -> list[RateChange]:
    """Compare the success at the largest tolerance with that at the smallest.

    Args:
        attacks: Result of `evaluation.attack_table`.

    Returns:
        One comparison for every condition and model with an ODE, in the order of the table; here
        as below without attacks that left out images which cheaper ones had broken.
    """
    ends = extremes(attacks)
    if ends is None:
        return []
    return [
        comparison
        for key, group in _on_all(attacks).groupby([*_CONDITION, "model"], sort=False)
        if (
            comparison := _compare(
                key,
                group[group.tolerance == ends[0]],
                group[group.tolerance == ends[1]],
            )
        )
    ]


def native_changes(attacks: pd.DataFrame) -> list[tuple[str, RateChange]]:
    """Compare models with an ODE, at the smallest tolerance, with models without.

    Args:
        attacks: Result of `evaluation.attack_table`.

    Returns:
        Pairs of the model without an ODE and the comparison with it, for every condition.
    """
    at_smallest = _solved_at(attacks, attacks.tolerance.min())
    found = []
    for key, group in _on_all(attacks).groupby(_CONDITION, sort=False):
        plain = group[group.tau == NO_ODE]
        solved = group[group.tau == group.model.map(at_smallest)]
        for reference, before in plain.groupby("model", sort=False):
            for model, after in solved.groupby("model", sort=False):
                comparison = _compare((*key, model), before, after, paired=False)
                if comparison:
                    found.append((str(reference), comparison))
    return found


def gradient_changes(attacks: pd.DataFrame) -> list[RateChange]:
    """Compare attacks with direct gradients, at the largest tolerance, with adjoint ones.

    Args:
        attacks: Result of `evaluation.attack_table`.

    Returns:
        One comparison for every pair of an adjoint and a direct attack, norm, epsilon and model.
    """
    whole = _on_all(attacks)
    loosest = whole[whole.tau == whole.model.map(_solved_at(attacks, attacks.tolerance.max()))]
    found = []
    for _, group in loosest.groupby(["dataset", "norm", "epsilon", "model"], sort=False):
        for _, before in group[group.gradient == "adjoint"].groupby("attack", sort=False):
            for _, after in group[group.gradient == "direct"].groupby("attack", sort=False):
                key = tuple(after[[*_CONDITION, "model"]].iloc[0])
                comparison = _compare(key, before, after)
                if comparison:
                    found.append(comparison)
    return found


def _compare(
    key: tuple[Any, ...], before: pd.DataFrame, after: pd.DataFrame, *, paired: bool = True
) -> RateChange | None:
    """Compare the rows of two places, one row a network; None where a rate is missing.

    The same network is compared with itself. Networks of two models have nothing in common: every
    network of one is compared with every network of the other.
    """
    if paired:
        seeds = sorted(set(before.seed) & set(after.seed))
        before, after = (side.set_index("seed").loc[seeds] for side in (before, after))
    counts = [list(zip(s.successes, s.attacked, strict=True)) for s in (before, after)]
    pairs = list(zip(*counts, strict=True)) if paired else list(product(*counts))
    changes = [proportions.difference(*second, *first) for first, second in pairs]
    known = [change for change in changes if change is not None]
    if not known or len(known) < len(changes):
        return None
    rates = [across(s.success_rate, s.success_low, s.success_high) for s in (before, after)]
    change = across(*zip(*known, strict=True))
    return RateChange(key[:-1], str(key[-1]), rates[0], rates[1], change)


@dataclass(frozen=True)
class Direction:
    """In how many settings attacks succeed more or less often in one place than in another.

    Attributes:
        compared: the two places.
        gradients: how the attacks get their gradients.
        of: the networks that are compared.
        settings: how many settings were compared: datasets, attacks, norms and epsilons.
        more: in how many the attacks succeed clearly more often in the first place.
        less: in how many clearly less often.
    """

    compared: str
    gradients: str
    of: str
    settings: int
    more: int
    less: int


def directions(attacks: pd.DataFrame) -> list[Direction]:
    """Count in how many settings the success of attacks clearly differs.

    Args:
        attacks: Result of `evaluation.attack_table`.

    Returns:
        Models with an ODE against models without, the largest tolerance against the smallest, and
        direct gradients against the adjoint; for each kind of gradient and each model.
    """
    found = []
    native = native_changes(attacks)
    at_smallest, at_largest = (
        _solved_at(attacks, end) for end in (attacks.tolerance.min(), attacks.tolerance.max())
    )
    for reference in dict.fromkeys(reference for reference, _ in native):
        own = [change for other, change in native if other == reference]
        place = f", against {reference}"
        found += _counted(attacks, own, at_smallest, place, reference)
    ends = extremes(attacks)
    if ends is not None:
        place = f" against {tau_words(tau_of(ends[0], ode=True))}"
        found += _counted(attacks, tolerance_changes(attacks), at_largest, place)
    place = ", against adjoint gradients"
    return found + _counted(attacks, gradient_changes(attacks), at_largest, place)


def _counted(
    attacks: pd.DataFrame,
    changes: Sequence[RateChange],
    solved_at: Mapping[str, str],
    place: str,
    *others: str,
) -> list[Direction]:
    """Changes counted by the kind of gradient and the model; `others` are compared with it."""
    groups: dict[tuple[str, str], list[int]] = {}
    for change in changes:
        # How tables and files call that an attack uses none.
        gradients = "none" if change.gradient in ("", "none") else change.gradient
        groups.setdefault((gradients, change.model), []).append(change.direction)
    return [
        Direction(
            f"{model}, {tau_words(solved_at[model])}{place}",
            gradients,
            ", ".join(_of(attacks, name) for name in (model, *others)),
            len(own),
            own.count(1),
            own.count(-1),
        )
        for (gradients, model), own in groups.items()
    ]


def _of(attacks: pd.DataFrame, model: str) -> str:
    """The networks of a model that are compared."""
    return f"{networks(attacks.seed[attacks.model == model].nunique())} of {model}"


def cautions(attacks: pd.DataFrame) -> list[str]:
    """Say what a lower success rate does not show, where there is one.

    Args:
        attacks: Result of `evaluation.attack_table`.
    """
    fell = {change.gradient for change in tolerance_changes(attacks) if change.direction < 0}
    if "adjoint" not in fell:
        return (
            ["That these attacks fail more often is no evidence that others would."] if fell else []
        )
    found = [
        "Adjoint gradients that are solved at a loose tolerance can be far from the true gradient.",
        "An attack that fails with them is no evidence of robustness.",
    ]
    if "direct" not in set(attacks.gradient):
        found.append("This run has no attack with direct gradients to compare them with.")
    return found
