"""The report of an experiment: one HTML page that needs no network and no other file."""

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from node_robustness.figures.catalogue import FIGURES, FigureEntry, has_rows
from node_robustness.figures.drawing import still, why_not_drawn, without_background
from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.failures import attempt, sentences
from node_robustness.provenance.costs import share_outside_computation
from node_robustness.report import drawing_code, evidence, panels, summary
from node_robustness.report import tables as report_tables
from node_robustness.report.leaderboard import leaderboards
from node_robustness.report.limits import limits
from node_robustness.report.paper import CITATION
from node_robustness.report.reservations import reservations
from node_robustness.report.tables import VIEWS, Table
from node_robustness.report.topics import TOPICS, Topic
from node_robustness.tables.frame import records

Made = TypeVar("Made")

_TEMPLATES = "templates"
_MOST_BYTES = 6_000_000
# What a line must not break between a number and what belongs to it.
_UNBROKEN = {" %": "\u00a0%", "τ = ": "τ\u00a0=\u00a0", "ε = ": "ε\u00a0=\u00a0"}


def render_report(
    experiment: str,
    tables: Mapping[str, pd.DataFrame],
    charts: Mapping[str, dict[str, Any]],
    manifest: Mapping[str, Any],
    paper: str | None,
    path: Path | str,
    stills: Mapping[str, str] = MappingProxyType({}),
    code: str | None = None,
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
        stills: The charts as SVG, by name, as far as they are drawn already.
        code: Result of `drawing_code.bundle`, if it is there already.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / _TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["unbroken"] = _unbroken
    figures = {
        name: _figure(name, charts[name], stills.get(name))
        for name in FIGURES
        if name in charts and has_rows(name, tables)
    }
    parts = [_part(key, tables, figures, manifest, paper) for key in TOPICS]
    datasets = manifest["config"].get("datasets", {})
    warnings = sentences("What stands in the way", lambda: reservations(tables, datasets))
    known = sentences("What limits the run", lambda: limits(tables, manifest, paper))
    failed: list[str] = []
    render = partial(
        environment.get_template("page.html").render,
        experiment=experiment,
        asked=attempt("What was asked", lambda: summary.asked(tables), str),
        claims=_or_none(
            "The three answers",
            lambda: [
                _answered(claim, charts, stills)
                for claim in summary.answers(tables, manifest["config"].get("models", {}))
            ],
            failed,
        ),
        grids=_or_none("The grid of verdicts", lambda: panels.grid(tables), failed),
        panels=_or_none("The panels", lambda: panels.panels(tables, charts), failed),
        warnings=failed + warnings,
        limits=[limit for limit in known if limit not in warnings],
        signs=panels.SIGNS,
        parts=[part for part in parts if part.has_something],
        manifest=manifest,
        config=yaml.safe_dump(manifest["config"], sort_keys=False, allow_unicode=True),
        drawing_code=Markup(drawing_code.bundle() if code is None else code),
    )
    without = render(**_stills(figures.values(), 0))
    page = render(**_stills(figures.values(), _MOST_BYTES - len(without.encode())))
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


@dataclass(frozen=True)
class _Figure:
    """What the page has of a figure.

    Attributes:
        name: as in the catalogue, which has its words.
        missing: why there is no chart; empty if there is one.
        spec: its Vega-Lite specification.
        still: the chart as an image, for readers without JavaScript.
    """

    name: str
    missing: str = ""
    spec: Mapping[str, Any] | None = None
    still: str = ""

    @property
    def entry(self) -> FigureEntry:
        """What the catalogue says of it."""
        return FIGURES[self.name]


@dataclass(frozen=True)
class _Part:
    """A topic with all that the page has of it."""

    key: str
    sentences: list[str]
    figures: list[_Figure]
    tables: list[Table]

    @property
    def topic(self) -> Topic:
        """Its words."""
        return TOPICS[self.key]

    @property
    def has_something(self) -> bool:
        """Whether there is anything to unfold."""
        filled = (table for table in self.tables if table.rows or not table.header)
        return self.key == "ran" or any([self.sentences, self.figures, *filled])


def _part(
    key: str,
    tables: Mapping[str, pd.DataFrame],
    figures: Mapping[str, _Figure],
    manifest: Mapping[str, Any],
    paper: str | None,
) -> _Part:
    shown = [
        _table(name, tables) for name, view in VIEWS.items() if view.topic == key and view.in_report
    ]
    if key == "clean" and paper is not None:
        shown.append(
            attempt(
                "The paper's results",
                lambda: report_tables.papers_accuracy(tables["clean"], paper),
                _apology,
            )
        )
    if key == "leaderboard":
        shown += attempt(
            "The leaderboard",
            lambda: leaderboards(tables, manifest["config"].get("models", {})),
            lambda why: [_apology(why)],
        )
    if key == "ran":
        shown += attempt(
            "The tables of costs",
            lambda: report_tables.of_costs(
                tables["costs"], manifest["stages"], share_outside_computation(tables["costs"])
            ),
            lambda why: [_apology(why)],
        )
    return _Part(
        key,
        sentences(
            f"The text of the topic {TOPICS[key].title}",
            lambda: _said(key, tables, manifest, paper),
        ),
        [figure for figure in figures.values() if figure.entry.section == key],
        shown,
    )


def _table(name: str, tables: Mapping[str, pd.DataFrame]) -> Table:
    """A table; the grid leads to the rows of the verdicts where there is no JavaScript."""
    table = report_tables.show(name, tables)
    if name != "verdicts":
        return table
    return replace(table, ids=[panels.setting_id(row) for row in records(tables[name])])


def _said(
    key: str,
    tables: Mapping[str, pd.DataFrame],
    manifest: Mapping[str, Any],
    paper: str | None,
) -> list[str]:
    """The sentences of a topic."""
    found = evidence.said(key, tables)
    if key == "clean":
        found += _about_the_paper(dict.fromkeys(tables["clean"].dataset), manifest, paper)
    return found


def _about_the_paper(
    datasets: Iterable[str], manifest: Mapping[str, Any], paper: str | None
) -> list[str]:
    if paper is not None:
        return [f"The paper's results are from {CITATION}"]
    settings = manifest["config"].get("datasets", {})
    return [
        f"The paper has no results for {name}: it used MNIST and CIFAR-10."
        for name in datasets
        if settings.get(name, {}).get("source") == "digits"
    ]


def _or_none(what: str, make: Callable[[], list[Made]], failed: list[str]) -> list[Made]:
    """Make parts of the page or, if that fails, none, and say why among what failed."""

    def instead(why: str) -> list[Made]:
        failed.append(why)
        return []

    return attempt(what, make, instead)


def _figure(name: str, chart: dict[str, Any], drawn: str | None) -> _Figure:
    missing = why_not_drawn(chart)
    if missing:
        return _Figure(name, missing)
    return attempt(
        f"The figure {name}",
        # The page gives the background, so that dark pages are dark throughout.
        lambda: _Figure(
            name,
            spec={**chart, "background": "transparent"},
            still=_address(still(chart) if drawn is None else drawn),
        ),
        lambda why: _Figure(name, why),
    )


def _address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _stills(figures: Iterable[_Figure], most_bytes: int) -> dict[str, dict[str, Any]]:
    """The stills for which a page has space, by name, and the sizes of those left out."""
    stills: dict[str, str] = {}
    left_out: dict[str, int] = {}
    for figure in figures:
        size = len(figure.still)
        if size <= most_bytes:
            stills[figure.name] = figure.still
            most_bytes -= size
        else:
            left_out[figure.name] = size
    return {"stills": stills, "left_out": left_out}


def _answered(
    claim: summary.Claim, charts: Mapping[str, dict[str, Any]], stills: Mapping[str, str]
) -> dict[str, Any]:
    """A claim with its small figure as markup, so that its text has the colours of the page."""
    chart = charts.get(claim.figure) if claim.figure else None
    if claim.figure is None or chart is None or why_not_drawn(chart):
        return {"claim": claim, "picture": None}
    drawn = stills[claim.figure] if claim.figure in stills else still(chart)
    return {"claim": claim, "picture": _inline(claim.key, without_background(drawn))}


def _inline(key: str, drawn: str) -> Markup:
    # Drawings number what they refer to from the start; the page has several of them.
    return Markup(re.sub(r'(?<= id=")|(?<=url\(#)', f"{key}-", drawn))


def _apology(why: str) -> Table:
    return Table(why, [], [])


def _unbroken(text: str) -> str:
    for broken, whole in _UNBROKEN.items():
        text = text.replace(broken, whole)
    return text
