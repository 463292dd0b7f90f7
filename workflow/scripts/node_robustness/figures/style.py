"""The look that all figures share, and the parts that they are made of."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import altair as alt
import pandas as pd

from node_robustness.numbers import label
from node_robustness.statistics.networks import over_networks
from node_robustness.tables.frame import NO_ODE, OWN, natural
from node_robustness.verdict.protocols import CONTROL

# Okabe and Ito's palette, which the colour-blind can tell apart, without its black and its yellow,
# which vanish on a dark and on a light page.
MODEL_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
GREY = "#8a8a8a"
# Blue and vermilion differ for the colour-blind too, and every field has a symbol as well.
GOOD, BAD, OPEN, PAPER = "#0072B2", "#D55E00", "#6b6b6b", "#E69F00"
_DASHES = [[1, 0], [5, 3], [2, 2], [8, 3, 2, 3]]
_SHAPES = ["circle", "square", "triangle-up", "diamond"]

NORMS = {"linf": "L∞ norm", "l2": "L2 norm", "l2_rms": "L2 norm, root mean square"}
"""The names of the norms for people."""

SHORT_NORMS = {"linf": "L∞", "l2": "L2", "l2_rms": "RMS L2"}
"""The same where there is little space."""

PROTOCOLS = {"strongest": "strongest attack", "paper": "paper's", CONTROL: "random noise"}
"""The protocols of `protocols.curve_table`, and their names for people."""

PROCEDURES = {"paper": "paper's procedure", "strongest": "strongest attack"}
"""What robust accuracy is measured by, and its names for people."""

PANEL = 200
LEVEL = alt.Axis(labelAngle=0)

_TEXT = {"labelColor": "currentColor", "titleColor": "currentColor"}
_LOOK = {
    "font": "Helvetica, Arial, Liberation Sans, sans-serif",
    "title": {
        "anchor": "start",
        "color": "currentColor",
        "subtitleColor": "currentColor",
        "fontSize": 13,
        "fontWeight": 600,
        "offset": 10,
        "subtitlePadding": 4,
    },
    "axis": {
        **_TEXT,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "currentColor",
        "gridOpacity": 0.12,
        "domainColor": "currentColor",
        "domainOpacity": 0.5,
        "tickColor": "currentColor",
        "tickOpacity": 0.5,
    },
    "legend": {
        **_TEXT,
        "orient": "top",
        "direction": "horizontal",
        "titleFontWeight": 600,
        "symbolSize": 90,
        "symbolOpacity": 1,
    },
    "header": {**_TEXT, "labelFontSize": 12, "labelFontWeight": 600},
    "view": {"stroke": None},
    "line": {"strokeWidth": 2},
    # A label for each of thousands of marks helps no listener; the tables hold the numbers.
    "mark": {"aria": False},
}

# What Altair says that a layered chart is, though it only becomes a facet with `facet=`.
Layers = alt.LayerChart | alt.FacetChart


def in_order(values: Iterable[str]) -> list[str]:
    """The values without repetition, in natural order."""
    return sorted(set(values), key=natural)


def groups_of(attacks: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of dataset and norm, norms in the order of their names for people."""
    pairs = set(zip(attacks.dataset, attacks.norm, strict=True))
    return sorted(pairs, key=lambda pair: (natural(pair[0]), list(NORMS).index(pair[1])))


def tau_labels(frame: pd.DataFrame) -> list[str]:
    """The tolerances of a frame for people, ascending, then own settings, then no ODE."""
    known = dict(zip(frame.tau, frame.tolerance, strict=True))
    return sorted(known, key=lambda tau: (natural(known[tau]), tau == NO_ODE))


def levels_note(frame: pd.DataFrame) -> list[str]:
    """What the horizontal lines of a figure are, where some are own settings."""
    if OWN not in set(frame.tau):
        return []
    return ["Horizontal lines: own settings, and models without an ODE."]


def epsilon_label(epsilon: float) -> str:
    """An epsilon for people."""
    return f"ε = {label(float(epsilon))}"


def inline(frame: pd.DataFrame) -> alt.InlineData:
    """The frame as CSV inside the chart: a third of the size of JSON records."""
    numbers = [str(name) for name in frame.select_dtypes("number").columns]
    return alt.InlineData(
        values=frame.to_csv(index=False, float_format="%.5g", lineterminator="\n"),
        format=alt.CsvDataFormat(type="csv", parse=dict.fromkeys(numbers, "number")),
    )


def with_seeds(frame: pd.DataFrame, by: list[str], rate: str, prefix: str) -> pd.DataFrame:
    """Rates over networks, and below them, where a group has several, the rate of each network."""
    summary = over_networks(frame, by, rate, prefix)
    several = frame.merge(summary.loc[summary.networks > 1, by], on=by)
    several = several.rename(columns={rate: "value"})
    rates = pd.concat([summary, several[[*by, "seed", "value"]]], ignore_index=True)
    return rates.assign(seed=rates.get("seed", float("nan")))


def intervals_note(frame: pd.DataFrame) -> str:
    """What the bars and bands of a figure are."""
    networks = frame.groupby(["dataset", "model"]).seed.nunique()
    if networks.max() == 1:
        return "Bars and bands: exact 95 % intervals over images, for this network."
    several = f"these {networks.max()}" if networks.nunique() == 1 else "the"
    return (
        f"Means over {several} networks (small points); bars and bands: from the lowest to the "
        "highest bound of their exact 95 % intervals over images."
    )


def model_colour(models: Sequence[str], *, legend: bool = True) -> alt.Color:
    """The colour of a model, the same in every figure."""
    colours = [MODEL_COLOURS[i % len(MODEL_COLOURS)] for i in range(len(models))]
    return alt.Color(
        "model:N",
        title="Model",
        scale=alt.Scale(domain=list(models), range=colours),
        legend=alt.Legend(symbolType="circle") if legend else None,
    )


def tau_colour(taus: Sequence[str]) -> alt.Color:
    """The colour of a tolerance."""
    return alt.Color(
        "tau:N",
        title="Tolerance τ",
        sort=list(taus),
        scale=alt.Scale(
            domain=list(taus), scheme=alt.SchemeParams(name="viridis", extent=[0.12, 0.88])
        ),
        legend=alt.Legend(symbolType="circle"),
    )


def tolerance_axis(tolerances: pd.Series, *, most: int = 100) -> alt.X:
    """A logarithmic axis with ticks at the tolerances, at `most` of them, the last included."""
    known = sorted(set(tolerances.dropna()))
    ticks = known[:: -max(1, math.ceil(len(known) / most))][::-1]
    return alt.X(
        "tolerance:Q",
        title="Solver tolerance τ",
        scale=alt.Scale(type="log", domain=[known[0] / 2, known[-1] * 2], nice=False)
        if known
        else alt.Undefined,
        axis=alt.Axis(values=ticks, format="~g", grid=False),
    )


def rate_axis(title: str, *, field: str = "value", whole: bool = True, above: float = 0) -> alt.Y:
    """An axis of percentages; `above` 100 % it may have space for words."""
    ticks = {"values": [0, 0.25, 0.5, 0.75, 1]} if above else {"tickCount": 5}
    return alt.Y(
        f"{field}:Q",
        title=title,
        axis=alt.Axis(format="~%", **ticks),
        scale=alt.Scale(domain=[0, 1 + above], nice=False) if whole else alt.Undefined,
    )


def against_tolerance(
    rates: pd.DataFrame, title: str, series: list[str], models: Sequence[str], *, whole: bool = True
) -> Layers:
    """Curves along the tolerance, and horizontal lines with bands where there is none."""
    x, colour = tolerance_axis(rates.tolerance), model_colour(models)
    y = rate_axis(title, whole=whole)
    layers: list[alt.Chart] = []
    # A layer without data has no scale.
    if rates.tolerance.isna().any() or rates.empty:
        level = (
            alt.Chart()
            .transform_filter("!isValid(datum.tolerance) && !isValid(datum.seed)")
            .encode(color=colour)
        )
        layers = [
            level.mark_rect(opacity=0.13).encode(
                y=rate_axis(title, field="low", whole=whole), y2="high:Q"
            ),
            level.mark_rule(size=2).encode(y=y, tooltip=_tooltip(rates), **_dash(rates)),
        ]
    return alt.layer(*layers, *curves(rates[rates.tolerance.notna()], x, y, colour, series))


def curves(
    rates: pd.DataFrame, x: alt.X, y: alt.Y, colour: Any, series: list[str]
) -> list[alt.Chart]:
    """Line, points and error bars of each series, a few pixels apart so that none hides another."""
    names = list(rates[series].drop_duplicates().itertuples(index=False, name=None))
    layers: list[alt.Chart] = []
    for position, name in enumerate(names):
        shift = 3 * (position - (len(names) - 1) / 2)
        base = alt.Chart().encode(x=x, y=y, color=colour)
        for column, value in zip(series, name, strict=True):
            base = base.transform_filter(alt.FieldEqualPredicate(field=column, equal=value))
        summary = base.transform_filter("!isValid(datum.seed)")
        layers += [
            summary.mark_rule(xOffset=shift, size=1.5, opacity=0.55).encode(y="low:Q", y2="high:Q"),
            summary.mark_line(xOffset=shift).encode(**_dash(rates)),
            summary.mark_point(xOffset=shift, filled=True, size=45, opacity=1).encode(
                tooltip=_tooltip(rates), **_shape(rates)
            ),
        ]
        if rates.seed.notna().any():
            layers.append(
                base.transform_filter("isValid(datum.seed)")
                .mark_point(xOffset=shift, filled=True, size=14, opacity=0.5)
                .encode(tooltip=_tooltip(rates, seed=True), **_shape(rates))
            )
    return layers


def _attack_range(rates: pd.DataFrame) -> list[str]:
    return in_order(rates.attack) if "attack" in rates else []


def _dash(rates: pd.DataFrame) -> dict[str, Any]:
    attacks = _attack_range(rates)
    if len(attacks) < 2:
        return {}
    scale = alt.Scale(domain=attacks, range=_DASHES)
    return {"strokeDash": alt.StrokeDash("attack:N", title="Attack", scale=scale)}


def _shape(rates: pd.DataFrame) -> dict[str, Any]:
    attacks = _attack_range(rates)
    if len(attacks) < 2:
        return {}
    scale = alt.Scale(domain=attacks, range=_SHAPES)
    return {"shape": alt.Shape("attack:N", title="Attack", scale=scale)}


def _tooltip(rates: pd.DataFrame, *, seed: bool = False) -> list[alt.Tooltip]:
    fields = [alt.Tooltip("model:N", title="Model"), alt.Tooltip("tau:N", title="Tolerance τ")]
    if "attack" in rates:
        fields += [
            alt.Tooltip("attack:N", title="Attack"),
            alt.Tooltip("epsilon:Q", title="ε", format=".4~g"),
        ]
    fields.append(alt.Tooltip("value:Q", title="Rate", format=".1%"))
    if seed:
        return [*fields, alt.Tooltip("seed:Q", title="Seed")]
    return [
        *fields,
        alt.Tooltip("low:Q", title="95 % from", format=".1%"),
        alt.Tooltip("high:Q", title="95 % to", format=".1%"),
        alt.Tooltip("networks:Q", title="Networks"),
    ]


@cache
def _look() -> alt.Config:
    """The look as Altair has it; to make it takes as long as a simple chart."""
    look: alt.Config = alt.Config.from_dict(_LOOK)
    return look


def styled(chart: alt.VConcatChart, title: str | alt.ExprRef, notes: list[str]) -> alt.VConcatChart:
    """Add the title, notes below it, and the common look."""
    chart = chart.copy(deep=False)
    chart.title = alt.TitleParams(text=title, subtitle=notes, fontSize=16, subtitleFontSize=12)
    chart.background = "white"
    chart.padding = 12
    chart.config = _look()
    return chart


SMALL_WIDTH, SMALL_HEIGHT = 340, 200
"""The most pixels that a figure of the first screen takes, with its axes."""


def small_panel(
    chart: Layers, title: str, *, width: int, height: int, limit: int = SMALL_WIDTH - 75
) -> Layers:
    """A panel of a figure of the first screen, below a line of words of at most `limit` pixels."""
    words = alt.TitleParams(
        text=title, fontSize=11, fontWeight="normal", offset=4, frame="group", limit=limit
    )
    return chart.properties(width=width, height=height, title=words)


def small(panels: Sequence[Layers], key: str = "") -> alt.VConcatChart:
    """A figure of the first screen: its panels side by side below a key, which is no legend."""
    figure = alt.vconcat(*([alt.hconcat(*panels, spacing=8)] if panels else []))
    if key:
        figure.title = alt.TitleParams(text=key, fontSize=11, fontWeight="normal", offset=6)
    figure.background = "white"
    # Words at the right end are wider in some browsers than where stills are drawn.
    figure.padding = {"left": 2, "top": 2, "bottom": 2, "right": 14}
    figure.config = _look()
    return figure


def apart(values: Sequence[float], least: float) -> list[float]:
    """Move rates up or down until any two of them differ by at least this, in the same order.

    So that words next to lines that end close to each other can be read. They stay in [0, 1], and
    are as far apart as there is space for so many.
    """
    least = min(least, 1 / max(len(values) - 1, 1))
    order = sorted(range(len(values)), key=values.__getitem__)
    groups: list[list[int]] = []

    def middle(group: Sequence[int]) -> float:
        half = min(least * (len(group) - 1) / 2, 0.5)
        return min(max(sum(values[index] for index in group) / len(group), half), 1 - half)

    for index in order:
        groups.append([index])
        while len(groups) > 1:
            below, above = groups[-2:]
            free = middle(above) - middle(below) - least * (len(above) + len(below)) / 2
            if free >= 0:
                break
            groups[-2:] = [below + above]
    moved = dict.fromkeys(order, 0.0)
    for group in groups:
        for place, index in enumerate(group):
            moved[index] = middle(group) + least * (place - (len(group) - 1) / 2)
    return [moved[index] for index in range(len(values))]


def heat_map(
    data: pd.DataFrame, x: alt.X, y: alt.Y, value: str, title: str, tooltip: list[alt.Tooltip]
) -> Layers:
    """A table of rates in [0, 1], as colours and as numbers of per cent.

    Args:
        data: One row a field; only what decides on the size is read from it.
        x: Columns of the table.
        y: Rows of the table.
        value: Column of the rate; empty fields are left white.
        title: What the rate is.
        tooltip: What a field tells.

    Returns:
        A layered chart that still needs its data.
    """
    base = alt.Chart().transform_filter(f"isValid(datum.{value})").encode(x=x, y=y, tooltip=tooltip)
    fields = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color(
            f"{value}:Q",
            title=title,
            scale=alt.Scale(domain=[0, 1], scheme="viridis"),
            legend=alt.Legend(format="~%", gradientLength=160),
        ),
    )
    # Viridis is dark below a half and light above.
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text(f"{value}:Q", format=".0%"),
        color=alt.condition(f"datum.{value} < 0.6", alt.value("white"), alt.value("black")),
    )
    wide, high = data[_field(x)].nunique(), data[_field(y)].nunique()
    return alt.layer(fields, numbers).properties(width=56 * wide, height=26 * high)


def _field(channel: alt.X | alt.Y) -> str:
    return str(channel.shorthand).split(":")[0]


def percent(field: str, title: str) -> alt.Tooltip:
    """A tooltip of a rate."""
    return alt.Tooltip(f"{field}:Q", title=title, format=".1%")


def by_papers_method(attacks: pd.DataFrame, suite: pd.DataFrame) -> pd.DataFrame:
    """Choose the attacks whose rates are drawn as curves.

    Args:
        attacks: Result of `evaluation.attack_table`.
        suite: Result of `protocols.suite_table`, which has all of them.

    Returns:
        The rows of the basic iterative method with its various gradients; all rows if none is.
    """
    own = attacks[attacks.attack.isin(suite.attack[suite.method == "bim"])]
    return own if len(own) else attacks


def roc_curves(lines: alt.Chart, colour: alt.Color, dashes: alt.StrokeDash) -> Layers:
    """ROC curves of a detector of adversarial examples, one a seed, and the diagonal of chance."""
    x = alt.X(
        "false_positive_rate:Q",
        title="Clean images suspected",
        axis=alt.Axis(format="~%", tickCount=3),
        scale=alt.Scale(domain=[0, 1]),
    )
    chance = alt.Chart().mark_rule(color=GREY, strokeWidth=1)
    return alt.layer(
        chance.encode(x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0), y2=alt.datum(1)),
        lines.mark_line().encode(
            x=x,
            y=rate_axis("Adversarial examples detected", field="true_positive_rate"),
            color=colour,
            strokeDash=dashes,
            detail="seed:N",
            order="true_positive_rate:Q",
        ),
    )
