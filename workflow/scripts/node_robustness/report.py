"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
import json
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

from node_robustness import findings
from node_robustness.answers import answers
from node_robustness.figures import NORMS, still
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


_VERDICT = "verdicts"
_FIGURES = {
    _VERDICT: _Figure(
        "The verdict",
        "Holds: no attack leaves clearly less than the paper's protocol, the attacks are strong "
        "enough to tell, and the checks passed. Masked: the strongest attack leaves at least "
        f"{100 * MARGIN:.0f} points less. Undecided: neither is shown. Point at a field for its "
        "reason.",
        "verdicts",
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
        "Along the ODE",
        "How far the state of an adversarial image lies from that of its clean image while the "
        "ODE runs from t = 0 to 1. At loose tolerances a solve may take only a few steps, and "
        "the curve between them is the solver's interpolation.",
        "trajectories",
    ),
    "examples": _Figure(
        "Adversarial images",
        "The first images on which the attack succeeded: clean image, perturbation and result.",
        "attacks",
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
        tables: All tables of the experiment by name; docs/files.md lists them.
        charts: Vega-Lite specifications as `figures.save_chart` writes them, by name, or some of
            them.
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
        verdict=[figure for figure in figures if figure["name"] == _VERDICT],
        figures=[figure for figure in figures if figure["name"] != _VERDICT],
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
        stages=_table(
            "Time by stage, summed over its jobs, and the largest memory of a job.",
            manifest["stages"],
            _STAGES,
        ),
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
    "Time (h:mm:ss)": lambda stage: str(timedelta(seconds=round(stage["seconds"]))),
    "Memory (MB)": lambda stage: _mean(stage["max_rss_mb"], 0),
}


def _table(caption: str, rows: Iterable[Any], columns: Columns) -> _Table:
    filled = [[cell(row) for cell in columns.values()] for row in rows]
    return _Table(caption, list(columns), filled)


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


def _mean(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}"


def _percent(estimate: Sequence[float]) -> str:
    value, low, high = (100 * part for part in estimate)
    return "–" if math.isnan(value) else f"{value:.1f} % ({low:.1f} to {high:.1f})"


def _points(estimate: Estimate) -> str:
    value, low, high = (_signed(100 * part) for part in estimate)
    return "–" if math.isnan(estimate.value) else f"{value} ({low} to {high})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
