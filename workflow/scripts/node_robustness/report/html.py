"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup

from node_robustness.figures.drawing import still, why_not_drawn
from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.failures import attempt, sentences
from node_robustness.report import dynamics, findings
from node_robustness.report import tables as report_tables
from node_robustness.report.answers import answers
from node_robustness.report.paper import CITATION
from node_robustness.report.reservations import reservations
from node_robustness.report.tables import Table
from node_robustness.verdict.verdicts import MARGIN


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
        charts: Vega-Lite specifications as `figures.save_drawing` writes them, by name, or some of
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
    clean = tables["clean"]
    figures = [
        _shown(name, figure, charts[name])
        for name, figure in _FIGURES.items()
        if name in charts and len(tables[figure.table])
    ]
    datasets = manifest["config"].get("datasets", {})
    page = environment.get_template("template.html").render(
        experiment=experiment,
        datasets=list(dict.fromkeys(clean.dataset)),
        models=list(dict.fromkeys(clean.model)),
        seeds=clean.seed.nunique(),
        sentences=sentences(
            "What single attacks found",
            lambda: findings.sentences(clean, tables["attacks"]),
        ),
        answers=sentences(
            "The answer",
            lambda: [
                *reservations(tables, datasets),
                *answers(tables["verdicts"], tables["gains"], tables["comparisons"]),
            ],
        ),
        verdict=[figure for figure in figures if figure["section"] == _VERDICT],
        dynamics=[figure for figure in figures if figure["section"] == _DYNAMICS],
        dynamics_sentences=sentences(
            "What the paths of states say",
            lambda: dynamics.sentences(
                *(tables[name] for name in ("trajectory_summary", "trajectories", "probes"))
            ),
        ),
        figures=[figure for figure in figures if figure["section"] == "figures"],
        not_measured=[
            figure.missing
            for figure in _FIGURES.values()
            if figure.missing and tables[figure.table].empty
        ],
        tables=list(report_tables.of_experiment(tables).values()),
        paper=None
        if paper is None
        else attempt(
            "The paper's figures",
            lambda: report_tables.papers_accuracy(clean, paper),
            lambda why: Table(why, [], []),
        ),
        citation=CITATION,
        no_paper=[
            name
            for name in dict.fromkeys(clean.dataset)
            if paper is None and datasets.get(name, {}).get("source") == "digits"
        ],
        manifest=manifest,
        costs=[figure for figure in figures if figure["section"] == _COSTS],
        cost_tables=attempt(
            "The tables of costs",
            lambda: report_tables.of_costs(tables[_COSTS], manifest["stages"]),
            lambda why: [Table(why, [], [])],
        ),
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shown(name: str, figure: _Figure, chart: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of a figure: its chart, or why there is none."""
    about = {
        "name": name,
        "section": figure.section,
        "title": figure.title,
        "caption": figure.caption,
        "missing": why_not_drawn(chart),
    }
    if about["missing"]:
        return about
    return attempt(
        f"The figure {name}",
        # The page gives the background, so that dark pages are dark throughout.
        lambda: {
            **about,
            "spec": {**chart, "background": "transparent"},
            "still": _still(chart),
        },
        lambda why: {**about, "missing": why},
    )


def _still(chart: dict[str, Any]) -> str:
    """The chart as an image, for readers without JavaScript."""
    return "data:image/svg+xml;base64," + base64.b64encode(still(chart).encode()).decode()
