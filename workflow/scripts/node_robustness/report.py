"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup

from node_robustness import findings, trajectory_findings
from node_robustness.answers import answers
from node_robustness.figures import GROUPS, NORMS, still
from node_robustness.numbers import label
from node_robustness.paper import ACCURACY, CITATION
from node_robustness.statistics import Estimate, across_seeds
from node_robustness.storage import atomic_path
from node_robustness.verdicts import MARGIN
from node_robustness.words import percent


@dataclass(frozen=True)
class _Figure:
    title: str
    caption: str
    table: str
    """The table that the figure is drawn from; the figure is left out if that is empty."""
    missing: str = ""
    """What the report says was not measured if it is left out."""
    section: str = "figures"
    """Where it stands in the page."""


_VERDICT, _DYNAMICS, _COSTS = "verdicts", "dynamics", "costs"
_LONGEST = 200
_FIGURES = {
    _VERDICT: _Figure(
        "The verdict",
        "Holds: no attack leaves clearly less than the paper's protocol, the attacks are strong "
        "enough to tell, and the checks passed. Masked: the strongest attack leaves more than "
        f"{100 * MARGIN:.0f} points less, and nothing shows that the gradients of the paper's are "
        "sound. Undecided: neither is shown. Point at a field for its reason.",
        "verdicts",
        section=_VERDICT,
    ),
    "protocols": _Figure(
        "The paper's protocol and the strongest attack",
        "Robust accuracy under the attack of the paper, and per image under the strongest of all "
        "attacks. The bar between the two is robustness that only that attack's gradients saw.",
        "verdicts",
    ),
    "ladder": _Figure(
        "What each attack leaves",
        "Robust accuracy under every attack alone; what a dear attack left out because a cheaper "
        "one had broken it counts as broken. Random noise is a control: it searches nothing.",
        "ladder",
    ),
    "curves": _Figure(
        "Robust accuracy at every epsilon",
        "Which share of the images has no known adversarial of size ε or smaller.",
        "curves",
    ),
    "audit": _Figure(
        "Where gradients point",
        "How far the gradients that an attack follows agree with each other, and with finite "
        "differences of the network as it is, at each tolerance of the solver.",
        "audit",
        "the gradients (audit)",
    ),
    "matrix": _Figure(
        "Attacked at one tolerance, judged at another",
        "Adversarials made at the tolerance of the row, judged at that of the column. Where they "
        "stay adversarial beside the diagonal, a change of tolerance is no defence.",
        "matrix",
        "adversarials at other tolerances (matrix)",
    ),
    "randomisation": _Figure(
        "A tolerance drawn at random",
        "Accuracy of a network whose tolerance is drawn for every solve, under attacks that know "
        "of it more and more.",
        "randomisation",
        "tolerances drawn at random (randomisation)",
    ),
    "detection": _Figure(
        "Detection by disagreement",
        "Adversarials may be given away by how much predictions at two tolerances differ: here "
        "against an attack that knows nothing of it, and against one that does.",
        "roc",
        "detection by the disagreement of tolerances (detection)",
    ),
    "checks": _Figure(
        "Sanity checks",
        "What robustness can be mistaken for. Point at a field for its figure, its threshold and "
        "what a failure means.",
        "checks",
    ),
    "clean": _Figure(
        "Accuracy and cost on clean images",
        "Test error (left) and evaluations of the ODE function per image (right) at each tolerance "
        "of the solver. A model without an ODE has no tolerance: it is a horizontal line.",
        "clean",
    ),
    "nfe": _Figure(
        "Cost by image",
        "How many evaluations of the ODE function single images take, at each tolerance.",
        "nfe",
    ),
    "success": _Figure(
        "Attack success",
        "Success rate of the attacks, made and evaluated at the same tolerance, among the images "
        "that the model classifies correctly at that tolerance (for a dear attack, those of them "
        "that no cheaper one had broken within the smallest ε). A model without an ODE is a "
        "horizontal line.",
        "attacks",
    ),
    "robust": _Figure(
        "Accuracy under attack",
        "Share of all test images that the model classifies correctly and that stay so "
        "under attack, by the size of the perturbation. At ε = 0 it is the clean accuracy.",
        "attacks",
    ),
    "trajectories": _Figure(
        "How far the paths part",
        "How far the state of a perturbed image lies from that of its clean image while the ODE "
        "runs from t = 0 to 1, or from block to block of a residual body: for adversarials, for "
        "what attacks ended with that failed, and for random noise of the same norm and size. At "
        "loose tolerances a solve may take only a few steps, and the curve between them is the "
        "solver's interpolation.",
        "trajectories",
        section=_DYNAMICS,
    ),
    "growth": _Figure(
        "Where perturbations grow",
        "The rate of growth at every t, the part of it that the Jacobian at the clean state "
        "explains, and the nonlinear rest. The logarithmic norm bounds that part for any "
        "perturbation.",
        "trajectories",
        section=_DYNAMICS,
    ),
    "margins": _Figure(
        "When the decision changes",
        "How clearly the state at each t is read as the clean decision, by the head, which was "
        "trained on states of t = 1 alone, and by linear probes trained at each t.",
        "trajectories",
        section=_DYNAMICS,
    ),
    "responsible": _Figure(
        "Which interval is responsible",
        "What the decision becomes when an adversarial's path is repaired over one interval of t, "
        "and the shortest interval that restores it, beside random ones of its length.",
        "responsible",
        section=_DYNAMICS,
    ),
    "adaptive_cost": _Figure(
        "Does the solver feel the attack?",
        "What images cost an adaptive solver, the size of its steps along t, and how well "
        "adversarials are told from clean images by them alone. A model without an ODE has none.",
        "trajectory_roc",
        section=_DYNAMICS,
    ),
    "images": _Figure(
        "Image by image",
        "One image at a time: choose model, tolerance, attack and image. Pages of all images whose "
        "states were kept lie in figures/images/ beside this report.",
        "trajectory_images",
        section=_DYNAMICS,
    ),
    "examples": _Figure(
        "Adversarial images",
        "The first images on which the attack succeeded: clean image, perturbation and result.",
        "attacks",
    ),
    _COSTS: _Figure(
        "Where the time went",
        "Wall time of the jobs of each stage, added up, by the model that they were for.",
        _COSTS,
        section=_COSTS,
    ),
}


@dataclass(frozen=True)
class _Table:
    caption: str
    header: list[str]
    rows: list[list[str]]


def render_report(
    experiment: str,
    tables: Mapping[str, pd.DataFrame],
    charts: Mapping[str, dict[str, Any]],
    manifest: Mapping[str, Any],
    paper: str | None,
    path: Path | str,
) -> None:
    """Write the report.

    Args:
        experiment: Name of the experiment.
        tables: All tables of the experiment by name, docs/files.md lists them; and as ``costs`` the
            result of `costs.job_costs`.
        charts: Vega-Lite specifications as `figures.save_chart` writes them, by name, or some of
            them; ``costs`` is that of `figures.costs.cost_figure`.
        manifest: Result of `provenance.manifest`.
        paper: Dataset of the paper whose figures stand beside ours; None leaves them out.
        path: Where the page goes.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    clean, attacks = tables["clean"], tables["attacks"]
    figures = [
        {
            "name": name,
            "section": figure.section,
            "title": figure.title,
            "caption": figure.caption,
            # The page gives the background, so that dark pages are dark throughout.
            "spec": {**charts[name], "background": "transparent"},
            "still": _still(charts[name]),
        }
        for name, figure in _FIGURES.items()
        if name in charts and len(tables[figure.table])
    ]
    datasets = manifest["config"].get("datasets", {})
    page = environment.get_template("report_template.html").render(
        experiment=experiment,
        datasets=list(dict.fromkeys(clean.dataset)),
        models=list(dict.fromkeys(clean.model)),
        seeds=clean.seed.nunique(),
        sentences=findings.sentences(clean, attacks),
        answers=answers(tables["verdicts"], tables["gains"], tables["comparisons"]),
        verdict=[figure for figure in figures if figure["section"] == _VERDICT],
        dynamics=[figure for figure in figures if figure["section"] == _DYNAMICS],
        dynamics_sentences=trajectory_findings.sentences(
            *(tables[name] for name in ("trajectory_summary", "trajectories", "probes"))
        ),
        figures=[figure for figure in figures if figure["section"] == "figures"],
        not_measured=[
            figure.missing
            for figure in _FIGURES.values()
            if figure.missing and tables[figure.table].empty
        ],
        tables=[
            *_verdict_tables(tables),
            _changes(attacks),
            _table(
                "Clean images: accuracy with 95 % Wilson intervals, and evaluations of the ODE "
                "function per image.",
                clean.itertuples(),
                _CLEAN,
            ),
            _table(
                "Along the ODE: what became of adversarials, of images on which the attack failed, "
                "and of random noise of the same size; medians with 95 % intervals, shares with "
                "95 % Wilson intervals.",
                tables["trajectory_summary"].itertuples(),
                _TRAJECTORIES,
            ),
            _table(
                "Attacks: success rate among the attacked images (those classified correctly, but "
                "for those skipped by a dear attack because a cheaper one had broken them within "
                "the smallest ε, on which no verdict depends) and robust accuracy among all, with "
                "95 % Wilson intervals; iterations, perturbations "
                "(plain norms) and evaluations are means over the successes.",
                attacks.itertuples(),
                _ATTACKS,
            ),
        ],
        paper=None if paper is None else _paper(clean, paper),
        citation=CITATION,
        no_paper=[
            name
            for name in dict.fromkeys(clean.dataset)
            if paper is None and datasets.get(name, {}).get("source") == "digits"
        ],
        manifest=manifest,
        costs=[figure for figure in figures if figure["section"] == _COSTS],
        cost_tables=[
            _table(
                "Time by stage, summed over its jobs, and the largest memory of a job.",
                manifest["stages"],
                _STAGES,
            ),
            _longest(tables[_COSTS]),
        ],
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _still(chart: dict[str, Any]) -> str:
    """The chart as an image, for readers without JavaScript."""
    return "data:image/svg+xml;base64," + base64.b64encode(still(chart).encode()).decode()


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
    "Least": lambda row: _mean(row.nfe_min, 0),
    "Median": lambda row: _mean(row.nfe_median, 0),
    "Most": lambda row: _mean(row.nfe_max, 0),
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
    "Grew by a factor of": lambda row: _number(_estimate(row, "amplification")),
    "Over noise’s": lambda row: _number(_estimate(row, "over_noise")),
    "Fastest at t": lambda row: _number(_estimate(row, "peak_t")),
    "Left the decision": lambda row: _percent(
        (row.flipped_rate, row.flipped_low, row.flipped_high)
    ),
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
_VERDICTS: Columns = {
    **_CELL,
    "Seeds": lambda row: str(row.seeds),
    "Clean": lambda row: _percent(_estimate(row, "clean")),
    "Paper’s protocol": lambda row: _percent(_estimate(row, "paper")),
    "Strongest attack": lambda row: _percent(_estimate(row, "strongest")),
    "Gap": lambda row: _points(_estimate(row, "gap")),
    "Verdict": lambda row: row.verdict,
    "Because": lambda row: row.reason,
}
_GAINS: Columns = {
    **_CELL,
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
    "Figure": lambda row: "–" if pd.isna(row.figure) else f"{row.figure:.3g}",
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
    "Detected at 5 % false alarms": lambda row: (
        "–" if pd.isna(row.detected) else percent(row.detected)
    ),
}
_STAGES: Columns = {
    "Rule": lambda stage: stage["rule"],
    "Jobs": lambda stage: f"{stage['jobs']:,}",
    "Time (h:mm:ss)": lambda stage: _duration(stage["seconds"]),
    "CPU time": lambda stage: _duration(stage["cpu_seconds"]),
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


def _table(caption: str, rows: Iterable[Any], columns: Columns) -> _Table:
    filled = [[cell(row) for cell in columns.values()] for row in rows]
    return _Table(caption, list(columns), filled)


def _longest(costs: pd.DataFrame) -> _Table:
    shown = costs.nlargest(_LONGEST, "seconds")
    which = "The jobs" if len(shown) == len(costs) else f"The {len(shown)} longest jobs"
    return _table(
        f"{which} of {len(costs):,}, the longest first; costs.csv beside this page has them all. "
        "Evaluations of the ODE function are means over images, for attacks over the adversarials "
        "found.",
        shown.itertuples(),
        _JOBS,
    )


def _verdict_tables(tables: Mapping[str, pd.DataFrame]) -> list[_Table]:
    return [
        _table(
            "Verdicts: robust accuracy under both protocols and the gap in percentage points, with "
            "95 % intervals over images and seeds.",
            tables["verdicts"].itertuples(),
            _VERDICTS,
        ),
        _table(
            "The gain in robust accuracy from a larger tolerance, in percentage points, and how "
            "much of the paper’s gain the strongest attack does not show (hidden).",
            tables["gains"].itertuples(),
            _GAINS,
        ),
        _table(
            "Robust accuracy compared on the same images: models with an ODE with those without, "
            "and tolerances with the one of training; p-values by McNemar’s exact test, adjusted "
            "by Holm.",
            tables["comparisons"].itertuples(),
            _COMPARISONS,
        ),
        _table("Sanity checks.", tables["checks"].itertuples(), _CHECKS),
        _table(
            "Detection of adversarials by the disagreement of tolerances.",
            tables["detection"].itertuples(),
            _DETECTION,
        ),
    ]


def _estimate(row: Any, name: str) -> Estimate:
    return Estimate(*(getattr(row, f"{name}{part}") for part in ("", "_low", "_high")))


def _changes(attacks: pd.DataFrame) -> _Table:
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


def _paper(clean: pd.DataFrame, dataset: str) -> _Table:
    ours = across_seeds(clean, ["dataset", "model", "tolerance"], "accuracy", "accuracy")
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
        "This run": lambda row: _percent((row.value, row.low, row.high)),
        "Difference": lambda row: (
            "–" if pd.isna(row.value) else _signed(100 * (row.value - row.paper))
        ),
    }
    return _table(
        "Accuracy on clean test images: the paper’s and ours, with 95 % intervals, and the "
        "difference in percentage points.",
        reported.merge(ours, "left", on=["model", "tolerance"]).itertuples(),
        columns,
    )


def _tau(tolerance: float) -> str:
    return "–" if pd.isna(tolerance) else label(float(tolerance))


def _or_dash(value: Any) -> str:
    return "–" if pd.isna(value) else str(value)


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


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
