"""The page of one followed image, alone or chosen among many."""

import json
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    Menu,
    condition_menu,
    tau_menu,
    time_axis,
)
from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    Layers,
    epsilon_label,
    inline,
    styled,
)
from node_robustness.tables.frame import NO_ODE, tau_words, without_tolerance
from node_robustness.tables.image_pages import PERTURBATIONS, Pages

MOST = 60
"""The number of pages that the figure with menus has at most; a page takes some ten kilobytes."""

_PICTURE = 120
_WIDE, _HIGH = 2 * PANEL, 0.85 * PANEL
_PARTS = ["clean", "perturbation", "adversarial", "attack failed", "places"]
_NOTES = [
    "Orange: attack; green: random noise of the same size; blue: clean. Dots: accepted steps; "
    "dashed: at a tight tolerance (distance), by the probe (margin).",
    "Vertical line: from here on the head decides otherwise. Channels along t: how far the attack "
    "moves each of them (white: not at all).",
    "All this is of the image that the attack ended with; places, channels over all t, shares and "
    "patches are of the adversarial example of full strength.",
    "Places, channels: share of the margin that returns when only they are repaired, over all t.",
    "Shares sum to the loss of margin; a negative one gives margin back.",
]
_RUNS = {"clean": "#0072B2", "attack": "#D55E00", "noise": "#009E73"}
_COLOUR = alt.Color(
    "run:N", legend=None, scale=alt.Scale(domain=list(_RUNS), range=list(_RUNS.values()))
)
_PERTURBED = ["#D55E00", "#009E73", "#CC79A7"]
_KINDS = {"repaired": "Repair restores", "inserted": "Insertion misleads"}
_OUTCOMES = {"yes": "#D55E00", "no": "#d9d9d9", "undetermined": "transparent"}
_DISTANCES = {"l2_attack": [1, 0], "l2_noise": [1, 0], "tight": [4, 3]}
_READERS = {"head": [1, 0], "probe": [4, 3]}
# Vega-Lite reads numbers in CSV as such only where they are drawn.
_FILTER = "toNumber(datum.page) === page"


def figure(pages: Pages, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the pages of images, of which menus choose one.

    Args:
        pages: Result of `image_pages.image_pages`.
        models: All models of the experiment.

    Returns:
        One page with lists that choose model, tolerance, dataset with attack, norm and epsilon, and
        image. Of many pages there are `MOST`, of the first seed: the first image of every cell,
        then the second, and so on.
    """
    chosen, total = _chosen(pages), len(pages.images)
    frame, condition = condition_menu(chosen.images)
    first = _first(frame[frame.condition == condition.chosen])
    used = [model for model in models if model in set(frame.model)] or [""]
    indices = sorted(set(frame["index"])) or [0]
    taus = tau_menu(frame)
    menus = [
        Menu("model", "Model", used, used, first.get("model", used[0])),
        replace(taus, chosen=first["tau"]) if first.get("tau") in taus.values else taus,
        condition,
        Menu("image", "Image", indices, list(map(str, indices)), first.get("index", indices[0])),
    ]
    notes = [*_NOTES, *sorted(set(frame.layout) - {""})]
    if total > len(frame):
        notes.append(f"{len(frame)} of {total} pages; figures/images/ has all of them.")
    chart = alt.vconcat(
        *_rows(chosen, _FILTER),
        data=inline(chosen.curves),
        spacing=14,
        params=[
            *(menu.parameter for menu in menus),
            alt.param(name="page", expr=_page_of(frame)).param,
        ],
    ).resolve_scale(color="independent")
    headlines = {
        str(row["page"]): f"{row['model']}, {tau_words(row['tau'])}. {row['headline']}"
        for row in frame.to_dict("records")
    }
    headline = f"{json.dumps(headlines, ensure_ascii=False)}[toString(page)]"
    missing = "Nothing was kept of this image here" + ("" if total == 0 else ": choose another one")
    return styled(chart, alt.ExprRef(f"isValid(page) ? {headline} : {json.dumps(missing)}"), notes)


def single_pages(pages: Pages) -> Iterator[tuple[str, Callable[[], alt.VConcatChart]]]:
    """Draw every page as a separate figure.

    Args:
        pages: Result of `image_pages.image_pages`.

    Yields:
        The page's name, with slashes, and what makes its chart.
    """
    for row in pages.images.to_dict("records"):
        yield row["name"], partial(_single_page, pages, row)


def _single_page(pages: Pages, row: Mapping[Hashable, Any]) -> alt.VConcatChart:
    where = [
        *(row["dataset"], row["model"], f"seed {row['seed']}"),
        *(tau_words(row["tau"]), row["attack"]),
        *(NORMS[row["norm"]], epsilon_label(row["epsilon"])),
    ]
    own = pages.only([row["page"]])
    chart = alt.vconcat(*_rows(own, "true"), data=inline(own.curves), spacing=14)
    chart = chart.resolve_scale(color="independent")
    notes = [", ".join(where), *_NOTES, *filter(None, [row["layout"]])]
    return styled(chart, row["headline"], notes)


def _first(frame: pd.DataFrame) -> dict[str, Any]:
    """The page to begin with: if possible an adversarial example of an ODE that was patched."""
    doubts = [frame.unpatched != "", frame.tau == NO_ODE, frame.group != "success"]
    order = pd.concat(doubts, axis=1).sum(axis=1)
    pages = frame.loc[order.sort_values(kind="stable").index].to_dict("records")
    return {str(name): value for name, value in pages[0].items()} if pages else {}


def _chosen(pages: Pages) -> Pages:
    """At most `MOST` pages of the first seed: one of every cell, then another, and so on."""
    images = pages.images
    own = images[images.seed == images.seed.min()]
    where = ["dataset", "model", "tau", "attack", "norm", "epsilon"]
    turn = own.groupby(where, sort=False).cumcount()
    order = turn.sort_values(kind="stable").index[:MOST]
    return pages.only(own.page[order])


def _page_of(frame: pd.DataFrame) -> str:
    """An expression: the page that the menus choose; of some models no tolerance is chosen."""
    others = frame[frame.model.isin(without_tolerance(frame))]
    only = json.dumps(dict(zip(others.model, others.tau, strict=True)), ensure_ascii=False)
    pages = {
        f"{row['model']}|{row['tau']}|{row['condition']}|{row['index']}": row["page"]
        for row in frame.to_dict("records")
    }
    known, where = json.dumps(pages, ensure_ascii=False), "'|' + condition + '|' + image"
    keys = f"model + '|' + tau + {where}", f"model + '|' + {only}[model] + {where}"
    return " || ".join(f"{known}[{key}]" for key in keys)


def _rows(pages: Pages, chosen: str) -> list[Layers | alt.HConcatChart]:
    """The rows of a page: pictures; curves along t; channels; shares and patches."""
    images = pages.images.drop(columns=["headline", "layout"])
    marks = inline(images[["page", "flip_head"]])
    missing = inline(images[["page", "undefined", "unpatched"]])
    patches = inline(pages.patches)
    return [
        _pictures().transform_filter(chosen).properties(data=inline(pages.pictures)),
        alt.hconcat(
            _distance(pages, marks, chosen).properties(title="Distance |h_adv(t) − h(t)|"),
            _margin(marks, chosen).properties(title="Margin of the clean decision"),
            spacing=40,
        ).resolve_scale(strokeDash="independent"),
        alt.hconcat(
            _states(images, chosen).properties(title="Channels along t"),
            _channels(pages.channels, chosen).properties(title="Channels, over all t"),
            spacing=40,
        ),
        alt.hconcat(
            _shares(pages.shares, missing, chosen).properties(title="Shares in the loss of margin"),
            *(
                _patches(patches, missing, kind, chosen).properties(title=title)
                for kind, title in _KINDS.items()
            ),
            spacing=40,
        ).resolve_scale(color="independent"),
    ]


def _pictures() -> Layers:
    base = alt.Chart().encode(x=alt.X("part:N", sort=_PARTS, axis=None))
    texts = base.mark_text(fill="currentColor", limit=_PICTURE + 20)
    return alt.layer(
        texts.encode(y=alt.value(6), text="part:N"),
        base.mark_image(width=_PICTURE, height=_PICTURE).encode(
            y=alt.value(18 + _PICTURE / 2), url="url:N"
        ),
        texts.encode(y=alt.value(_PICTURE + 30), text="caption:N"),
    ).properties(width=alt.Step(_PICTURE + 24), height=_PICTURE + 36)


def _flip(marks: alt.InlineData, chosen: str) -> alt.Chart:
    """A line at the flip time."""
    line: alt.Chart = (
        alt.Chart(marks)
        .transform_filter(chosen)
        .transform_filter("isValid(datum.flip_head)")
        .mark_rule(strokeDash=[2, 2], color="#D55E00")
        .encode(x=alt.X("flip_head:Q"))
    )
    return line


def _distance(pages: Pages, marks: alt.InlineData, chosen: str) -> Layers:
    title, names = "L2 distance", list(_DISTANCES)
    lines = (
        alt.Chart()
        .transform_filter(chosen)
        .transform_fold(list(_DISTANCES), ["curve", "distance"])
        .transform_filter("isValid(datum.distance)")
        .transform_calculate(run="datum.curve === 'l2_noise' ? 'noise' : 'attack'")
        .mark_line()
    )
    dash = alt.Scale(domain=names, range=list(_DISTANCES.values()))
    return alt.layer(
        _flip(marks, chosen),
        lines.encode(
            x=time_axis(),
            y=alt.Y("distance:Q", title=title),
            color=_COLOUR,
            strokeDash=alt.StrokeDash("curve:N", scale=dash, legend=None),
        ),
        alt.Chart(inline(pages.nodes))
        .transform_filter(chosen)
        .mark_point(filled=True, opacity=1, size=40, color=_RUNS["attack"])
        .encode(x=time_axis(), y=alt.Y("l2:Q", title=title)),
    ).properties(width=_WIDE, height=_HIGH)


def _margin(marks: alt.InlineData, chosen: str) -> Layers:
    curves: list[str | alt.FieldName] = [f"{reader}_{run}" for reader in _READERS for run in _RUNS]
    each = (
        alt.Chart()
        .transform_filter(chosen)
        .transform_fold(curves, ["curve", "margin"])
        .transform_calculate(reader="split(datum.curve, '_')[0]", run="split(datum.curve, '_')[1]")
    )
    return alt.layer(
        _flip(marks, chosen),
        alt.Chart()
        .mark_rule(color=GREY, strokeWidth=1)
        .encode(x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0)),
        each.mark_line().encode(
            x=time_axis(),
            y=alt.Y("margin:Q", title="Margin"),
            color=_COLOUR,
            strokeDash=alt.StrokeDash(
                "reader:N",
                scale=alt.Scale(domain=list(_READERS), range=list(_READERS.values())),
                legend=None,
            ),
        ),
    ).properties(width=_WIDE, height=_HIGH)


def _states(images: pd.DataFrame, chosen: str) -> Layers:
    frame = inline(images[["page", "states", "channels", "most"]])
    base = (
        alt.Chart(frame).transform_filter(chosen).transform_calculate(middle="datum.channels / 2")
    )
    scale = alt.Scale(reverse=True, nice=False, zero=True)
    title = "Channel"
    return alt.layer(
        base.mark_image(width=_WIDE, height=_HIGH, aspect=False).encode(
            x=alt.value(_WIDE / 2), y=alt.Y("middle:Q", title=title, scale=scale), url="states:N"
        ),
        base.transform_calculate(scale="'full red: ' + format(toNumber(datum.most), '.2~g')")
        .mark_text(align="right", baseline="bottom", fill="currentColor")
        .encode(x=alt.value(_WIDE), y=alt.value(-4), text="scale:N"),
        # Nothing to be seen: it spans the axes, from 0 to the number of channels.
        base.transform_calculate(t="0")
        .mark_rule(strokeOpacity=0)
        .encode(x=time_axis(), x2=alt.datum(1), y=alt.Y("channels:Q", title=title, scale=scale)),
    ).properties(width=_WIDE, height=_HIGH)


def _channels(channels: pd.DataFrame, chosen: str) -> Layers:
    base = alt.Chart(inline(channels)).transform_filter(chosen)
    base = base.transform_calculate(end="datum.channel + 1")
    return alt.layer(
        base.mark_rect().encode(
            x=alt.X(
                "share:Q",
                title="Share of the margin restored",
                axis=alt.Axis(format="~%", tickCount=6),
            ),
            x2=alt.datum(0),
            y=alt.Y("channel:Q", title="Channel", scale=alt.Scale(reverse=True, nice=False)),
            y2="end:Q",
            color=alt.condition("datum.share < 0", alt.value("#2166ac"), alt.value("#b2182b")),
            tooltip=[
                alt.Tooltip("channel:Q", title="Channel"),
                alt.Tooltip("share:Q", title="Restored", format=".1%"),
            ],
        )
    ).properties(width=_WIDE, height=_HIGH)


def _shares(shares: pd.DataFrame, missing: alt.InlineData, chosen: str) -> Layers:
    bars = (
        alt.Chart(inline(shares))
        .transform_filter(chosen)
        .transform_fold(list(PERTURBATIONS), ["perturbation", "share"])
        .transform_filter("isValid(datum.share)")
        .transform_calculate(name=f"{json.dumps(PERTURBATIONS)}[datum.perturbation]")
    )
    names = list(PERTURBATIONS.values())
    return alt.layer(
        bars.mark_bar().encode(
            x=alt.X("player:N", title="Part", sort=None, axis=alt.Axis(labelAngle=-45)),
            xOffset=alt.XOffset("name:N", sort=names),
            y=alt.Y("share:Q", title="Share (logits)"),
            color=alt.Color(
                "name:N",
                scale=alt.Scale(domain=names, range=_PERTURBED),
                legend=alt.Legend(title=None),
            ),
            tooltip=[
                alt.Tooltip("player:N", title="Part"),
                alt.Tooltip("name:N", title="Perturbation"),
                alt.Tooltip("share:Q", title="Share", format=".3~g"),
            ],
        ),
        _words(missing, "undefined", chosen),
    ).properties(width=_WIDE, height=_HIGH)


def _patches(patches: alt.InlineData, missing: alt.InlineData, kind: str, chosen: str) -> Layers:
    """Whether a patch of the interval that starts at x and is y long changes the decision."""
    outcome = f"['undetermined', 'no', 'yes'][toNumber(datum.{kind}) + 1]"
    axis = alt.Axis(values=[0, 0.5, 1])
    scale = alt.Scale(domain=[0, 1], nice=False)
    fields = (
        alt.Chart(patches)
        .transform_filter(chosen)
        .transform_calculate(
            outcome=outcome, right="datum.start + datum.part", below="datum.length - datum.part"
        )
        .mark_rect(stroke=GREY, strokeWidth=0.5)
    )
    return alt.layer(
        fields.encode(
            x=alt.X("start:Q", title="Start of the interval", scale=scale, axis=axis),
            x2="right:Q",
            y=alt.Y("below:Q", title="Length", scale=scale, axis=axis),
            y2="length:Q",
            color=alt.Color(
                "outcome:N",
                scale=alt.Scale(domain=list(_OUTCOMES), range=list(_OUTCOMES.values())),
                legend=alt.Legend(title=None),
            ),
            tooltip=[
                alt.Tooltip("start:Q", title="Start", format=".3~g"),
                alt.Tooltip("length:Q", title="Length", format=".3~g"),
                alt.Tooltip("outcome:N", title="Changes the decision"),
            ],
        ),
        _words(missing, "unpatched", chosen),
    ).properties(width=0.42 * _WIDE, height=_HIGH)


def _words(missing: alt.InlineData, field: str, chosen: str) -> alt.Chart:
    """What a chart lacks, in words above it."""
    words: alt.Chart = (
        alt.Chart(missing)
        .transform_filter(chosen)
        .mark_text(align="right", baseline="bottom", fill="currentColor")
        .encode(x=alt.value("width"), y=alt.value(-3), text=f"{field}:N")
    )
    return words
