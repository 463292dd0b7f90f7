"""What the paths of hidden states say, in plain sentences computed from their tables.

As in `findings`, a difference is called clear only where its 95 % interval leaves out its absence.
"""

import pandas as pd

from node_robustness.numbers import label
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
        trajectories: Result of `trajectory_tables.trajectory_table`.
        probes: Result of `trajectory_tables.probe_table`.

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
    beside = noise.merge(row[list(CELL)].to_frame().T.astype(noise[list(CELL)].dtypes))
    more, less = (known.over_noise_low > 1).sum(), (known.over_noise_high < 1).sum()
    return [
        f"{name}: from t = 0 to 1 the perturbations that fool it grow by a factor of "
        f"{_median(row, 'amplification')}, random noise of the same size by "
        f"{_median(beside.iloc[0], 'amplification')} (medians at {_where(row)}); over all, they "
        f"grow clearly more than the noise in {more} of {_settings(len(known))}, clearly less in "
        f"{less}. They grow fastest at t = {_median(row, 'peak_t')}."
    ]


def _flips(name: str, success: pd.DataFrame) -> list[str]:
    known = success.dropna(subset="flip_head")
    if known.empty:
        return []
    row = _largest(known)
    sentence = (
        f"{name}: the decision on adversarials leaves that on the clean image for good at "
        f"t = {_median(row, 'flip_head')} as the head reads it"
    )
    if not pd.isna(row.flip_probe):
        sentence += f", at t = {_median(row, 'flip_probe')} as a probe of each t does"
    return [f"{sentence} (medians at {_where(row)})."]


def _responsible(name: str, success: pd.DataFrame) -> list[str]:
    tried = success[success.tried > 0]
    if tried.empty:
        return []
    row = _largest(tried, "tried")
    sentence = (
        f"{name}: undoing what one interval of t adds to the perturbation restores the decision on "
        f"{row.repaired} of {row.tried} adversarials, {_rate(row, 'repaired')}, at {_where(row)}"
    )
    if row.repaired:
        sentence += (
            f"; the shortest such interval lasts {_median(row, 'responsible_length')} and starts "
            f"at t = {_median(row, 'responsible_start')} (medians)"
        )
    if row.random_tried:
        sentence += (
            f"; another interval of that length, at random, restores {_rate(row, 'random')} of the "
            f"{row.random_tried} that have others"
        )
    return [f"{sentence}.{_over_all(tried[tried.random_tried > 0])}"]


def _over_all(compared: pd.DataFrame) -> str:
    """How special the responsible intervals are, over tolerances, epsilons and seeds."""
    if compared.empty:
        return ""
    fewer = (compared.random_high < compared.repaired_low).sum()
    rates, lengths = compared.random_rate, compared.responsible_length
    return (
        f" Over all, random intervals restore clearly fewer than the shortest that does in {fewer} "
        f"of {_settings(len(compared))}: {_range(percent(rates.min()), percent(rates.max()))}, "
        f"where the shortest lasts {_range(f'{lengths.min():.2g}', f'{lengths.max():.2g}')} "
        "(medians)."
    )


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
            f"by {_DETECTORS[score]} in {above} of {_settings(len(known))} (area under the ROC "
            f"curve at most {_median(best, f'{score}_auc')}, at {_where(best)})"
        )
    if not parts:
        return []
    return [f"{name}: the solver gives adversarials away better than chance {listed(parts)}."]


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
        named = [f"{row.model} at {_where(row)}" for _, row in empty.head(_NAMED).iterrows()]
        if len(empty) > _NAMED:
            named.append(f"and {len(empty) - _NAMED} more")
        found.append(
            f"In {len(empty)} of {len(cells):,} followed settings no adversarial was found, and "
            f"nothing is said of them here: {'; '.join(named)}."
        )
    if success.empty:
        return found
    found.append(
        "The head was trained on states of t = 1 alone: what it reads before is not a decision of "
        f"the network{_readers(probes)}."
    )
    if (success.tried > 0).any():
        found.append(
            "The responsible interval is chosen because its repair works, so only the comparison "
            "with random intervals of its length says that this part of t is special."
        )
    return found + _short(summary[(summary.group == "noise") & (summary.accepted < _FEW_STEPS)])


def _short(few: pd.DataFrame) -> list[str]:
    """What to know of solves of few steps: those at each tolerance, and those of equal steps."""
    found = []
    steps = few.groupby("tolerance", as_index=False).accepted.min()
    if len(steps):
        told = [
            f"{row.accepted:.2g} at τ = {label(float(row.tolerance))}"
            for _, row in steps.iterrows()
        ]
        found.append(
            f"Solves are short at loose tolerances (a median of {listed(told)} accepted steps): "
            "between these the curves are the solver's interpolation."
        )
    equal = few[few.tolerance.isna()]
    if len(equal):
        found.append(
            f"Where solves take equal steps these are few ({equal.accepted.min():.0f} at least): "
            "between them the curves are the solver's interpolation."
        )
    return found


def _readers(probes: pd.DataFrame) -> str:
    """How well head and probes read the states of t = 0, over models and tolerances."""
    if probes.empty:
        return ", and no probes were fitted to compare it with"
    start = probes[probes.t == probes.t.min()]
    told = [
        f"{percent(values.min())} to {percent(values.max())}"
        for values in (start.head_accuracy, start.accuracy)
    ]
    return (
        f"; read at t = 0 it is right on {told[0]} of held-out validation images, linear probes "
        f"fitted to states of t = 0 on {told[1]}"
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


def _where(row: pd.Series) -> str:
    tau = "" if pd.isna(row.tolerance) else f"τ = {label(float(row.tolerance))}, "
    return f"{tau}{row.attack}, ε = {label(float(row.epsilon))}"


def _settings(n: int) -> str:
    return f"{n:,} setting" + ("s" if n != 1 else "")
