"""What the trajectories of hidden states show, in short sentences computed from their tables.

What holds for one setting stands in the tables. As in `findings`, a difference is called clear only
where its 95 % interval leaves out its absence.
"""

import pandas as pd

from node_robustness.report.phrases import among, attack_setting, counted
from node_robustness.tables.frame import CELL, tau_words, without_tolerance
from node_robustness.tables.trajectory_summary import SCORES
from node_robustness.verdict.dynamics import (
    BEFORE,
    BOTH,
    NECESSARY,
    NEITHER,
    PINPOINTED,
    SPREAD,
    SUFFICIENT,
)
from node_robustness.verdict.verdicts import UNDECIDED
from node_robustness.words import listed, percent

# A solve of fewer accepted steps is mostly interpolation.
_FEW_STEPS = 5
_NAMED = 3
_DETECTORS = {"nfe": "more evaluations", "first_step": "a shorter first step"}
_CLAIMS = {
    BEFORE: "h(0), which enters the body, has most of the loss of margin in",
    PINPOINTED: "one window of at most a third of the parts has most of it in",
    SPREAD: "neither h(0) nor such a window has half of it in",
    UNDECIDED: "the data do not decide in",
}
_PATCHED = {
    BOTH: "necessary and sufficient",
    NECESSARY: "necessary and not shown to be sufficient",
    SUFFICIENT: "sufficient and not shown to be necessary",
    NEITHER: "neither necessary nor sufficient",
    UNDECIDED: "not shown to be any of these",
}


def sentences(
    summary: pd.DataFrame,
    trajectories: pd.DataFrame,
    probes: pd.DataFrame,
    dynamics: pd.DataFrame,
) -> list[str]:
    """Say where the margin is lost, what patches show, and what the paths do and do not tell.

    Args:
        summary: Result of `trajectory_summary.summary_table`.
        trajectories: Result of `trajectories.trajectory_table`.
        probes: Result of `trajectories.probe_table`.
        dynamics: Result of `dynamics.dynamics_table`.

    Returns:
        Plain sentences with numbers and with the limits of what was measured; none if nothing was
        followed.
    """
    if trajectories.empty:
        return []
    success = summary[(summary.group == "success") & (summary.n > 0)]
    found = [*claims(dynamics), *_empty(trajectories)]
    if success.empty:
        return found
    return [
        *found,
        *_growth(success),
        *_detected(success),
        "Distances alone do not say where a decision is lost: where states differ by little, the "
        "adjoint times the difference is the same at every t.",
        "The head was trained on states at t = 1 alone: what it reads earlier is not a decision of "
        f"the network. {_readers(probes)}",
        *_short(summary[(summary.group == "noise") & (summary.accepted < _FEW_STEPS)]),
    ]


def claims(dynamics: pd.DataFrame) -> list[str]:
    """Say which part of the dynamics is to blame, over all settings of a dataset.

    Args:
        dynamics: Result of `dynamics.dynamics_table`.
    """
    return [
        sentence
        for dataset, own in dynamics.groupby("dataset", sort=False)
        for sentence in (*_shares(str(dataset), own), *_patches(str(dataset), own))
    ]


def _shares(dataset: str, own: pd.DataFrame) -> list[str]:
    counts = own.claim.value_counts()
    found = [f"{words} {counts[claim]}" for claim, words in _CLAIMS.items() if claim in counts]
    said = [f"{dataset}, of {counted(len(own), 'setting')}: {listed(found)}."]
    compared = own[own.particular.notna()]
    if len(compared):
        more = int((compared.particular == 1).sum())
        said.append(
            f"{dataset}: that part loses clearly more under the attack than under random noise and "
            f"under the difference of another image in {among(more, len(compared))}."
        )
    return said


def _patches(dataset: str, own: pd.DataFrame) -> list[str]:
    tested = own[own.repaired.notna()]
    if tested.empty:
        return []
    counts = tested.patch.value_counts()
    found = [f"{words} in {counts[name]}" for name, words in _PATCHED.items() if name in counts]
    special = int((tested.special == 1).sum())
    return [
        f"{dataset}, of {counted(len(tested), 'setting')}: the window whose repair restores most "
        f"is {listed(found)}.",
        f"{dataset}: its repair restores clearly more than that of other windows of its length in "
        f"{among(special, len(tested))}.",
    ]


def _growth(success: pd.DataFrame) -> list[str]:
    known = success.dropna(subset="over_noise")
    if known.empty:
        return []
    more, less = int((known.over_noise_low > 1).sum()), int((known.over_noise_high < 1).sum())
    return [
        "Adversarial perturbations grow clearly more along t than random noise of the same size "
        f"in {among(more, len(known))}, and clearly less in {less or 'none'}."
    ]


def _detected(success: pd.DataFrame) -> list[str]:
    found = []
    for score in SCORES:
        known = success.dropna(subset=f"{score}_auc")
        if len(known):
            above = int((known[f"{score}_auc_low"] > 0.5).sum())
            found.append(
                f"By {_DETECTORS[score]}, adversarial examples are detected better than chance in "
                f"{among(above, len(known))}."
            )
    return found


def _empty(trajectories: pd.DataFrame) -> list[str]:
    """The followed settings without an adversarial example."""
    found = []
    cells = trajectories[trajectories.group == "success"].drop_duplicates(list(CELL))
    empty = cells[cells.n == 0]
    if len(empty):
        named = [
            f"{row.model} at {attack_setting(row)}" for _, row in empty.head(_NAMED).iterrows()
        ]
        if len(empty) > _NAMED:
            named.append(f"and {len(empty) - _NAMED} more")
        found.append(
            f"No adversarial example was found in {len(empty)} of {len(cells):,} followed "
            f"settings, which these sentences leave out: {'; '.join(named)}."
        )
    return found


def _short(few: pd.DataFrame) -> list[str]:
    """What to know of solves of few steps: those at each tolerance, and those of equal steps."""
    found = []
    bounded = few[~few.model.isin(without_tolerance(few))]
    steps = bounded.groupby(["tolerance", "tau"], as_index=False, dropna=False).accepted.min()
    if len(steps):
        medians = [f"{row.accepted:.2g} at {tau_words(row.tau)}" for _, row in steps.iterrows()]
        found.append(
            f"Solves at loose tolerances have few accepted steps (medians: {listed(medians)}). "
            "Between them the curves are the solver's interpolation."
        )
    equal = few[few.model.isin(without_tolerance(few))]
    if len(equal):
        found.append(
            f"Solves with equal steps have few of them ({equal.accepted.min():.0f} at least). "
            "Between them the curves are the solver's interpolation."
        )
    return found


def _readers(probes: pd.DataFrame) -> str:
    """How well head and probes read the states of t = 0, over models and tolerances."""
    if probes.empty:
        return "No probes were fitted to compare it with."
    start = probes[probes.t == probes.t.min()]
    head, probe = (
        f"{percent(values.min())} to {percent(values.max())}"
        for values in (start.head_accuracy, start.accuracy)
    )
    return (
        f"At t = 0 its accuracy on held-out validation images is {head}; that of linear probes "
        f"fitted to states at t = 0 is {probe}."
    )
