"""The tables of the report and of the page of results, and how their rows become text."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from node_robustness.figures.menus import GROUPS
from node_robustness.figures.style import NORMS, PROCEDURES
from node_robustness.jobs.failures import attempt
from node_robustness.numbers import label
from node_robustness.report import findings, overviews
from node_robustness.report.paper import ACCURACY
from node_robustness.statistics import proportions
from node_robustness.statistics.networks import over_networks
from node_robustness.statistics.proportions import Estimate
from node_robustness.tables.catalogue import TABLES, Level
from node_robustness.tables.frame import tau_of, tau_words
from node_robustness.tables.networks import OWN_MODEL
from node_robustness.verdict.dynamics import BEFORE, PINPOINTED
from node_robustness.words import duration, percent

_LONGEST = 200
_KINDS = {"share": "robust accuracy", "model": "difference of models", "tolerance": "change"}
_DIRECTIONS = {-1: "lower", 0: "no clear change", 1: "higher"}

Cell = Callable[[Any], str]
# The columns of a table: the header, and how a row of the frame fills the cell.
Columns = Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """A table as the page shows it; one that could not be made has a caption alone.

    Attributes:
        caption: what it shows.
        header: of its columns.
        rows: the texts of its fields.
        ids: of its rows, if other parts of a page lead to them.
    """

    caption: str
    header: list[str]
    rows: list[list[str]]
    ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """A table of the run as people read it.

    Attributes:
        table: the name of the run's table.
        caption: what it shows, with the units and the kind of the intervals.
        columns: its columns.
        topic: the topic that has it (`topics.TOPICS`).
        in_report: whether the report has it.
        on_page: whether the page of results has it.
        rows: from the run's table to the rows shown.
        level: what the rows shown speak of; None if what those of the run's table do.
    """

    table: str
    caption: str
    columns: Columns
    topic: str = field(kw_only=True)
    in_report: bool = True
    on_page: bool = True
    rows: Callable[[pd.DataFrame], Iterable[Any]] = pd.DataFrame.itertuples
    level: Level | None = None

    @property
    def described(self) -> str:
        """The caption, and what the rows speak of."""
        return f"{self.caption} {(self.level or TABLES[self.table].level).sentence}"


def text(name: str) -> Cell:
    """A field as it is."""
    return lambda row: str(getattr(row, name))


def _text_or_dash(name: str) -> Cell:
    return lambda row: str(getattr(row, name)) or "–"


def _count(name: str) -> Cell:
    return lambda row: _or_dash(getattr(row, name), ",.0f")


def _mean(name: str, digits: int = 1) -> Cell:
    return lambda row: _or_dash(getattr(row, name), f",.{digits}f")


def _number_or_dash(name: str) -> Cell:
    return lambda row: _label(getattr(row, name))


def _reference(row: Any) -> str:
    """The tolerance that a larger one is compared with."""
    return tau_of(row.reference, ode=True)


def share(name: str, bounds: str = "") -> Cell:
    """A rate in per cent with its interval, whose columns begin with `bounds`."""
    return lambda row: _percent(_estimate(row, name, bounds))


def _change(name: str) -> Cell:
    """A difference in percentage points with its interval."""
    return lambda row: _points(_estimate(row, name))


def _median(name: str) -> Cell:
    """An estimate with its interval, which a few images do not give."""
    return lambda row: _number(_estimate(row, name))


def _mean_and_most(name: str) -> Cell:
    return lambda row: "{} ({})".format(
        _or_dash(getattr(row, f"{name}_mean"), ",.1f"),
        _or_dash(getattr(row, f"{name}_max"), ",.0f"),
    )


def _quartiles(name: str) -> Cell:
    return lambda row: "{} ({} to {})".format(
        *(_or_dash(getattr(row, f"{name}_{part}"), ".3f") for part in ("median", "q25", "q75"))
    )


_NETWORK: Columns = {"Dataset": text("dataset"), "Model": text("model"), "Seed": text("seed")}
_SOLVED: Columns = {**_NETWORK, "τ": text("tau")}
_SIZE: Columns = {"Norm": lambda row: NORMS[row.norm], "ε": lambda row: label(row.epsilon)}
_SETTING: Columns = {
    **{"Dataset": text("dataset"), "Model": text("model"), "τ": text("tau")},
    **_SIZE,
    **{"Images": _count("n"), "Level": text("level")},
}

_ENDS = ("low", "high")

_MODEL: Columns = {
    **{"Dataset": text("dataset"), "Model": text("model"), "Level": text("level")},
    "Settings": _count("settings"),
}


def _success_rates(protocols: pd.DataFrame) -> Iterable[Any]:
    """The table of protocols with success rates, the paper's measure, for robust accuracy."""
    procedures = ("paper", "strongest")
    # A column of a CSV without a fraction is one of whole numbers.
    rows = protocols.astype({f"{name}_{end}": float for name in procedures for end in _ENDS})
    for name in procedures:
        # Of the images that are right without an attack, those that are not robust.
        broken = protocols.correct - (protocols[name] * protocols.n).round()
        known = broken.notna()
        rows[name] = broken / protocols.correct
        low, high = proportions.interval(broken[known], protocols.correct[known])
        rows.loc[known, f"{name}_low"], rows.loc[known, f"{name}_high"] = low, high
    return rows.itertuples()


VIEWS = {
    "training": View(
        "training",
        "Training: accuracy of the epoch whose weights were kept, chosen on validation images.",
        {
            **_NETWORK,
            "Epochs": text("epochs"),
            "Kept": text("best_epoch"),
            "Validation accuracy": lambda row: percent(row.validation_accuracy),
            "Training accuracy": lambda row: percent(row.train_accuracy),
            "Evaluations, mean": _mean("nfe_mean"),
        },
        topic="ran",
        in_report=False,
    ),
    "networks": View(
        "networks",
        "Own models: how each is solved, the settings of its author and the evaluations of each "
        "solve at these, what cannot be measured of it, and how many checks were made first.",
        {
            **_NETWORK,
            "Module": text("module"),
            "Audit level": _count("audit_level"),
            "Solves": text("solves"),
            "Times of one image": text("ways"),
            "rtol": _number_or_dash("own_rtol"),
            "atol": _number_or_dash("own_atol"),
            "Evaluations, median": text("evaluations"),
            "Limits": text("limits"),
            "Checks": _count("checks"),
            "Failed": text("failed"),
        },
        rows=lambda networks: networks[networks.kind == OWN_MODEL].itertuples(),
        topic="ran",
    ),
    "success": View(
        "protocols",
        "Success rate among the images that are classified correctly, under the paper's protocol "
        "and under the strongest attack, with exact 95 % intervals.",
        {
            **_SOLVED,
            **_SIZE,
            "Images": _count("correct"),
            "Paper’s protocol": share("paper"),
            "Strongest attack": share("strongest"),
        },
        rows=_success_rates,
        topic="attacks",
        in_report=False,
    ),
    "agreement": View(
        "audit",
        "Agreement of gradients with a reference: cosine, and share of pixels with the same sign; "
        "medians over n images, quartiles in brackets.",
        {
            **_SOLVED,
            "Gradient": text("source"),
            "Reference": text("reference"),
            "n": _count("n"),
            "Cosine": _quartiles("cosine"),
            "Same sign": _quartiles("sign_agreement"),
        },
        rows=lambda audit: audit[audit.cosine_mean.notna()].itertuples(),
        topic="gradients",
    ),
    "verdict_counts": View(
        "verdicts",
        "In how many settings each verdict was given, and where the gap that the paper's procedure "
        "hides is largest: robust accuracy under it (P) and under the strongest attack (R), masked "
        "gradient (M) and weak search (W).",
        {
            **_MODEL,
            "Broken": _count("broken"),
            "Of these hidden": _count("hidden"),
            "Masked gradient": _count("masked_gradient"),
            "Under-searched": _count("under_searched"),
            "Survives": _count("survives"),
            "Undecided": _count("undecided"),
            "Largest hidden gap at": _text_or_dash("at"),
            "P": share("paper"),
            "R": share("strongest"),
            "M": share("masked"),
            "W": share("weak"),
        },
        rows=overviews.of_verdicts,
        topic="verdicts",
    ),
    "undecided": View(
        "verdicts",
        "Why settings are undecided, and how many images would decide all that lack images, if the "
        "shares stay as they are. What each setting lacks is in its reason; the presets quick and "
        "standard have all attacks that are needed (docs/attacks.md).",
        {
            "Because": text("why"),
            "Settings": _count("settings"),
            "Images needed": _count("needed"),
        },
        rows=overviews.of_undecided,
        topic="verdicts",
    ),
    "verdicts": View(
        "verdicts",
        "Verdicts: robust accuracy under the paper's procedure (P), with its gradient corrected "
        "(C) and under the strongest attack (R); masked gradient M = P − C, weak search W = C − R. "
        "Means over the networks; the intervals contain the exact 95 % interval of each.",
        {
            **_SETTING,
            "Clean": share("clean"),
            "P": share("paper"),
            "C": share("corrected"),
            "R": share("strongest"),
            "M": share("masked"),
            "W": share("weak"),
            "Verdict": text("verdict"),
            "The procedure": text("procedure"),
            "Because": text("reason"),
            "Agree": lambda row: f"{row.agree} of {row.networks}",
        },
        topic="verdicts",
    ),
    "model_counts": View(
        "models",
        "Claim 1 by model: in how many settings it is more or less robust than a model without an "
        "ODE, in how many the paper's procedure reverses the ranking, and where the difference is "
        "largest.",
        {
            **_MODEL,
            "Compared with": text("reference_model"),
            "Under": lambda row: PROCEDURES[row.under],
            "More robust": _count("more"),
            "Less robust": _count("less"),
            "Equally robust": _count("equivalent"),
            "Undecided": _count("undecided"),
            "Reversed": _count("reversed"),
            "Largest difference at": text("at"),
            "Robust": lambda row: _rate(row.robust),
            "Compared": lambda row: _rate(row.reference),
            "Difference": _change("difference"),
        },
        rows=overviews.of_models,
        topic="models",
    ),
    "models": View(
        "models",
        "Claim 1, are models with an ODE more robust? Difference of robust accuracy in percentage "
        "points under both procedures; every network is compared with every network of the other "
        "model on the same images, and the intervals contain those of all pairs.",
        {
            **_SETTING,
            "Compared with": text("reference_model"),
            "Paper’s procedure": _change("paper"),
            "Claim": text("paper_claim"),
            "Strongest attack": _change("strongest"),
            "Claim, strongest": text("strongest_claim"),
            "First tested": lambda row: "yes" if row.primary else "",
        },
        topic="models",
    ),
    "tolerance_counts": View(
        "tolerances",
        "Claim 2 by model: in how many settings a larger tolerance protects, and the largest gain "
        "that the paper's procedure shows, in percentage points. Reversed: it makes the network "
        "less robust; none: a change below 5 points.",
        {
            **_MODEL,
            "Over τ": _reference,
            "Real": _count("real"),
            "Masked gradient": _count("masked"),
            "Reversed": _count("reversed"),
            "Below 5 points": _count("none"),
            "Undecided": _count("undecided"),
            "Largest gain at": _text_or_dash("at"),
            "Paper’s procedure": _change("paper"),
            "Strongest attack": _change("strongest"),
        },
        rows=overviews.of_tolerances,
        topic="tolerances",
    ),
    "tolerances": View(
        "tolerances",
        "Claim 2, does a larger tolerance protect? Change of robust accuracy in percentage points "
        "over the same network at the smaller tolerance; the intervals contain those of all "
        "networks.",
        {
            **_SETTING,
            "Over τ": _reference,
            "Paper’s procedure": _change("paper"),
            "Gradient corrected": _change("corrected"),
            "Strongest attack": _change("strongest"),
            "Masked gradient": _change("masked"),
            "Claim": text("claim"),
            "Because": text("reason"),
            "First tested": lambda row: "yes" if row.primary else "",
        },
        topic="tolerances",
    ),
    "populations": View(
        "populations",
        "Networks trained like these: robust accuracy and its differences over networks and "
        "images, with 95 % intervals (Student’s t). Only with five networks or more.",
        {
            "Dataset": text("dataset"),
            "Model": text("model"),
            "τ": text("tau"),
            **_SIZE,
            "Networks": _count("networks"),
            "What": lambda row: _KINDS[row.kind],
            "Compared with": lambda row: (
                tau_words(tau_of(row.reference_tolerance, ode=True))
                if row.kind == "tolerance"
                else row.reference_model
            ),
            "Protocol": text("protocol"),
            "Value": lambda row: (
                _percent(_bounded(row)) if row.kind == "share" else _points(_bounded(row))
            ),
        },
        topic="verdicts",
    ),
    "checks": View(
        "checks",
        "Sanity checks of each network. A check passes or fails by a bound of its value; each of "
        "the two holds with 95 %.",
        {
            **_SOLVED,
            "Check": text("title"),
            "Norm": text("norm"),
            "Value": lambda row: _or_dash(row.value, ".3g"),
            "Bounds": lambda row: "–" if pd.isna(row.low) else f"{row.low:.3g} to {row.high:.3g}",
            "Images": _count("n"),
            "Passes if": lambda row: f"{row.bound} {row.threshold:g}",
            "Outcome": text("outcome"),
            "A failure means": text("failure"),
        },
        topic="verdicts",
        on_page=False,
    ),
    "randomisation": View(
        "randomisation",
        "Accuracy of a network whose tolerance is drawn for every solve. Attackers: none (clean), "
        "gradients at one tolerance (fixed), at a new draw in every step (fresh), averaged over "
        "draws (eot).",
        {
            **_NETWORK,
            **_SIZE,
            "Attacker": text("attacker"),
            "Images": _count("n"),
            "Accuracy": share("accuracy"),
        },
        topic="defences",
    ),
    "detection": View(
        "detection",
        "Detection of adversarial examples by the disagreement of tolerances, and by the "
        "confidence of the classifier alone. Plain attacks stop at their first success, confident "
        "attacks go on, adaptive attacks know the detector by disagreement. Intervals of the share "
        "detected are for the threshold that these clean images set. An area of 0.5 is chance.",
        {
            **_SOLVED,
            **_SIZE,
            "Attack": text("attacker"),
            "Detector": text("detector"),
            "Clean": _count("clean"),
            "Adversarial": _count("adversarial"),
            "Area under the curve": lambda row: (
                _or_dash(row.auc, ".3f")
                if pd.isna(row.auc)
                else f"{row.auc:.3f} ({row.auc_low:.3f} to {row.auc_high:.3f})"
            ),
            "Detected at 5 % false alarms": share("detected"),
        },
        topic="defences",
    ),
    "adjoint_sweep": View(
        "adjoint_sweep",
        "The paper’s attack with its adjoint solved at other tolerances than the forward solve τ: "
        "robust accuracy and, in percentage points on the same images, its difference to that "
        "under the direct gradient. Exact 95 % intervals over images.",
        {
            **_SOLVED,
            **_SIZE,
            "Gradient": text("gradient"),
            "Backward τ": _number_or_dash("backward_tolerance"),
            "Images": _count("n"),
            "Robust accuracy": share("robust_accuracy"),
            "More than with direct": _change("difference"),
            "Cosine with direct, median": _mean("cosine_median", 2),
        },
        topic="gradients",
    ),
    "cost": View(
        "cost",
        "An attack on the cost: function evaluations of clean images, with random noise of size ε, "
        "and attacked, as mean (largest). Increase: attacked over clean, median over images. Exact "
        "95 % intervals.",
        {
            **_SOLVED,
            **_SIZE,
            "Images": _count("n"),
            "Clean": _mean_and_most("nfe_clean"),
            "Noise": _mean_and_most("nfe_noise"),
            "Attacked": _mean_and_most("nfe_attacked"),
            "Increase": _median("ratio"),
            "Images that cost more": share("increased"),
            "Prediction kept": share("kept"),
        },
        topic="defences",
    ),
    "directions": View(
        "attacks",
        "In how many settings attacks succeed clearly more or less often in one place than in "
        "another: by at least 5 points, on every network. A setting is a dataset, attack, norm and "
        "ε; attacks that left out images which cheaper ones had broken do not count.",
        {
            "Compared": text("compared"),
            "Gradients": text("gradients"),
            "Of": text("of"),
            "Settings": _count("settings"),
            "Clearly more often": _count("more"),
            "Clearly less often": _count("less"),
        },
        rows=findings.directions,
        level=Level.NETWORKS,
        topic="attacks",
    ),
    "changes": View(
        "attacks",
        "Success rate at the smallest and at the largest tolerance, and its change in percentage "
        "points. With several networks: means, from the lowest to the highest bound of any of "
        "them. A change is lower or higher where it is at least 5 points and every network shows "
        "it.",
        {
            "Dataset": lambda change: change.condition[0],
            "Attack": lambda change: change.condition[1],
            "Gradient": lambda change: change.condition[2],
            "Norm": lambda change: NORMS[change.condition[3]],
            "ε": lambda change: label(change.condition[4]),
            "Model": text("model"),
            "At the smallest τ": lambda change: _percent(change.before),
            "At the largest τ": lambda change: _percent(change.after),
            "Change": lambda change: _points(change.change),
            "Verdict": lambda change: _DIRECTIONS[change.direction],
        },
        rows=findings.tolerance_changes,
        level=Level.NETWORKS,
        topic="attacks",
        on_page=False,
    ),
    "clean": View(
        "clean",
        "Clean images: accuracy with exact 95 % intervals, and evaluations of the ODE function "
        "per image.",
        {
            **_SOLVED,
            "Images": _count("n"),
            "Accuracy": share("accuracy"),
            "Evaluations, mean": _mean("nfe_mean"),
            "SD": _mean("nfe_sd"),
            "Minimum": _count("nfe_min"),
            "Median": _count("nfe_median"),
            "Maximum": _count("nfe_max"),
        },
        topic="clean",
    ),
    "trajectory_summary": View(
        "trajectory_summary",
        "Perturbations along t: adversarial examples, images on which the attack failed, and "
        "random noise of the same size. Medians and shares with 95 % intervals.",
        {
            **_SOLVED,
            "Attack": text("attack"),
            **_SIZE,
            "Images": lambda row: f"{row.n:,} ({GROUPS[row.group]})",
            "Growth factor": _median("amplification"),
            "Over noise": _median("over_noise"),
            "Fastest at t": _median("peak_t"),
            "Decision changed": share("flipped_rate", "flipped"),
            "At t, head": _median("flip_head"),
            "At t, probe": _median("flip_probe"),
            "Evaluations": _median("nfe"),
            "AUC by evaluations": _median("nfe_auc"),
            "AUC by the first step": _median("first_step_auc"),
        },
        topic="dynamics",
    ),
    "dynamics": View(
        "dynamics",
        "Where the margin of adversarial examples is lost, as shares of the loss with 95 % "
        "intervals (docs/verdict.md). The part is the one that the claim is about: h(0), a "
        "window of the body, or else the window with the largest share. The patched window was "
        "chosen on one half of the images and tested on the other.",
        {
            **{"Dataset": text("dataset"), "Model": text("model"), "τ": text("tau")},
            "Attack": text("attack"),
            **_SIZE,
            "Images": _count("n"),
            "Level": text("level"),
            "Claim": text("claim"),
            "Part": lambda row: _part(row),
            "Its share": share("share"),
            "h(0)": lambda row: _percent((row.start_share, row.start_low, row.start_high)),
            "h(0), noise": lambda row: _rate(row.noise_start),
            "h(0), another image": lambda row: _rate(row.swapped_start),
            "Patched window": lambda row: _window(row.patch_from, row.patch_to),
            "Is": text("patch"),
            "Restored": share("repaired"),
            "By others": lambda row: _rate(row.repair_others),
            "Taken away": share("inserted"),
        },
        rows=lambda dynamics: dynamics.rename(
            columns={"from": "claimed_from", "to": "claimed_to"}
        ).itertuples(),
        topic="dynamics",
    ),
    "attacks": View(
        "attacks",
        "Attacks: success rate among the attacked images and robust accuracy among all, with "
        "exact 95 % intervals. The attacked images are those classified correctly. An expensive "
        "attack skips those that another attack broke within this ε (one that looks for the "
        "smallest perturbation: within the smallest ε). Iterations, perturbations (plain norms) "
        "and evaluations are means over the successes.",
        {
            **_SOLVED,
            "Attack": text("attack"),
            "Gradient": text("gradient"),
            **_SIZE,
            "Attacked": _count("attacked"),
            "Skipped": _count("skipped"),
            "Success rate": share("success_rate", "success"),
            "Robust accuracy": share("robust_accuracy", "robust"),
            "Iterations": _mean("iterations_mean"),
            "L∞": _mean("perturbation_linf_mean", 3),
            "L2": _mean("perturbation_l2_mean", 3),
            "Evaluations, clean": _mean("nfe_clean_mean"),
            "Evaluations, adversarial": _mean("nfe_adversarial_mean"),
        },
        topic="attacks",
        on_page=False,
    ),
}
"""By name, in the order in which they are shown."""

_BY_STAGE = "Time by stage, summed over its jobs, and the largest memory of a job."
_STAGES: Columns = {
    "Rule": lambda stage: stage["rule"],
    "Jobs": lambda stage: f"{stage['jobs']:,}",
    "Time (h:mm:ss)": lambda stage: duration(stage["seconds"]),
}
_COMPUTATION: Columns = {
    "Model computation": lambda stage: duration(stage["computing_seconds"]),
}
_OTHER_COSTS: Columns = {
    "CPU time": lambda stage: duration(stage["cpu_seconds"]),
    "Memory (MB)": lambda stage: _or_dash(stage["max_rss_mb"], ",.0f"),
    "First started (UTC)": lambda stage: _moment(stage["started_utc"]),
}
_JOBS: Columns = {
    "Rule": text("rule"),
    "Dataset": lambda job: _or_dash(job.dataset),
    "Model": lambda job: _or_dash(job.model),
    "Seed": lambda job: _or_dash(job.seed),
    "τ": _number_or_dash("tolerance"),
    "Attack": lambda job: _or_dash(job.attack),
    "Norm": lambda job: "–" if pd.isna(job.norm) else NORMS[job.norm],
    "ε": lambda job: _label(job.epsilon),
    "Seconds": _mean("seconds"),
    "Model computation": _mean("computing_seconds"),
    "CPU seconds": _mean("cpu_seconds"),
    "Memory (MB)": _count("max_rss_mb"),
    "Evaluations, mean": _mean("nfe_mean"),
    "Started (UTC)": lambda job: _moment(job.started_utc),
}


def show(name: str, tables: Mapping[str, pd.DataFrame]) -> Table:
    """Show a table of the run; one that cannot be shown says why.

    Args:
        name: One of `VIEWS`.
        tables: The tables of the experiment by name.
    """
    view = VIEWS[name]
    return attempt(
        f"The table {name}",
        lambda: table_of(view.described, view.rows(tables[view.table]), view.columns),
        lambda why: Table(why, [], []),
    )


def stages(found: Iterable[Any]) -> Table:
    """Show what each stage cost.

    Args:
        found: As in the manifest.
    """
    # Without what the manifests of earlier versions do not have.
    return table_of(_BY_STAGE, found, {**_STAGES, **_OTHER_COSTS})


def of_costs(costs: pd.DataFrame, of_stages: Iterable[Any], outside: float | None) -> list[Table]:
    """Show what the run cost.

    Args:
        costs: Result of `costs.job_costs`.
        of_stages: As in the manifest.
        outside: Result of `costs.share_outside_computation`.
    """
    shown = costs.nlargest(_LONGEST, "seconds")
    which = "The jobs" if len(shown) == len(costs) else f"The {len(shown)} longest jobs"
    caption = (
        f"{which} of {len(costs):,}, the longest first; costs.csv has all of them. Evaluations of "
        "the ODE function are means over images, for attacks over the successes."
    )
    by_stage = _BY_STAGE
    if outside is not None:
        by_stage += (
            f" {percent(outside)} of the time of all jobs was no model computation: the start of "
            "Python, files, tables and figures."
        )
    return [
        table_of(by_stage, of_stages, {**_STAGES, **_COMPUTATION, **_OTHER_COSTS}),
        table_of(caption, shown.itertuples(), _JOBS),
    ]


def table_of(caption: str, rows: Iterable[Any], columns: Columns) -> Table:
    """A table of rows, by the columns that they fill."""
    filled = [[cell(row) for cell in columns.values()] for row in rows]
    return Table(caption, list(columns), filled)


def papers_accuracy(clean: pd.DataFrame, dataset: str) -> Table:
    """Show the paper's accuracy on a dataset and ours."""
    by = ["dataset", "model", "tolerance"]
    ours = over_networks(clean, by, "accuracy", "accuracy")
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
        "Dataset": lambda row: _or_dash(row.dataset),
        "Model": text("model"),
        "τ": _number_or_dash("tolerance"),
        "Paper": lambda row: percent(row.paper),
        "Images": _count("n"),
        "Networks": _count("networks"),
        "This run": lambda row: _percent((row.value, row.low, row.high)),
        "Difference": lambda row: (
            "–" if pd.isna(row.value) else _signed(100 * (row.value - row.paper))
        ),
    }
    return table_of(
        "Accuracy on clean test images: the paper’s and ours, with exact 95 % intervals, and the "
        "difference in percentage points. "
        f"{Level.NETWORKS.sentence}",
        reported.merge(ours.merge(images, on=by), "left", on=["model", "tolerance"]).itertuples(),
        columns,
    )


def _bounded(row: Any) -> Estimate:
    return Estimate(row.value, row.low, row.high)


def _estimate(row: Any, name: str, bounds: str = "") -> Estimate:
    prefix = bounds or name
    return Estimate(*(getattr(row, part) for part in (name, f"{prefix}_low", f"{prefix}_high")))


def _label(number: float) -> str:
    return "–" if pd.isna(number) else label(float(number))


def _window(start: float, end: float) -> str:
    return "–" if pd.isna(start) else f"{start:.2g} to {end:.2g}"


def _part(row: Any) -> str:
    """What the claim on the dynamics is about, of which ``share`` is."""
    if row.claim == BEFORE:
        return "h(0)"
    if row.claim == PINPOINTED:
        return _window(row.claimed_from, row.claimed_to)
    return _window(row.largest_from, row.largest_to)


def _or_dash(value: Any, form: str = "") -> str:
    return "–" if pd.isna(value) else f"{value:{form}}"


def _moment(utc: str | None) -> str:
    """A time in ISO 8601 as a person reads it, to the second."""
    return "–" if pd.isna(utc) else str(utc)[:19].replace("T", " ")


def _percent(estimate: Sequence[float]) -> str:
    value, low, high = (100 * part for part in estimate)
    return "–" if math.isnan(value) else f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _rate(value: float) -> str:
    return "–" if math.isnan(value) else percent(value)


def _number(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "–"
    bounds = "" if math.isnan(estimate.low) else f" ({estimate.low:.2g} to {estimate.high:.2g})"
    return f"{estimate.value:.3g}{bounds}"


def _points(estimate: Estimate) -> str:
    value, low, high = (_signed(100 * part) for part in estimate)
    return "–" if math.isnan(estimate.value) else f"{value} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
