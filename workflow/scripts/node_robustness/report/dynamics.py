"""What the trajectories of hidden states show, in plain sentences computed from their tables.

As in `findings`, a difference is called clear only where its 95 % interval leaves out its absence.
"""

import pandas as pd

from node_robustness.report.phrases import among, attack_setting, tau
from node_robustness.tables.frame import CELL
from node_robustness.tables.trajectory_summary import SCORES
from node_robustness.words import listed, percent

# A solve of fewer accepted steps is mostly interpolation.
_FEW_STEPS = 5
_NAMED = 3
_DETECTORS = {"nfe": "more evaluations", "first_step": "a shorter first step"}


def sentences(summary: pd.DataFrame, trajectories: pd.DataFrame, probes: pd.DataFrame) -> list[str]:
    """Say where perturbations grow, when decisions leave, what is responsible, and what it costs.

    Args:
        summary: Result of `trajectory_summary.summary_table`.
        trajectories: Result of `trajectories.trajectory_table`.
        probes: Result of `trajectories.probe_table`.

    Returns:
        Plain sentences with numbers and with the limits of what was measured; none if nothing was
        followed.
    """
    if trajectories.empty:
        return []
    found = []
    success = _successes(summary)
    noise = summary[summary.group == "noise"]
    for (dataset, model), own in success.groupby(["dataset", "model"], sort=False):
        name = f"{model} on {dataset}"
        found += [
            *_growth(name, own, noise),
            *_flips(name, own),
            *_responsible(name, own),
            *_detected(name, own),
        ]
    return found + _limits(summary, success, trajectories, probes)


def responsible(summary: pd.DataFrame) -> list[str]:
    """Say which interval of t is to blame: one sentence for every dataset and model, if known.

    Args:
        summary: Result of `trajectory_summary.summary_table`.
    """
    return [
        sentence
        for (dataset, model), own in _successes(summary).groupby(["dataset", "model"], sort=False)
        for sentence in _responsible(f"{model} on {dataset}", own)
    ]


def _successes(summary: pd.DataFrame) -> pd.DataFrame:
    return summary[(summary.group == "success") & (summary.n > 0)]


def _growth(name: str, success: pd.DataFrame, noise: pd.DataFrame) -> list[str]:
    known = success.dropna(subset="amplification")
    if known.empty:
        return []
    row = _largest(known)
    same = noise.merge(row[list(CELL)].to_frame().T.astype(noise[list(CELL)].dtypes))
    more, less = int((known.over_noise_low > 1).sum()), int((known.over_noise_high < 1).sum())
    return [
        f"{name}: from t = 0 to 1, adversarial perturbations grow by a factor of "
        f"{_median(row, 'amplification')} and random noise of the same size by "
        f"{_median(same.iloc[0], 'amplification')} (medians at {attack_setting(row)}). They grow "
        f"clearly more than the noise in {among(more, len(known))} and clearly less in "
        f"{less or 'none'}. They grow fastest at t = {_median(row, 'peak_t')}."
    ]


def _flips(name: str, success: pd.DataFrame) -> list[str]:
    known = success.dropna(subset="flip_head")
    if known.empty:
        return []
    row = _largest(known)
    probes = (
        ""
        if pd.isna(row.flip_probe)
        else f" and at t = {_median(row, 'flip_probe')} as linear probes read it"
    )
    return [
        f"{name}: the decision on adversarial examples changes for good at "
        f"t = {_median(row, 'flip_head')} as the head reads it{probes} (medians at "
        f"{attack_setting(row)})."
    ]


def _responsible(name: str, success: pd.DataFrame) -> list[str]:
    tried = success[success.tried > 0]
    if tried.empty:
        return []
    row = _largest(tried, "tried")
    said = [
        f"{name}: the repair of one interval of t restores the decision on {row.repaired} of "
        f"{row.tried} adversarial examples, {_rate(row, 'repaired')}, at {attack_setting(row)}."
    ]
    if row.repaired:
        said.append(
            f"The shortest such interval lasts {_median(row, 'responsible_length')} and starts at "
            f"t = {_median(row, 'responsible_start')} (medians)."
        )
    if row.random_tried:
        said.append(
            f"A random other interval of that length restores {_rate(row, 'random')} of the "
            f"{row.random_tried} for which there are others."
        )
    return [" ".join(said + _over_all(tried[tried.random_tried > 0]))]


def _over_all(compared: pd.DataFrame) -> list[str]:
    """How special the responsible intervals are, over tolerances, epsilons and seeds."""
    if compared.empty:
        return []
    fewer = int((compared.random_high < compared.repaired_low).sum())
    rates, lengths = compared.random_rate, compared.responsible_length
    restored = _range(percent(rates.min()), percent(rates.max()))
    return [
        f"Over all settings, random intervals restore {restored}, clearly fewer than the shortest "
        f"interval in {among(fewer, len(compared))}; the shortest lasts "
        f"{_range(f'{lengths.min():.2g}', f'{lengths.max():.2g}')} (medians)."
    ]


def _range(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _detected(name: str, success: pd.DataFrame) -> list[str]:
    parts = []
    for score in SCORES:
        known = success.dropna(subset=f"{score}_auc")
        if known.empty:
            continue
        above = int((known[f"{score}_auc_low"] > 0.5).sum())
        best = _largest(known, f"{score}_auc")
        parts.append(
            f"by {_DETECTORS[score]} in {among(above, len(known))} (area under the ROC curve at "
            f"most {_median(best, f'{score}_auc')}, at {attack_setting(best)})"
        )
    if not parts:
        return []
    return [f"{name}: adversarial examples are detected better than chance {listed(parts)}."]


def _limits(
    summary: pd.DataFrame,
    success: pd.DataFrame,
    trajectories: pd.DataFrame,
    probes: pd.DataFrame,
) -> list[str]:
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
    if success.empty:
        return found
    found.append(
        "The head was trained on states at t = 1 alone: what it reads earlier is not a decision of "
        f"the network. {_readers(probes)}"
    )
    if (success.tried > 0).any():
        found.append(
            "The responsible interval is chosen because its repair works. Only the comparison with "
            "random intervals of its length shows whether that part of t is special."
        )
    return found + _short(summary[(summary.group == "noise") & (summary.accepted < _FEW_STEPS)])


def _short(few: pd.DataFrame) -> list[str]:
    """What to know of solves of few steps: those at each tolerance, and those of equal steps."""
    found = []
    steps = few.groupby("tolerance", as_index=False).accepted.min()
    if len(steps):
        medians = [f"{row.accepted:.2g} at {tau(row.tolerance)}" for _, row in steps.iterrows()]
        found.append(
            f"Solves at loose tolerances have few accepted steps (medians: {listed(medians)}). "
            "Between them the curves are the solver's interpolation."
        )
    equal = few[few.tolerance.isna()]
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


def _largest(rows: pd.DataFrame, column: str = "n") -> pd.Series:
    """The setting with the largest value, the first of equals."""
    return rows.iloc[int(rows[column].to_numpy().argmax())]


def _median(row: pd.Series, name: str) -> str:
    value, low, high = (row[f"{name}{part}"] for part in ("", "_low", "_high"))
    bounds = "" if pd.isna(low) or pd.isna(high) else f" ({low:.2g} to {high:.2g})"
    return f"{value:.2g}{bounds}"


def _rate(row: pd.Series, name: str) -> str:
    value, low, high = (row[f"{name}_{part}"] for part in ("rate", "low", "high"))
    return f"{percent(value)} ({percent(low)} to {percent(high)})"
