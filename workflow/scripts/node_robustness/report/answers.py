"""The answer of a run in a few sentences: what is real, what is masked, what is not known.

Computed from the tables of verdicts and protocols alone; `verdicts` has the rules.
"""

import pandas as pd

from node_robustness.numbers import label
from node_robustness.verdict.verdicts import ABSENT, HOLDS, MARGIN, MASKED, UNDECIDED
from node_robustness.words import listed, percent, points, signed

_NORMS = {"linf": "L∞", "l2": "L2", "l2_rms": "root-mean-square L2"}
_BECAUSE = {
    "no_correct": "no image is classified correctly",
    "no_paper": "the paper's attack did not run",
    "no_robustness": "the strongest attack leaves too little for robustness to hold",
    "weak_attack": "the paper's attack is weak, though its gradients are sound",
    "attack_suite": "the attacks that ran are too weak to show that robustness holds",
    "checks": "a check failed or was not measured",
    "images": "there are too few images",
    "seeds": "the seeds are too few for how much they differ",
}


def answers(verdicts: pd.DataFrame, gains: pd.DataFrame, comparisons: pd.DataFrame) -> list[str]:
    """Say what is real and what is masked.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        gains: Result of `verdicts.gain_table`.
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
        *doubts(verdicts),
    ]


def of_robustness(verdicts: pd.DataFrame) -> list[str]:
    """What holds and what is masked: one sentence for every dataset and model."""
    found = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        counts = own.verdict.value_counts()
        parts = [
            f"{words} in {counts[verdict]}"
            for verdict, words in (
                (MASKED, "is masked gradients"),
                (HOLDS, "holds"),
                (UNDECIDED, "is undecided"),
            )
            if counts.get(verdict, 0)
        ]
        sentence = (
            f"{model} on {dataset}: the robustness that the paper's protocol shows "
            f"{listed(parts)} of {_settings(len(own))}"
        )
        masked = own[own.verdict == MASKED]
        if len(masked):
            worst = masked.sort_values("gap").iloc[-1]
            sentence += (
                f"; at {_where(worst)} that protocol leaves {percent(worst.paper)} of the images, "
                f"the strongest attack {percent(worst.strongest)}"
            )
        found.append(f"{sentence}.")
    return found


def by_network(protocols: pd.DataFrame) -> list[str]:
    """Where there are several seeds, what each network shows: one sentence a dataset and model.

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
            f"{model} on {dataset}, network by network: the gap between the protocols is clearly"
        )
        if not clear["sum"].any():
            found.append(f"{start} above {points(MARGIN)} in none of {_settings(len(own))}.")
            continue
        counts = [f"{row['sum']} of {row['size']} (seed {seed})" for seed, row in clear.iterrows()]
        largest = own.sort_values("gap", kind="stable").iloc[-1]
        found.append(
            f"{start} above {points(MARGIN)} in {listed(counts)} settings; the largest, of seed "
            f"{largest.seed} at {_where(largest)}: {percent(largest.paper)} under the paper's "
            f"protocol, {percent(largest.strongest)} under the strongest attack."
        )
    return found


def of_tolerances(gains: pd.DataFrame) -> list[str]:
    """What becomes of the claim that a larger tolerance protects."""
    found = []
    for (dataset, model), own in gains.groupby(["dataset", "model"], sort=False):
        shown = own[own.verdict != ABSENT]
        reference = f"τ = {label(float(own.reference.iloc[0]))}"
        start = (
            f"Tolerances above {reference} seem to protect {model} "
            f"on {dataset} in {len(shown)} of {_settings(len(own))} of the paper's protocol"
        )
        if shown.empty:
            found.append(
                f"The paper's protocol shows no clear gain of {model} on {dataset} from tolerances "
                f"above {reference} in any of {_settings(len(own))}."
            )
            continue
        counts = shown.verdict.value_counts()
        parts = [
            f"{words} in {counts[verdict]}"
            for verdict, words in (
                (MASKED, "masked gradients"),
                (HOLDS, "real"),
                (UNDECIDED, "undecided"),
            )
            if counts.get(verdict, 0)
        ]
        largest = shown.sort_values("paper").iloc[-1]
        found.append(
            f"{start}; this gain is {listed(parts)}. The largest, at {_where(largest)}: "
            f"{signed(largest.paper)} under the paper's protocol, {signed(largest.strongest)} "
            "under the strongest attack."
        )
    return found


def of_models(comparisons: pd.DataFrame) -> list[str]:
    """How models with an ODE compare with those without, under either protocol."""
    found = []
    between = comparisons[comparisons.kind == "model"]
    by = ["dataset", "model", "reference_model"]
    for (dataset, model, reference), own in between.groupby(by, sort=False):
        told = []
        for protocol, words in (
            ("paper", "under the paper's protocol"),
            ("strongest", "under the strongest attack"),
        ):
            directions = own.direction[own.protocol == protocol].tolist()
            if directions:
                told.append(
                    f"{words} it is clearly more robust in {directions.count(1)} of "
                    f"{_settings(len(directions))}, clearly less in {directions.count(-1)}"
                )
        strongest = own[own.protocol == "strongest"]
        if len(strongest):
            far = strongest.sort_values("difference", key=abs).iloc[-1]
            told.append(
                f"there they are farthest apart at {_where(far)}, {percent(far.robust)} against "
                f"{percent(far.reference)}"
            )
        found.append(f"{model} against {reference} on {dataset}: {'; '.join(told)}.")
    return found


def doubts(verdicts: pd.DataFrame) -> list[str]:
    """Why what is undecided is so, and for the commonest reason what would mend it."""
    because = verdicts.because[verdicts.verdict == UNDECIDED].value_counts(sort=False)
    if because.empty:
        return []
    reasons = [f"{_BECAUSE[str(reason)]} ({count})" for reason, count in because.items()]
    sentences = [f"Undecided because {'; '.join(reasons)}."]
    weak = verdicts[verdicts.because == "attack_suite"]
    if len(weak):
        sentences.append(
            "Under all attacks of the preset standard, with the settings that they have there, "
            "robustness can hold (attacks: [standard])."
        )
    return [" ".join(sentences)]


def _where(row: pd.Series) -> str:
    tau = "" if pd.isna(row.tolerance) else f"τ = {label(float(row.tolerance))}, "
    return f"{tau}{_NORMS[row.norm]} ε = {label(float(row.epsilon))}"


def _settings(n: int) -> str:
    return f"{n:,} setting" + ("s" if n != 1 else "")
