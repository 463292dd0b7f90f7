"""What single attacks found, in plain sentences computed from the tables.

Nothing here goes beyond the tables, and all of it is descriptive. A difference is called clear
only where it is at least five points and every network shows it: its exact 95 % interval leaves
out zero on each. Low success of an attack is never called robustness.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from node_robustness.report.phrases import among, counted, networks, tau
from node_robustness.statistics import proportions
from node_robustness.statistics.networks import across, over_networks
from node_robustness.statistics.proportions import Estimate
from node_robustness.words import listed, percent

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
    smallest = attacks.tolerance.min()
    found = []
    for key, group in _on_all(attacks).groupby(_CONDITION, sort=False):
        plain = group[group.tolerance.isna()]
        solved = group[group.tolerance == smallest]
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
    loosest = whole[whole.tolerance == whole.tolerance.max()]
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


def sentences(clean: pd.DataFrame, attacks: pd.DataFrame) -> list[str]:
    """Say what a run found.

    Args:
        clean: Result of `evaluation.clean_table`.
        attacks: Result of `evaluation.attack_table`.

    Returns:
        Plain sentences, cautions included.
    """
    found = [_on_clean(clean[clean.dataset == dataset]) for dataset in dict.fromkeys(clean.dataset)]
    native = native_changes(attacks)
    for reference in dict.fromkeys(reference for reference, _ in native):
        own = [change for other, change in native if other == reference]
        for (gradients, model), directions in _directions(own).items():
            found.append(
                f"At {tau(attacks.tolerance.min())}, the smallest tolerance, attacks {gradients} "
                f"succeed on {model} clearly more often than on {reference} in "
                f"{among(directions.count(1), len(directions))} and clearly less often in "
                f"{directions.count(-1) or 'none'} ({_level(attacks, model)} of {model}, "
                f"{_level(attacks, reference)} of {reference})."
            )
    changes = tolerance_changes(attacks)
    for (gradients, model), directions in _directions(changes).items():
        smallest, largest = attacks.tolerance.min(), attacks.tolerance.max()
        found.append(
            f"From {tau(smallest)} to {tau(largest)}, the success rate of attacks {gradients} on "
            f"{_level(attacks, model)} of {model} falls clearly in "
            f"{among(directions.count(-1), len(directions))} and rises clearly in "
            f"{directions.count(1) or 'none'}."
        )
    return found + _cautions(attacks, changes)


def _level(attacks: pd.DataFrame, model: str) -> str:
    """The networks of a model about which a sentence speaks."""
    return networks(attacks.seed[attacks.model == model].nunique())


def _directions(changes: Sequence[RateChange]) -> Mapping[tuple[str, str], list[int]]:
    """The directions of change by the kind of gradient, in words, and the model."""
    groups: dict[tuple[str, str], list[int]] = {}
    for change in changes:
        # How tables and files call that an attack uses none.
        without = change.gradient in ("", "none")
        gradients = "without gradients" if without else f"with {change.gradient} gradients"
        groups.setdefault((gradients, change.model), []).append(change.direction)
    return groups


def _on_clean(clean: pd.DataFrame) -> str:
    by = ["model", "tolerance"]
    accuracy = over_networks(clean, by, "accuracy", "accuracy")
    parts = []
    for model, group in accuracy.groupby("model", sort=False):
        values = [percent(value) for value in group.value]
        parts.append(
            f"{model} {values[0]}"
            if len(group) == 1
            else f"{model} {values[0]} at {tau(group.tolerance.iloc[0])} and {values[-1]} at "
            f"{tau(group.tolerance.iloc[-1])}"
        )
    images = counted(int(clean.n.max()), "clean test image")
    means = ", means over networks" if accuracy.networks.max() > 1 else ""
    return f"Accuracy on {images} of {clean.dataset.iloc[0]}{means}: {'; '.join(parts)}."


def of_gradients(audit: pd.DataFrame) -> list[str]:
    """Say where adjoint gradients, the paper's, agree with those through the solver's steps.

    Args:
        audit: Result of `audit.audit_table`.

    Returns:
        One sentence for every dataset and model with an ODE that was audited.
    """
    known = audit[(audit.source == "adjoint") & (audit.reference == "direct")]
    found = []
    for (dataset, model), own in known.groupby(["dataset", "model"], sort=False):
        ranked = own.dropna(subset="cosine_median").sort_values("cosine_median")
        if len(ranked):
            found.append(
                f"{model} on {dataset}: adjoint gradients agree best with direct ones at "
                f"{_agreement(ranked.iloc[-1])} and worst at {_agreement(ranked.iloc[0])}."
            )
    return found


def _agreement(row: pd.Series) -> str:
    return (
        f"{tau(row.tolerance)} (median cosine {row.cosine_median:.2f}, "
        f"{percent(row.sign_agreement_median)} of the pixels with the same sign)"
    )


_DETECTORS = {
    "disagreement": "the disagreement of tolerances has an area under the ROC curve of",
    "confidence": "the confidence of the classifier alone has one of",
}
_ATTACKERS = {
    "plain": "attacks that stop at their first success",
    "confident": "attacks that go on",
    "adaptive": "attacks that know the disagreement",
}


def of_detection(detection: pd.DataFrame) -> list[str]:
    """Say how well adversarial examples are detected, and by what.

    Args:
        detection: Result of `audit.detection_table`.

    Returns:
        One sentence for every dataset and model whose adversarial examples were scored.
    """
    found = []
    known = detection.dropna(subset="auc")
    for (dataset, model), own in known.groupby(["dataset", "model"], sort=False):
        parts = []
        for detector, words in _DETECTORS.items():
            scored = own[own.detector == detector]
            areas = [
                f"{_span(scored.auc[scored.attacker == attacker])} against {attacks}"
                for attacker, attacks in _ATTACKERS.items()
                if attacker in set(scored.attacker)
            ]
            if areas:
                parts.append(f"{words} {listed(areas)}")
        found.append(
            f"{model} on {dataset}, each network and tolerance by itself: {'; '.join(parts)}. "
            "0.5 is chance."
        )
    return found


def _span(areas: "pd.Series[float]") -> str:
    ends = dict.fromkeys(f"{area:.2f}" for area in (areas.min(), areas.max()))
    return " to ".join(ends)


def _cautions(attacks: pd.DataFrame, changes: Sequence[RateChange]) -> list[str]:
    found = []
    fell = [change for change in changes if change.direction < 0]
    stronger = [change.direction for change in gradient_changes(attacks)]
    if stronger:
        found.append(
            f"At {tau(attacks.tolerance.max())}, attacks with direct gradients succeed clearly "
            "more often than those with adjoint gradients in "
            f"{among(stronger.count(1), len(stronger), 'comparison')} and clearly less often in "
            f"{stronger.count(-1) or 'none'}, each on the networks of one model."
        )
    if any(change.gradient == "adjoint" for change in fell):
        found.append(
            "Caution: adjoint gradients that are solved at a loose tolerance can be far from the "
            "true gradient. An attack can then fail because its gradients are masked, not because "
            "the model is robust. A lower success rate of such attacks is no evidence of "
            "robustness."
        )
        if "direct" not in set(attacks.gradient):
            found.append("This run has no attack with direct gradients to compare them with.")
    elif fell:
        found.append(
            "Caution: a lower success rate shows that these attacks fail more often. It is no "
            "evidence that other attacks would fail."
        )
    return found
