"""The answer of a run in a few sentences: what is real, what is masked, what is not known.

Computed from the tables of verdicts and protocols alone; `verdicts` has the rules.
"""

from collections.abc import Mapping

import pandas as pd

from node_robustness.report.phrases import among, counted, setting, tau
from node_robustness.verdict.verdicts import ABSENT, HOLDS, MARGIN, MASKED, UNDECIDED
from node_robustness.words import listed, percent, points, signed

_VERDICTS = {HOLDS: "holds", MASKED: "is masked gradients", UNDECIDED: "is undecided"}
_GAINS = {HOLDS: "real", MASKED: "masked gradients", UNDECIDED: "undecided"}
_PROTOCOLS = {"paper": "the paper's protocol", "strongest": "the strongest attack"}
_BECAUSE = {
    "no_correct": "no image is classified correctly",
    "no_paper": "the paper's attack did not run",
    "no_robustness": "the strongest attack leaves too little robust accuracy",
    "weak_attack": "the paper's attack is weak, although its gradients are accurate",
    "attack_suite": "the attacks that ran are too weak to show that robustness holds",
    "checks": "a check failed or was not measured",
    "images": "there are too few images",
    "seeds": "there are too few seeds for how much they differ",
}


def answers(verdicts: pd.DataFrame, gains: pd.DataFrame, comparisons: pd.DataFrame) -> list[str]:
    """Say what is real and what is masked.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        gains: Result of `gains.gain_table`.
        comparisons: Result of `comparisons.comparison_table`.

    Returns:
        Plain sentences with numbers.
    """
    if verdicts.empty:
        return ["No attack ran: nothing is known of the robustness of these models."]
    return [
        *of_robustness(verdicts),
        *of_tolerances(gains),
        *of_models(comparisons),
        *undecided(verdicts),
    ]


def of_robustness(verdicts: pd.DataFrame) -> list[str]:
    """What holds and what is masked, for every dataset and model."""
    found = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        sentence = (
            f"The robustness of {model} on {dataset} under the paper's protocol "
            f"{listed(_counts(own.verdict, _VERDICTS))} of "
            f"{counted(len(own), 'setting')}."
        )
        masked = own[own.verdict == MASKED]
        if len(masked):
            worst = masked.sort_values("gap").iloc[-1]
            sentence += (
                f" The largest masked gap is at {setting(worst)}: the paper's protocol leaves "
                f"{percent(worst.paper)} of the images robust, the strongest attack "
                f"{percent(worst.strongest)}."
            )
        found.append(sentence)
    return found


def by_network(protocols: pd.DataFrame) -> list[str]:
    """What each network shows, for every dataset and model with several seeds.

    Args:
        protocols: The table of both protocols, one row a seed, tolerance, norm and epsilon.

    Returns:
        In how many settings the 95 % interval of the gap lies above `verdicts.MARGIN`, for every
        seed, unadjusted for their number, and the largest gap, if there are any.
    """
    found = []
    for (dataset, model), own in protocols.groupby(["dataset", "model"], sort=False):
        if own.seed.nunique() == 1:
            continue
        clear = (own.gap_low > MARGIN).groupby(own.seed).agg(["sum", "size"])
        start = (
            f"The gap between the protocols of single networks {model} on {dataset} is clearly "
            f"above {points(MARGIN)} in"
        )
        if not clear["sum"].any():
            found.append(f"{start} {among(0, len(own))}.")
            continue
        counts = [f"{row['sum']} of {row['size']} (seed {seed})" for seed, row in clear.iterrows()]
        largest = own.sort_values("gap", kind="stable").iloc[-1]
        found.append(
            f"{start} {listed(counts)} settings. The largest gap is that of seed {largest.seed} at "
            f"{setting(largest)}: {percent(largest.paper)} under the paper's protocol, "
            f"{percent(largest.strongest)} under the strongest attack."
        )
    return found


def of_tolerances(gains: pd.DataFrame) -> list[str]:
    """What becomes of the claim that a larger tolerance protects, for every dataset and model."""
    found = []
    for (dataset, model), own in gains.groupby(["dataset", "model"], sort=False):
        shown = own[own.verdict != ABSENT]
        sentence = (
            f"Under the paper's protocol, tolerances above {tau(own.reference.iloc[0])} clearly "
            f"increase the robust accuracy of {model} on {dataset} in "
            f"{among(len(shown), len(own))}."
        )
        if len(shown):
            largest = shown.sort_values("paper").iloc[-1]
            sentence += (
                f" The gain is {listed(_counts(shown.verdict, _GAINS))}. The largest is at "
                f"{setting(largest)}: {signed(largest.paper)} under the paper's protocol, "
                f"{signed(largest.strongest)} under the strongest attack."
            )
        found.append(sentence)
    return found


def of_models(comparisons: pd.DataFrame) -> list[str]:
    """How models with an ODE compare with those without: a sentence for each protocol."""
    found = []
    between = comparisons[comparisons.kind == "model"]
    by = ["dataset", "model", "reference_model", "protocol"]
    for (dataset, model, reference, protocol), own in between.groupby(by, sort=False):
        more, less = int((own.direction > 0).sum()), int((own.direction < 0).sum())
        than = (
            f"is clearly more robust than {reference} in {among(more, len(own))} and clearly less "
            f"robust in {less or 'none'}"
            if more or less
            else f"is neither clearly more nor clearly less robust than {reference} in any of "
            f"{counted(len(own), 'setting')}"
        )
        sentence = f"Under {_PROTOCOLS[str(protocol)]}, {model} on {dataset} {than}."
        if protocol == "strongest":
            far = own.sort_values("difference", key=abs).iloc[-1]
            sentence += (
                f" The largest difference is at {setting(far)}: {percent(far.robust)} against "
                f"{percent(far.reference)}."
            )
        found.append(sentence)
    return found


def undecided(verdicts: pd.DataFrame) -> list[str]:
    """Why settings are undecided, and for the commonest reason what would decide them."""
    because = verdicts.because[verdicts.verdict == UNDECIDED].value_counts(sort=False)
    if because.empty:
        return []
    total = int(because.sum())
    reasons = [f"{_BECAUSE[str(reason)]} ({count})" for reason, count in because.items()]
    sentence = (
        f"{counted(total, 'setting')} {'is' if total == 1 else 'are'} undecided: "
        f"{'; '.join(reasons)}."
    )
    if (verdicts.because == "attack_suite").any():
        sentence += (
            " Robustness can hold under all attacks of the preset standard with their settings "
            "there (attacks: [standard])."
        )
    return [sentence]


def _counts(verdicts: pd.Series, words: Mapping[str, str]) -> list[str]:
    """In how many settings each verdict was given, for those that were."""
    counts = verdicts.value_counts()
    return [f"{word} in {counts[verdict]}" for verdict, word in words.items() if verdict in counts]
