"""Warnings before the numbers of a run: where they do not measure robustness.

A robust accuracy of 0 % means nothing where no image is classified correctly without an attack, and
one of 100 % means little where no attack found anything.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from node_robustness.numbers import label
from node_robustness.report.overviews import BECAUSE
from node_robustness.report.phrases import counted, sized
from node_robustness.tables.frame import OWN
from node_robustness.verdict.checks import SOLVER_SUCCEEDS
from node_robustness.verdict.verdicts import UNDECIDED
from node_robustness.words import listed, percent

# Of the data sets that need no list of their classes.
_BUILT_IN_CLASSES = 10


def reservations(
    tables: Mapping[str, pd.DataFrame], datasets: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Say where the numbers of a run do not measure robustness.

    Args:
        tables: ``clean``, ``attacks`` and ``checks`` of the experiment.
        datasets: The settings of the data sets by name, as in the manifest.

    Returns:
        For each model and reason one warning, which names the tolerances; none where every model
        learned something and some attack found something.
    """
    clean, attacks, checks = (tables[name] for name in ("clean", "attacks", "checks"))
    found = []
    for (dataset, model), own in clean.groupby(["dataset", "model"], sort=False):
        settings = datasets.get(str(dataset))
        hit = attacks[(attacks.dataset == dataset) & (attacks.model == model)]
        tried = checks[(checks.dataset == dataset) & (checks.model == model)]
        found += [
            *_none_correct(f"{model} on {dataset}", own, tried),
            *_guesses(f"{model} on {dataset}", own, settings),
            *_no_attack(f"{model} on {dataset}", hit),
            *_nothing_attacked(f"{model} on {dataset}", hit),
            *_nothing_found(f"{model} on {dataset}", hit),
        ]
    return found


def obstacles(verdicts: pd.DataFrame) -> list[str]:
    """Say of which models nothing is known, and why.

    Args:
        verdicts: Result of `verdicts.verdict_table`.

    Returns:
        A sentence for every dataset and model of which all settings are undecided, or in which
        nothing is left in any.
    """
    if verdicts.empty:
        return ["No attack ran: nothing is known of the robustness of these models."]
    found = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        if (own.verdict == UNDECIDED).all():
            why = listed([BECAUSE[reason] for reason in BECAUSE if reason in set(own.because)])
            found.append(f"Nothing is said of the robustness of {model} on {dataset}: {why}.")
        elif (own.strongest == 0).all():
            found.append(
                f"The known attacks break every image of {model} on {dataset} in every setting: no "
                "robustness is left to compare."
            )
    return found


def _none_correct(name: str, clean: pd.DataFrame, checks: pd.DataFrame) -> list[str]:
    none = clean[clean.correct == 0]
    if none.empty:
        return []
    failed = checks[(checks.check == SOLVER_SUCCEEDS) & (checks.value == 1)]
    keys = ["seed", "tolerance"]
    dead = none.merge(failed[keys], on=keys) if len(failed) else none.iloc[:0]
    sentence = (
        f"{name} classifies no image correctly{_where(none, clean)}: nothing was attacked, and a "
        "robust accuracy of 0 % does not measure robustness."
    )
    if len(dead):
        sentence += (
            f" The solver fails on every clean image{_where(dead, none) or ' there'}; "
            "`status` in clean.h5 says how."
        )
    return [sentence]


def _guesses(name: str, clean: pd.DataFrame, settings: Mapping[str, Any] | None) -> list[str]:
    if settings is None:
        return []
    classes = len(settings.get("class_names") or ()) or _BUILT_IN_CLASSES
    some = clean[clean.correct > 0]
    poor = some[some.accuracy_low <= 1 / classes]
    if poor.empty:
        return []
    return [
        f"{name} is not clearly better than guessing one of {classes} classes"
        f"{_where(poor, clean)}: its accuracy is at most {percent(poor.accuracy.max())} on "
        f"{poor.n.max():,} images. "
        "Attacks on guesses do not measure robustness."
    ]


def _no_attack(name: str, attacks: pd.DataFrame) -> list[str]:
    if len(attacks):
        return []
    return [
        f"No attack ran on {name}: none of the experiment's attacks supports such a model or its "
        "norms. Nothing is known of its robustness."
    ]


def _nothing_attacked(name: str, attacks: pd.DataFrame) -> list[str]:
    """Attacks to which cheaper ones had left no image, though there were correct ones."""
    empty = attacks[(attacks.attacked == 0) & (attacks.skipped > 0)]
    if empty.empty:
        return []
    settings = empty[["seed", "tau", "norm", "epsilon"]].drop_duplicates()
    pairs = zip(settings.norm, settings.epsilon, strict=True)
    sizes = listed([sized(*pair) for pair in sorted(set(pairs))])
    return [
        f"{listed(list(dict.fromkeys(empty.attack)))} had no image of {name} left to attack"
        f"{_where(empty, attacks)} in {counted(len(settings), 'setting')} ({sizes}): cheaper "
        "attacks had broken all of them."
    ]


def _nothing_found(name: str, attacks: pd.DataFrame) -> list[str]:
    by = ["seed", "tolerance", "tau"]
    sums = attacks.groupby(by, sort=False, dropna=False)[["attacked", "successes"]].sum()
    none = sums[(sums.attacked > 0) & (sums.successes == 0)].reset_index()
    if none.empty:
        return []
    return [
        f"No attack found an adversarial example of {name}{_where(none, attacks)}. Only the checks "
        "show whether the model or the attacks are the reason."
    ]


def _where(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    """The tolerances and seeds of the rows, as far as they are not all there are."""
    parts = []
    if every.tau.nunique() > 1:
        numbers = [label(float(tau)) for tau in sorted(set(rows.tolerance.dropna()))]
        places = [f"at τ = {listed(numbers)}"] if numbers else []
        places += ["at own settings"] if OWN in set(rows.tau) else []
        parts.append(f" {listed(places)}" if places else "")
    seeds = sorted(set(rows.seed))
    if len(seeds) < every.seed.nunique():
        parts.append(f" (seed {listed(list(map(str, seeds)))})")
    return "".join(parts)
