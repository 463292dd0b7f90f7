"""The tables of the report: which there are, and how a row becomes text."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from node_robustness.figures.menus import GROUPS
from node_robustness.figures.style import NORMS
from node_robustness.jobs.failures import attempt
from node_robustness.numbers import label
from node_robustness.report import findings
from node_robustness.report.paper import ACCURACY
from node_robustness.statistics.intervals import Estimate, across_seeds, wilson
from node_robustness.words import duration, percent

_LONGEST = 200
_DIRECTIONS = {-1: "lower", 0: "no clear change", 1: "higher"}

# The columns of a table: the header, and how a row of the frame fills the cell.
Columns = Mapping[str, Callable[[Any], str]]

_SOLVED: Columns = {
    "Dataset": lambda row: row.dataset,
    "Model": lambda row: row.model,
    "Seed": lambda row: str(row.seed),
    "τ": lambda row: _tau(row.tolerance),
}
_CLEAN: Columns = {
    **_SOLVED,
    "Images": lambda row: f"{row.n:,}",
    "Accuracy": lambda row: _percent((row.accuracy, row.accuracy_low, row.accuracy_high)),
    "Evaluations, mean": lambda row: _mean(row.nfe_mean),
    "SD": lambda row: _mean(row.nfe_sd),
    "Minimum": lambda row: _mean(row.nfe_min, 0),
    "Median": lambda row: _mean(row.nfe_median, 0),
    "Maximum": lambda row: _mean(row.nfe_max, 0),
}
_ATTACKS: Columns = {
    **_SOLVED,
    "Attack": lambda row: row.attack,
    "Gradient": lambda row: row.gradient,
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
    "Attacked": lambda row: f"{row.attacked:,}",
    "Skipped": lambda row: f"{row.skipped:,}",
    "Success rate": lambda row: _percent((row.success_rate, row.success_low, row.success_high)),
    "Robust accuracy": lambda row: _percent((row.robust_accuracy, row.robust_low, row.robust_high)),
    "Iterations": lambda row: _mean(row.iterations_mean),
    "L∞": lambda row: _mean(row.perturbation_linf_mean, 3),
    "L2": lambda row: _mean(row.perturbation_l2_mean, 3),
    "Evaluations, clean": lambda row: _mean(row.nfe_clean_mean),
    "Evaluations, adversarial": lambda row: _mean(row.nfe_adversarial_mean),
}
_TRAJECTORIES: Columns = {
    **_SOLVED,
    "Attack": lambda row: row.attack,
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
    "Images": lambda row: f"{row.n:,} ({GROUPS[row.group]})",
    "Growth factor": lambda row: _number(_estimate(row, "amplification")),
    "Over noise": lambda row: _number(_estimate(row, "over_noise")),
    "Fastest at t": lambda row: _number(_estimate(row, "peak_t")),
    "Decision changed": lambda row: _percent((row.flipped_rate, row.flipped_low, row.flipped_high)),
    "At t, head": lambda row: _number(_estimate(row, "flip_head")),
    "At t, probe": lambda row: _number(_estimate(row, "flip_probe")),
    "Repaired": lambda row: _percent((row.repaired_rate, row.repaired_low, row.repaired_high)),
    "By a random interval": lambda row: _percent(
        (row.random_rate, row.random_low, row.random_high)
    ),
    "From t": lambda row: _number(_estimate(row, "responsible_start")),
    "To t": lambda row: _number(_estimate(row, "responsible_end")),
    "Evaluations": lambda row: _number(_estimate(row, "nfe")),
    "AUC by evaluations": lambda row: _number(_estimate(row, "nfe_auc")),
    "AUC by the first step": lambda row: _number(_estimate(row, "first_step_auc")),
}
_CELL: Columns = {
    "Dataset": lambda row: row.dataset,
    "Model": lambda row: row.model,
    "τ": lambda row: _tau(row.tolerance),
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
}
_OF: Columns = {
    "Images": lambda row: f"{row.n:,}",
    "Seeds": lambda row: str(row.seeds),
}
_VERDICTS: Columns = {
    **_CELL,
    **_OF,
    "Clean": lambda row: _percent(_estimate(row, "clean")),
    "Paper’s protocol": lambda row: _percent(_estimate(row, "paper")),
    "Strongest attack": lambda row: _percent(_estimate(row, "strongest")),
    "Gap": lambda row: _points(_estimate(row, "gap")),
    "Verdict": lambda row: row.verdict,
    "Because": lambda row: row.reason,
}
_GAINS: Columns = {
    **_CELL,
    **_OF,
    "Over τ": lambda row: _tau(row.reference),
    "Gain, paper’s": lambda row: _points(_estimate(row, "paper")),
    "Gain, strongest": lambda row: _points(_estimate(row, "strongest")),
    "Hidden": lambda row: _points(_estimate(row, "hidden")),
    "Verdict": lambda row: row.verdict,
    "Because": lambda row: row.reason,
}
_COMPARISONS: Columns = {
    "Protocol": lambda row: row.protocol,
    **_CELL,
    **_OF,
    "Compared with": lambda row: (
        row.reference_model
        if pd.isna(row.reference_tolerance)
        else f"{row.reference_model}, τ = {_tau(row.reference_tolerance)}"
    ),
    "Robust": lambda row: _percent(_estimate(row, "robust")),
    "Compared": lambda row: _percent(_estimate(row, "reference")),
    "Difference": lambda row: _points(_estimate(row, "difference")),
    "p, Holm": lambda row: f"{row.p_holm:.2g}",
    "Verdict": lambda row: _DIRECTIONS[row.direction],
}
_CHECKS: Columns = {
    **_SOLVED,
    "Check": lambda row: row.title,
    "Value": lambda row: "–" if pd.isna(row.value) else f"{row.value:.3g}",
    "Passes if": lambda row: f"{row.bound} {row.threshold:g}",
    "Outcome": lambda row: row.outcome,
    "A failure means": lambda row: row.failure,
}
_DETECTION: Columns = {
    **_SOLVED,
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
    "Attack": lambda row: row.attacker,
    "Clean": lambda row: f"{row.clean:,}",
    "Adversarial": lambda row: f"{row.adversarial:,}",
    "Area under the curve": lambda row: (
        "–" if pd.isna(row.auc) else f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})"
    ),
    "Detected at 5 % false alarms": lambda row: _percent(_estimate(row, "detected")),
}
_RANDOMISATION: Columns = {
    **{name: cell for name, cell in _SOLVED.items() if name != "τ"},
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
    "Attacker": lambda row: row.attacker,
    "Images": lambda row: f"{row.n:,}",
    "Accuracy": lambda row: _percent(_estimate(row, "accuracy")),
}
_TRAINING: Columns = {
    "Dataset": lambda row: row.dataset,
    "Model": lambda row: row.model,
    "Seed": lambda row: str(row.seed),
    "Epochs": lambda row: str(row.epochs),
    "Kept": lambda row: str(row.best_epoch),
    "Validation accuracy": lambda row: percent(row.validation_accuracy),
    "Training accuracy": lambda row: percent(row.train_accuracy),
    "Evaluations, mean": lambda row: _mean(row.nfe_mean),
}
_SUCCESS: Columns = {
    **_SOLVED,
    "Norm": lambda row: NORMS[row.norm],
    "ε": lambda row: label(row.epsilon),
    "Images": lambda row: f"{row.correct:,}",
    "Paper’s attack": lambda row: _percent(_estimate(row, "paper")),
    "Strongest attack": lambda row: _percent(_estimate(row, "strongest")),
}
_AGREEMENT: Columns = {
    **_SOLVED,
    "Gradient": lambda row: row.source,
    "Reference": lambda row: row.reference,
    "n": lambda row: f"{row.n:,}",
    "Cosine": lambda row: _quartiles(row, "cosine"),
    "Same sign": lambda row: _quartiles(row, "sign_agreement"),
}
_STAGES: Columns = {
    "Rule": lambda stage: stage["rule"],
    "Jobs": lambda stage: f"{stage['jobs']:,}",
    "Time (h:mm:ss)": lambda stage: duration(stage["seconds"]),
    "CPU time": lambda stage: duration(stage["cpu_seconds"]),
    "Memory (MB)": lambda stage: _mean(stage["max_rss_mb"], 0),
    "First started (UTC)": lambda stage: _moment(stage["started_utc"]),
}
_JOBS: Columns = {
    "Rule": lambda job: job.rule,
    "Dataset": lambda job: _or_dash(job.dataset),
    "Model": lambda job: _or_dash(job.model),
    "Seed": lambda job: _or_dash(job.seed),
    "τ": lambda job: _tau(job.tolerance),
    "Attack": lambda job: _or_dash(job.attack),
    "Norm": lambda job: "–" if pd.isna(job.norm) else NORMS[job.norm],
    "ε": lambda job: "–" if pd.isna(job.epsilon) else label(job.epsilon),
    "Seconds": lambda job: _mean(job.seconds),
    "CPU seconds": lambda job: _mean(job.cpu_seconds),
    "Memory (MB)": lambda job: _mean(job.max_rss_mb, 0),
    "Evaluations, mean": lambda job: _mean(job.nfe_mean),
    "Started (UTC)": lambda job: _moment(job.started_utc),
}


@dataclass(frozen=True)
class Table:
    """A table as the page shows it; one that could not be made has a caption alone."""

    caption: str
    header: list[str]
    rows: list[list[str]]


def of_experiment(tables: Mapping[str, pd.DataFrame]) -> dict[str, Table]:
    """What was found, from the verdicts to the single attacks, by name.

    Args:
        tables: The tables of the experiment by name.
    """
    clean, attacks = tables["clean"], tables["attacks"]
    makers = {
        **_verdict_tables(tables),
        "changes": lambda: _changes(attacks),
        "clean": lambda: _table(
            "Clean images: accuracy with 95 % Wilson intervals, and evaluations of the ODE "
            "function per image.",
            clean.itertuples(),
            _CLEAN,
        ),
        "trajectory_summary": lambda: _table(
            "Perturbations along t: adversarial examples, images on which the attack failed, and "
            "random noise of the same size. Medians and shares with 95 % intervals.",
            tables["trajectory_summary"].itertuples(),
            _TRAJECTORIES,
        ),
        "attacks": lambda: _table(
            "Attacks: success rate among the attacked images and robust accuracy among all, with "
            "95 % Wilson intervals. The attacked images are those classified correctly. An "
            "expensive attack skips those that a cheaper attack broke within the smallest ε; no "
            "verdict depends on this. Iterations, perturbations (plain norms) and evaluations are "
            "means over the successes.",
            attacks.itertuples(),
            _ATTACKS,
        ),
    }
    return {
        name: attempt(f"The table {name}", make, lambda why: Table(why, [], []))
        for name, make in makers.items()
    }


def training(table: pd.DataFrame) -> Table:
    """How training ended.

    Args:
        table: Result of `evaluation.training_table`.
    """
    return _table(
        "Training: accuracy of the epoch whose weights were kept, chosen on validation images.",
        table.itertuples(),
        _TRAINING,
    )


def success(protocols: pd.DataFrame) -> Table:
    """Success rates, the paper's measure, under both protocols.

    Args:
        protocols: Result of `protocols.protocol_table`.
    """
    rows = protocols.copy()
    for name in ("paper", "strongest"):
        # Of the images that are right without an attack, those that are not robust.
        broken = protocols.correct - (protocols[name] * protocols.n).round()
        known = broken.notna()
        rows[name] = broken / protocols.correct
        low, high = wilson(broken[known], protocols.correct[known])
        rows.loc[known, f"{name}_low"], rows.loc[known, f"{name}_high"] = low, high
    return _table(
        "Success rate among the images that are classified correctly, under the paper's protocol "
        "and under the strongest attack, with 95 % Wilson intervals.",
        rows.itertuples(),
        _SUCCESS,
    )


def agreement(audit: pd.DataFrame) -> Table:
    """How gradients from different sources agree.

    Args:
        audit: Result of `audit.audit_table`.
    """
    return _table(
        "Agreement of gradients with a reference: cosine, and share of pixels with the same sign; "
        "medians over n images, quartiles in brackets.",
        audit[audit.cosine_mean.notna()].itertuples(),
        _AGREEMENT,
    )


def stages(found: Iterable[Any]) -> Table:
    """What each stage cost.

    Args:
        found: As in the manifest.
    """
    return _table(
        "Time by stage, summed over its jobs, and the largest memory of a job.", found, _STAGES
    )


def of_costs(costs: pd.DataFrame, of_stages: Iterable[Any]) -> list[Table]:
    """What the run cost.

    Args:
        costs: Result of `costs.job_costs`.
        of_stages: As in the manifest.
    """
    return [stages(of_stages), _longest(costs)]


def _table(caption: str, rows: Iterable[Any], columns: Columns) -> Table:
    filled = [[cell(row) for cell in columns.values()] for row in rows]
    return Table(caption, list(columns), filled)


def _longest(costs: pd.DataFrame) -> Table:
    shown = costs.nlargest(_LONGEST, "seconds")
    which = "The jobs" if len(shown) == len(costs) else f"The {len(shown)} longest jobs"
    return _table(
        f"{which} of {len(costs):,}, the longest first; costs.csv has all of them. Evaluations of "
        "the ODE function are means over images, for attacks over the successes.",
        shown.itertuples(),
        _JOBS,
    )


def _verdict_tables(tables: Mapping[str, pd.DataFrame]) -> dict[str, Callable[[], Table]]:
    return {
        "verdicts": lambda: _table(
            "Verdicts: robust accuracy under both protocols and the gap in percentage points, with "
            "95 % intervals over images and seeds.",
            tables["verdicts"].itertuples(),
            _VERDICTS,
        ),
        "gains": lambda: _table(
            "Gains in robust accuracy from a larger tolerance, in percentage points. Hidden: how "
            "much of the gain under the paper’s protocol the strongest attack does not show.",
            tables["gains"].itertuples(),
            _GAINS,
        ),
        "comparisons": lambda: _table(
            "Robust accuracy on the same images: models with an ODE against models without, and "
            "tolerances against that of training. p-values are McNemar’s, exact, adjusted by Holm.",
            tables["comparisons"].itertuples(),
            _COMPARISONS,
        ),
        "checks": lambda: _table("Sanity checks.", tables["checks"].itertuples(), _CHECKS),
        "randomisation": lambda: _table(
            "Accuracy of a network whose tolerance is drawn for every solve. Attackers: none "
            "(clean), gradients at one tolerance (fixed), at a new draw in every step (fresh), "
            "averaged over draws (eot).",
            tables["randomisation"].itertuples(),
            _RANDOMISATION,
        ),
        "detection": lambda: _table(
            "Detection of adversarial examples by the disagreement of tolerances. Plain attacks do "
            "not know the detector, adaptive attacks do. Intervals of the share detected are for "
            "the threshold that these clean images set.",
            tables["detection"].itertuples(),
            _DETECTION,
        ),
    }


def _estimate(row: Any, name: str) -> Estimate:
    return Estimate(*(getattr(row, f"{name}{part}") for part in ("", "_low", "_high")))


def _changes(attacks: pd.DataFrame) -> Table:
    ends = findings.extremes(attacks)
    before, after = (label(end) for end in ends) if ends else ("", "")
    columns: Columns = {
        "Dataset": lambda change: change.condition[0],
        "Attack": lambda change: change.condition[1],
        "Gradient": lambda change: change.condition[2],
        "Norm": lambda change: NORMS[change.condition[3]],
        "ε": lambda change: label(change.condition[4]),
        "Model": lambda change: change.model,
        f"At τ = {before}": lambda change: _percent(change.before),
        f"At τ = {after}": lambda change: _percent(change.after),
        "Change": lambda change: _points(change.change),
        "Verdict": lambda change: _DIRECTIONS[change.direction],
    }
    return _table(
        "Success rate at the smallest and at the largest tolerance, and its change in percentage "
        "points, with 95 % intervals.",
        findings.tolerance_changes(attacks),
        columns,
    )


def papers_accuracy(clean: pd.DataFrame, dataset: str) -> Table:
    """The paper's accuracy on a dataset and ours."""
    by = ["dataset", "model", "tolerance"]
    ours = across_seeds(clean, by, "accuracy", "accuracy")
    images = clean.groupby(by, as_index=False, dropna=False).n.max()
    reported = pd.DataFrame(
        [
            (model, math.nan if tolerance is None else tolerance, accuracy)
            for model, by_tolerance in ACCURACY[dataset].items()
            for tolerance, accuracy in by_tolerance.items()
        ],
        columns=["model", "tolerance", "paper"],
    )
    columns: Columns = {
        "Dataset": lambda row: "–" if pd.isna(row.dataset) else row.dataset,
        "Model": lambda row: row.model,
        "τ": lambda row: _tau(row.tolerance),
        "Paper": lambda row: percent(row.paper),
        "Images": lambda row: _count(row.n),
        "Seeds": lambda row: _count(row.seeds),
        "This run": lambda row: _percent((row.value, row.low, row.high)),
        "Difference": lambda row: (
            "–" if pd.isna(row.value) else _signed(100 * (row.value - row.paper))
        ),
    }
    return _table(
        "Accuracy on clean test images: the paper’s and ours, with 95 % intervals, and the "
        "difference in percentage points.",
        reported.merge(ours.merge(images, on=by), "left", on=["model", "tolerance"]).itertuples(),
        columns,
    )


def _tau(tolerance: float) -> str:
    return "–" if pd.isna(tolerance) else label(float(tolerance))


def _count(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:,.0f}"


def _or_dash(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)


def _quartiles(row: Any, name: str) -> str:
    median, low, high = (getattr(row, f"{name}_{part}") for part in ("median", "q25", "q75"))
    return f"{_mean(median, 3)} ({_mean(low, 3)} to {_mean(high, 3)})"


def _moment(utc: str | None) -> str:
    """A time in ISO 8601 as a person reads it, to the second."""
    return "–" if pd.isna(utc) else str(utc)[:19].replace("T", " ")


def _mean(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def _percent(estimate: Sequence[float]) -> str:
    value, low, high = (100 * part for part in estimate)
    return "–" if math.isnan(value) else f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _number(estimate: Estimate) -> str:
    """An estimate with its interval, which a few images do not give."""
    if math.isnan(estimate.value):
        return "–"
    bounds = "" if math.isnan(estimate.low) else f" ({estimate.low:.2g} to {estimate.high:.2g})"
    return f"{estimate.value:.3g}{bounds}"


def _points(estimate: Estimate) -> str:
    value, low, high = (_signed(100 * part) for part in estimate)
    return "–" if math.isnan(estimate.value) else f"{value} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
