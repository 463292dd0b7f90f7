"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
import json
from collections.abc import Mapping, Sequence
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
from node_robustness.figures import NORMS
from node_robustness.numbers import label
from node_robustness.paper import ACCURACY, CITATION
from node_robustness.statistics import Estimate, across_seeds
from node_robustness.storage import atomic_path


@dataclass(frozen=True)
class _Figure:
    title: str
    caption: str
    table: str
    """The table that the figure is drawn from; the figure is left out if that is empty."""


_FIGURES = {
    "clean": _Figure(
        "Accuracy and cost on clean images",
        "Test error (left) and evaluations of the ODE function an image (right) at each tolerance "
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
        "that the model classifies correctly at that tolerance. A model without an ODE is a "
        "horizontal line.",
        "attacks",
    ),
    "robust": _Figure(
        "Accuracy under attack",
        "Share of all test images that the model classifies correctly and that the attack does "
        "not turn, by the size of the perturbation. At ε = 0 it is the clean accuracy.",
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
        tables: The tables ``clean``, ``nfe``, ``attacks`` and ``trajectories`` of
            `node_robustness.tables`.
        charts: Vega-Lite specifications as `figures.save_chart` writes them: ``clean``, ``nfe``,
            ``success``, ``robust``, ``trajectories``, ``examples``, or some of them.
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
    datasets = manifest["config"].get("datasets", {})
    page = environment.get_template("report_template.html").render(
        experiment=experiment,
        datasets=list(dict.fromkeys(clean.dataset)),
        models=list(dict.fromkeys(clean.model)),
        seeds=clean.seed.nunique(),
        sentences=findings.sentences(clean, attacks),
        figures=[
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
        ],
        tables=[
            table for table in (_changes(attacks), _clean(clean), _attacks(attacks)) if table.rows
        ],
        paper=None if paper is None else _paper(clean, paper),
        citation=CITATION,
        no_paper=[
            name
            for name in dict.fromkeys(clean.dataset)
            if paper is None and datasets.get(name, {}).get("source") == "digits"
        ],
        manifest=manifest,
        stages=_stages(manifest["stages"]),
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
        vega=Markup(vl_convert.javascript_bundle()),  # noqa: S704, the library's own code
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _still(chart: dict[str, Any]) -> str:
    """The chart as an image, for readers without JavaScript."""
    svg = vl_convert.vegalite_to_svg(json.dumps(chart), allowed_base_urls=[])
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _number(value: float, digits: int = 3) -> str:
    return "–" if pd.isna(value) else f"{value:.{digits}g}"


def _tau(tolerance: float) -> str:
    return "–" if pd.isna(tolerance) else label(float(tolerance))


def _percent(estimate: Sequence[float]) -> str:
    value, low, high = estimate
    if pd.isna(value):
        return "–"
    return f"{100 * value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _points(estimate: Estimate) -> str:
    value, low, high = (f"{100 * part:+.1f}".replace("-", "−") for part in estimate)
    return f"{value} ({low} to {high})"


def _mean(value: float, digits: int = 1) -> str:
    return "–" if pd.isna(value) else f"{value:,.{digits}f}"


def _changes(attacks: pd.DataFrame) -> _Table:
    ends = findings.extremes(attacks)
    before, after = (label(end) for end in ends) if ends else ("", "")
    verdicts = {-1: "lower", 0: "no clear change", 1: "higher"}
    return _Table(
        "Success rate at the smallest and at the largest tolerance, and its change in percentage "
        "points, with 95 % intervals.",
        ["Dataset", "Attack", "Gradient", "Norm", "ε", "Model"]
        + [f"At τ = {before}", f"At τ = {after}", "Change", "Verdict"],
        [
            [
                *(dataset, attack, gradient, NORMS[norm], label(epsilon), change.model),
                _percent(change.before),
                _percent(change.after),
                _points(change.change),
                verdicts[change.direction],
            ]
            for change in findings.tolerance_changes(attacks)
            for dataset, attack, gradient, norm, epsilon in [change.condition]
        ],
    )


def _clean(clean: pd.DataFrame) -> _Table:
    return _Table(
        "Clean images: accuracy with 95 % Wilson intervals, and evaluations of the ODE function "
        "an image.",
        ["Dataset", "Model", "Seed", "τ", "Images", "Accuracy"]
        + ["Evaluations, mean", "SD", "Least", "Median", "Most"],
        [
            [
                *(row.dataset, row.model, str(row.seed), _tau(row.tolerance), f"{row.n:,}"),
                _percent((row.accuracy, row.accuracy_low, row.accuracy_high)),
                *(_mean(row.nfe_mean), _mean(row.nfe_sd)),
                *(_mean(value, 0) for value in (row.nfe_min, row.nfe_median, row.nfe_max)),
            ]
            for row in clean.itertuples()
        ],
    )


def _attacks(attacks: pd.DataFrame) -> _Table:
    return _Table(
        "Attacks: success rate among the attacked images (those classified correctly) and robust "
        "accuracy among all, with 95 % Wilson intervals; iterations, perturbations (plain norms) "
        "and evaluations are means over the successes.",
        ["Dataset", "Model", "Seed", "τ", "Attack", "Gradient", "Norm", "ε", "Attacked"]
        + ["Success rate", "Robust accuracy", "Iterations", "L∞", "L2"]
        + ["Evaluations, clean", "adversarial", "Seconds"],
        [
            [
                *(row.dataset, row.model, str(row.seed), _tau(row.tolerance), row.attack),
                *(row.gradient, NORMS[row.norm], label(row.epsilon), f"{row.attacked:,}"),
                _percent((row.success_rate, row.success_low, row.success_high)),
                _percent((row.robust_accuracy, row.robust_low, row.robust_high)),
                _mean(row.iterations_mean),
                *(_number(row.perturbation_linf_mean), _number(row.perturbation_l2_mean)),
                *(_mean(row.nfe_clean_mean), _mean(row.nfe_adversarial_mean)),
                _mean(row.seconds),
            ]
            for row in attacks.itertuples()
        ],
    )


def _paper(clean: pd.DataFrame, dataset: str) -> _Table:
    ours = across_seeds(clean, ["dataset", "model", "tolerance"], "accuracy", "accuracy")
    rows = []
    for model, reported in ACCURACY[dataset].items():
        for tolerance, accuracy in reported.items():
            same = ours.tolerance.isna() if tolerance is None else ours.tolerance == tolerance
            found = ours[(ours.model == model) & same]
            for row in found.itertuples():
                rows.append(
                    [
                        *(row.dataset, model, _tau(row.tolerance), f"{100 * accuracy:.1f} %"),
                        _percent((row.value, row.low, row.high)),
                        f"{100 * (row.value - accuracy):+.1f}".replace("-", "−"),
                    ]
                )
            if found.empty:
                tau = "–" if tolerance is None else label(tolerance)
                rows.append(["–", model, tau, f"{100 * accuracy:.1f} %", "not in this run", "–"])
    return _Table(
        "Accuracy on clean test images: the paper's and ours, with 95 % intervals, and the "
        "difference in percentage points.",
        ["Dataset", "Model", "τ", "Paper", "This run", "Difference"],
        rows,
    )


def _stages(stages: Sequence[Mapping[str, Any]]) -> _Table:
    return _Table(
        "Time by stage, summed over its jobs, and the largest memory of a job.",
        ["Rule", "Jobs", "Time (h:mm:ss)", "Memory (MB)"],
        [
            [
                stage["rule"],
                f"{stage['jobs']:,}",
                str(timedelta(seconds=round(stage["seconds"]))),
                "–" if stage["max_rss_mb"] is None else f"{stage['max_rss_mb']:,.0f}",
            ]
            for stage in stages
        ],
    )
