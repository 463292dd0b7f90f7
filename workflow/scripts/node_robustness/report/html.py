"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup

from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.figures.drawing import still, why_not_drawn
from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.failures import attempt, sentences
from node_robustness.report import dynamics, findings
from node_robustness.report import tables as report_tables
from node_robustness.report.paper import CITATION, PRIOR_WORK
from node_robustness.report.reservations import obstacles, reservations
from node_robustness.report.tables import Table


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
        charts: Vega-Lite specifications as `drawing.save_drawing` writes them, by name, or some of
            them; ``costs`` is that of `figures.costs.figure`.
        manifest: Result of `provenance.manifest`.
        paper: Dataset of the paper whose results are shown with ours; None leaves them out.
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
    figures: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for name in (name for name in FIGURES if name in charts):
        if has_rows(name, tables):
            figures[FIGURES[name].section].append(_shown(name, charts[name]))
    datasets = manifest["config"].get("datasets", {})
    page = environment.get_template("template.html").render(
        experiment=experiment,
        datasets=list(dict.fromkeys(clean.dataset)),
        models=list(dict.fromkeys(clean.model)),
        seeds=clean.seed.nunique(),
        sentences=sentences(
            "What single attacks found",
            lambda: findings.cautions(tables["attacks"]),
        ),
        answers=sentences(
            "The answer",
            lambda: [
                *reservations(tables, datasets),
                *obstacles(tables["verdicts"]),
            ],
        ),
        figures=figures,
        dynamics_sentences=sentences(
            "What the trajectories show",
            lambda: dynamics.sentences(
                *(
                    tables[name]
                    for name in ("trajectory_summary", "trajectories", "probes", "dynamics")
                )
            ),
        ),
        not_measured=[
            entry.unmeasured
            for name, entry in FIGURES.items()
            if entry.unmeasured and not has_rows(name, tables)
        ],
        tables=[
            report_tables.show(name, tables)
            for name, view in report_tables.VIEWS.items()
            if view.in_report
        ],
        paper=None
        if paper is None
        else attempt(
            "The paper's results",
            lambda: report_tables.papers_accuracy(clean, paper),
            lambda why: Table(why, [], []),
        ),
        citation=CITATION,
        prior_work=PRIOR_WORK,
        no_paper=[
            name
            for name in dict.fromkeys(clean.dataset)
            if paper is None and datasets.get(name, {}).get("source") == "digits"
        ],
        manifest=manifest,
        cost_tables=attempt(
            "The tables of costs",
            lambda: report_tables.of_costs(tables["costs"], manifest["stages"]),
            lambda why: [Table(why, [], [])],
        ),
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
        vega=Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")),
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _shown(name: str, chart: dict[str, Any]) -> dict[str, Any]:
    """What the page needs of a figure: its chart, or why there is none."""
    entry = FIGURES[name]
    about = {
        "name": name,
        "title": entry.title,
        "caption": entry.caption,
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
