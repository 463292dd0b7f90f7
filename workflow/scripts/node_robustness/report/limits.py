"""What a reader must know before using any number of a run."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from node_robustness.config.methods import BUILT_IN, METHODS
from node_robustness.config.presets import PRESETS
from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.report.own_models import own_models
from node_robustness.report.paper import EPOCHS
from node_robustness.report.phrases import counted
from node_robustness.report.reservations import reservations
from node_robustness.verdict.verdicts import UNDECIDED
from node_robustness.words import listed, percent


def limits(
    tables: Mapping[str, pd.DataFrame],
    manifest: Mapping[str, Any],
    paper: str | None,
    quoted: Callable[[str], str] = str,
) -> list[str]:
    """Say where the numbers of a run do not measure robustness, and what it was too small for.

    Args:
        tables: ``networks``, ``clean``, ``training``, ``attacks``, ``checks`` and ``verdicts`` of
            the experiment; of those that fill figures, as many as are at hand.
        manifest: Result of `provenance.manifest`. Its ``notes``, if any, say what is to be known of
            tables that another version made and that were converted.
        paper: Dataset of the paper whose results are shown with ours; None for none.
        quoted: Makes text that a user wrote safe in what the sentences are put in.

    Returns:
        Plain sentences, the most important first.
    """
    return [
        *reservations(tables, manifest["config"].get("datasets", {})),
        *own_models(tables["networks"], quoted),
        *_size(tables["clean"]),
        *_training(tables["training"], paper),
        *_missing_attacks(tables["attacks"]),
        *_undecided(tables["verdicts"]),
        *_unmeasured(tables),
        *_machine(manifest),
        *manifest.get("notes", []),
    ]


def _size(clean: pd.DataFrame) -> list[str]:
    networks = [
        f"{counted(int(number), 'network')} {model}"
        for model, number in clean.groupby("model", sort=False).seed.nunique().items()
    ]
    return [f"{int(clean.n.max()):,} test images were attacked, of {listed(networks)}."]


def _training(training: pd.DataFrame, paper: str | None) -> list[str]:
    """A sentence for all models that were trained for as long."""
    theirs = "" if paper is None else f" (the paper: {EPOCHS[paper]})"
    found = []
    for _, own in training.groupby("epochs", sort=False):
        accuracies = [
            f"{model} {listed([percent(value) for value in values])}"
            for model, values in own.groupby("model", sort=False).validation_accuracy
        ]
        epochs = counted(int(own.epochs.iloc[0]), "epoch")
        found.append(
            f"{epochs} of training{theirs}. Accuracy on validation images: {'; '.join(accuracies)}."
        )
    return found


def _missing_attacks(attacks: pd.DataFrame) -> list[str]:
    ran = set(attacks.attack)
    missing = [
        attack
        for attack in PRESETS["standard"]
        if attack not in ran and set(attacks.norm) & set(_norms(attack))
    ]
    short = [attack for attack in missing if f"{attack}_short" in ran]
    absent = [attack for attack in missing if attack not in short]
    parts = [
        *([f"{listed(absent)} did not run"] if absent else []),
        *([f"{listed(short)} ran only in short versions"] if short else []),
    ]
    if not parts:
        return []
    return [
        f"Of the standard attacks {', and '.join(parts)}: an attacker with more time may leave "
        "less."
    ]


def _norms(attack: str) -> tuple[str, ...]:
    """Those that a built-in attack knows."""
    settings = BUILT_IN[attack]
    return METHODS[settings["method"]].model_validate(settings).norms


def _undecided(verdicts: pd.DataFrame) -> list[str]:
    undecided = int((verdicts.verdict == UNDECIDED).sum())
    return [f"{undecided} of {len(verdicts)} settings are undecided."] if undecided else []


def _unmeasured(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    names = [
        entry.unmeasured
        for name, entry in FIGURES.items()
        if entry.unmeasured and not has_rows(name, tables)
    ]
    return [f"Not measured in this run: {'; '.join(names)}."] if names else []


def _machine(manifest: Mapping[str, Any]) -> list[str]:
    if not manifest["device"].startswith("cpu"):
        return []
    return [f"It ran on {manifest['device']} with {manifest['threads']} processors."]
