"""What a run found, in numbers and plain sentences computed from its tables.

Nothing here goes beyond the tables: a difference is called one only where its 95 % interval
leaves out zero, and low success of an attack is never called robustness.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from node_robustness.numbers import label
from node_robustness.statistics.intervals import Estimate, across_seeds, rate_change
from node_robustness.words import percent

_CONDITION = ["dataset", "attack", "gradient", "norm", "epsilon"]


@dataclass(frozen=True)
class Comparison:
    """The success rates of one attack in two places, with the same seeds in both."""

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
        return (self.change.low > 0) - (self.change.high < 0)


def extremes(attacks: pd.DataFrame) -> tuple[float, float] | None:
    """Return the smallest and the largest tolerance, or None if there are not two."""
    known = sorted(set(attacks.tolerance.dropna()))
    return (float(known[0]), float(known[-1])) if len(known) > 1 else None


def _on_all(attacks: pd.DataFrame) -> pd.DataFrame:
    """The attacks that left out no image; the rates of others are those of the hard images."""
    return attacks[~attacks.attack.isin(attacks.attack[attacks.skipped > 0])]


def tolerance_changes(attacks: pd.DataFrame) -> list[Comparison]:
    """Compare the success at the largest tolerance with that at the smallest.

    Args:
        attacks: Result of `tables.attack_table`.

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


def native_changes(attacks: pd.DataFrame) -> list[tuple[str, Comparison]]:
    """Compare models with an ODE, at the smallest tolerance, with models without.

    Args:
        attacks: Result of `tables.attack_table`.

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
                comparison = _compare((*key, model), before, after)
                if comparison:
                    found.append((str(reference), comparison))
    return found


def gradient_changes(attacks: pd.DataFrame) -> list[Comparison]:
    """Compare attacks with direct gradients, at the largest tolerance, with adjoint ones.

    Args:
        attacks: Result of `tables.attack_table`.

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


def _compare(key: tuple[Any, ...], before: pd.DataFrame, after: pd.DataFrame) -> Comparison | None:
    """Compare the rows of two places, one row a seed; None where a rate is missing."""
    seeds = sorted(set(before.seed) & set(after.seed))
    sides = [side.set_index("seed").loc[seeds] for side in (before, after)]
    counts = [list(zip(s.successes.tolist(), s.attacked.tolist(), strict=True)) for s in sides]
    change = rate_change(*counts)
    if change is None:
        return None
    rates = [_rate(side.reset_index()) for side in sides]
    return Comparison(key[:-1], str(key[-1]), rates[0], rates[1], change)


def _rate(rows: pd.DataFrame) -> Estimate:
    """The success rate over the seeds of one place."""
    summary = across_seeds(rows, ["attack"], "success_rate", "success").iloc[0]
    return Estimate(float(summary.value), float(summary.low), float(summary.high))


def sentences(clean: pd.DataFrame, attacks: pd.DataFrame) -> list[str]:
    """Say what a run found.

    Args:
        clean: Result of `tables.clean_table`.
        attacks: Result of `tables.attack_table`.

    Returns:
        Plain sentences, cautions included.
    """
    found = [_on_clean(clean[clean.dataset == dataset]) for dataset in dict.fromkeys(clean.dataset)]
    natively = native_changes(attacks)
    for reference in dict.fromkeys(reference for reference, _ in natively):
        own = [comparison for other, comparison in natively if other == reference]
        found += _tallies(
            own,
            f"At the smallest tolerance, τ = {label(float(attacks.tolerance.min()))}, and compared "
            f"with {reference}, attacks "
            "{gradients} succeeded on {model} {tally}.",
            ("clearly less often", "clearly more often", "without a clear difference"),
        )
    changes = tolerance_changes(attacks)
    ends = extremes(attacks)
    if ends:
        found += _tallies(
            changes,
            f"From τ = {label(ends[0])} to {label(ends[1])}, the success rate of attacks "
            "{gradients} on {model} {tally}.",
            ("fell clearly", "rose clearly", "did not change clearly"),
        )
    return found + _cautions(attacks, changes)


def _on_clean(clean: pd.DataFrame) -> str:
    by = ["model", "tolerance"]
    accuracy = across_seeds(clean, by, "accuracy", "accuracy")
    parts = []
    for model, group in accuracy.groupby("model", sort=False):
        values = [percent(value) for value in group.value]
        parts.append(
            f"{model} {values[0]}"
            if len(group) == 1
            else f"{model} {values[0]} at τ = {label(float(group.tolerance.iloc[0]))} and "
            f"{values[-1]} at τ = {label(float(group.tolerance.iloc[-1]))}"
        )
    images = _counted(int(clean.n.max()), "clean test image")
    return f"Accuracy on {images} of {clean.dataset.iloc[0]}: {'; '.join(parts)}."


def _tallies(
    comparisons: Sequence[Comparison], pattern: str, words: tuple[str, str, str]
) -> list[str]:
    """One sentence for each kind of gradient and model: how often which direction."""
    groups: dict[tuple[str, str], list[int]] = {}
    for comparison in comparisons:
        key = (comparison.gradient, comparison.model)
        groups.setdefault(key, []).append(comparison.direction)
    found = []
    for (gradient, model), directions in groups.items():
        counts = [directions.count(-1), directions.count(1), directions.count(0)]
        tally = " and ".join(f"{word} in {n}" for n, word in zip(counts, words, strict=True) if n)
        settings = _counted(len(directions), "setting")
        # How tables and files call that an attack uses none.
        without = gradient in ("", "none")
        gradients = "without gradients" if without else f"with {gradient} gradients"
        found.append(
            pattern.format(gradients=gradients, model=model, tally=f"{tally} of {settings}")
        )
    return found


def of_gradients(audit: pd.DataFrame) -> list[str]:
    """Say where the gradients of the paper's attack point as those of the solver's own steps.

    Args:
        audit: Result of `audit_tables.audit_table`.

    Returns:
        One sentence for every dataset and model with an ODE that was audited.
    """
    known = audit[(audit.source == "adjoint") & (audit.reference == "direct")]
    found = []
    for (dataset, model), own in known.groupby(["dataset", "model"], sort=False):
        ranked = own.dropna(subset="cosine_median").sort_values("cosine_median")
        if len(ranked):
            found.append(
                f"{model} on {dataset}: adjoint gradients are closest to those through the "
                f"solver's own steps at {_closeness(ranked.iloc[-1])} and farthest from them at "
                f"{_closeness(ranked.iloc[0])}."
            )
    return found


def _closeness(row: pd.Series) -> str:
    return (
        f"τ = {label(float(row.tolerance))} (median cosine {row.cosine_median:.2f}, "
        f"{percent(row.sign_agreement_median)} of the pixels of the same sign)"
    )


def _cautions(attacks: pd.DataFrame, changes: Sequence[Comparison]) -> list[str]:
    found = []
    fell = [comparison for comparison in changes if comparison.direction < 0]
    stronger = [comparison.direction for comparison in gradient_changes(attacks)]
    if stronger:
        found.append(
            f"At τ = {label(float(attacks.tolerance.max()))}, attacks with direct gradients "
            "succeeded clearly more often than those with adjoint gradients in "
            f"{stronger.count(1)} of {_counted(len(stronger), 'comparison')}, clearly less often "
            f"in {stronger.count(-1)}."
        )
    if any(comparison.gradient == "adjoint" for comparison in fell):
        found.append(
            "Caution: adjoint gradients that are solved at the same loose tolerance can point far "
            "from the true gradient. An attack then fails because its gradients are masked, not "
            "because the model is harder to mislead; a lower success rate of these attacks is not "
            "yet evidence of robustness."
        )
        if "direct" not in set(attacks.gradient):
            found.append("This run has no attack with direct gradients to compare them with.")
    elif fell:
        found.append(
            "Caution: a lower success rate shows that these attacks fail more often, not that no "
            "attack would succeed; it is not yet evidence of robustness."
        )
    return found


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("s" if n != 1 else "")
