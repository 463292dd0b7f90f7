"""The answer of a run in a few sentences: what is shown, of which networks, and what is not known.

Computed from the tables of the three claims alone; the room `verdict` has the rules.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from node_robustness.report.phrases import among, counted, setting, tau
from node_robustness.verdict.contrasts import EQUIVALENT, LESS, MORE
from node_robustness.verdict.tolerances import NONE, REAL, REVERSED
from node_robustness.verdict.verdicts import (
    BROKEN,
    HIDES,
    MASKED,
    SURVIVES,
    UNDECIDED,
    UNDER_SEARCHED,
    level_of,
)
from node_robustness.words import listed, percent, points, signed

_VERDICTS = {
    BROKEN: "broken",
    MASKED: "masked gradient",
    UNDER_SEARCHED: "under-searched",
    SURVIVES: "robustness that survives",
    UNDECIDED: "undecided",
}
_DIRECTIONS = {
    MORE: "more robust",
    LESS: "less robust",
    EQUIVALENT: "equally robust",
    UNDECIDED: "undecided",
}
_CLAIMS = {
    REAL: "real",
    MASKED: "masked gradient",
    REVERSED: "reversed (less robust)",
    NONE: "none (a change below 5 points)",
    UNDECIDED: "undecided",
}
_PROCEDURES = {"paper": "the paper's procedure", "strongest": "the strongest attack"}
_BECAUSE = {
    "no_images": "there are no images",
    "no_correct": "no image is classified correctly",
    "no_accuracy": "too few images are classified correctly",
    "no_paper": "the paper's attack did not run",
    "no_corrected": "no attack corrects the gradient of the paper's",
    "mixed": "masked gradient and weak search both matter",
    "attacks": "the attacks are too weak to show that robustness survives",
    "saturation": "the last attacks still broke images",
    "checks": "a check failed, was not measured or rests on too few images",
    "images": "there are too few images",
    "networks": "the networks differ",
    "margin": "the shares lie on a margin of the rules",
}


def answers(verdicts: pd.DataFrame, models: pd.DataFrame, tolerances: pd.DataFrame) -> list[str]:
    """Say what the run shows.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        models: Result of `models.model_table`.
        tolerances: Result of `tolerances.tolerance_table`.

    Returns:
        Plain sentences with numbers, what stands in the way of every answer first.
    """
    if verdicts.empty:
        return ["No attack ran: nothing is known of the robustness of these models."]
    return [
        *of_obstacles(verdicts),
        *of_models(models),
        *of_tolerances(tolerances),
        *of_robustness(verdicts),
        *undecided(verdicts),
    ]


def of_obstacles(verdicts: pd.DataFrame) -> list[str]:
    """Why nothing can be said of a model, wherever all of its settings are undecided or broken."""
    found = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        if (own.verdict == UNDECIDED).all():
            why = listed([_BECAUSE[reason] for reason in _BECAUSE if reason in set(own.because)])
            found.append(f"Nothing is said of the robustness of {model} on {dataset}: {why}.")
        elif (own.strongest == 0).all():
            found.append(
                f"The known attacks break every image of {model} on {dataset} in every setting: no "
                "robustness is left to compare."
            )
    return found


def of_robustness(verdicts: pd.DataFrame) -> list[str]:
    """The verdicts, for every dataset and model, and the largest gap of each cause."""
    found = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        counts = _counts(own.verdict, _VERDICTS)
        sentence = (
            f"{model} on {dataset} ({level_of(int(own.networks.max()))}): "
            f"{listed(counts)} of {counted(len(own), 'setting')}."
        )
        hidden = int(((own.verdict == BROKEN) & (own.procedure == HIDES)).sum())
        if hidden:
            sentence += f" The paper's procedure hides {hidden} of the broken ones."
        wide = own[own.masked.notna() & (own.procedure == HIDES)]
        if len(wide):
            worst = wide.sort_values("gap", kind="stable").iloc[-1]
            sentence += (
                f" The largest gap is at {setting(worst)}: {percent(worst.paper)} under the "
                f"paper's procedure, {percent(worst.strongest)} under the strongest attack; "
                f"{points(worst.masked)} are masked gradient, {points(worst.weak)} weak search."
            )
        found.append(sentence)
    return found


def of_tolerances(tolerances: pd.DataFrame) -> list[str]:
    """What becomes of the claim that a larger tolerance protects, for every dataset and model."""
    found = []
    for (dataset, model), own in tolerances.groupby(["dataset", "model"], sort=False):
        sentence = (
            f"What tolerances above {tau(own.reference.iloc[0])} gain {model} on {dataset} "
            f"({own.level.iloc[0]}): {listed(_counts(own.claim, _CLAIMS))} of "
            f"{counted(len(own), 'setting')}."
        )
        shown = own[own.paper.notna()]
        if len(shown):
            largest = shown.sort_values("paper", kind="stable").iloc[-1]
            sentence += (
                f" The paper's procedure shows the largest gain at {setting(largest)}: "
                f"{signed(largest.paper)}; there the strongest attack shows "
                f"{signed(largest.strongest)}."
            )
        found.append(sentence)
    return found


def of_models(models: pd.DataFrame) -> list[str]:
    """How models with an ODE compare with those without: a sentence for each procedure."""
    found = []
    by = ["dataset", "model", "reference_model"]
    for (dataset, model, reference), own in models.groupby(by, sort=False):
        for procedure, words in _PROCEDURES.items():
            claims = own[f"{procedure}_claim"]
            if (claims == "").all():
                continue
            sentence = (
                f"Under {words}, {model} against {reference} on {dataset} "
                f"({own.level.iloc[0]}): {listed(_counts(claims, _DIRECTIONS))} of "
                f"{counted(len(own), 'setting')}."
            )
            far = own.sort_values(procedure, key=abs, kind="stable").iloc[-1]
            sentence += (
                f" The largest difference is at {setting(far)}: "
                f"{percent(far[f'{procedure}_robust'])} against "
                f"{percent(far[f'{procedure}_reference'])}."
            )
            found.append(sentence)
        turned = own[own.reversed]
        if len(turned):
            worst = turned.sort_values("strongest", key=abs, kind="stable").iloc[-1]
            found.append(
                f"The paper's procedure reverses the ranking of {model} and {reference} in "
                f"{among(len(turned), len(own))}, most of all at {setting(worst)}: "
                f"{signed(worst.paper)} under it, {signed(worst.strongest)} under the strongest "
                "attack."
            )
    return found


def undecided(verdicts: pd.DataFrame) -> list[str]:
    """Why settings are undecided, and how many images would decide those that lack images."""
    own = verdicts[verdicts.verdict == UNDECIDED]
    if own.empty:
        return []
    because = own.because.value_counts(sort=False)
    reasons = [f"{_BECAUSE[str(reason)]} ({count})" for reason, count in because.items()]
    sentence = (
        f"{counted(len(own), 'setting')} {'is' if len(own) == 1 else 'are'} undecided: "
        f"{'; '.join(reasons)}."
    )
    needed = own.needed.dropna()
    if len(needed):
        sentence += (
            f" {int(needed.max()):,} images would decide all that lack images, if the shares stay "
            "as they are."
        )
    if own.because.isin(["attacks", "saturation", "checks"]).any():
        sentence += (
            " What each setting lacks is in its reason; the presets quick and standard have all "
            "attacks that are needed (docs/attacks.md)."
        )
    return [sentence]


def _counts(found: Sequence[str] | pd.Series, words: Mapping[str, str]) -> list[str]:
    """In how many settings each verdict was given, for those that were."""
    counts = pd.Series(found).value_counts()
    return [f"{word} in {counts[name]}" for name, word in words.items() if name in counts]
