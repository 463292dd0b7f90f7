"""Figures of an experiment: pure functions from tables to Altair charts.

All charts share one look and take the text colour of the page that shows them. A model keeps its
colour through all figures: every function takes all models of the experiment, in one order.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from node_robustness.numbers import label
from node_robustness.statistics import across_seeds
from node_robustness.storage import atomic_path
from node_robustness.tables import natural

# Okabe and Ito's palette, which the colour-blind can tell apart, without its black and its yellow,
# which vanish on a dark and on a light page.
_MODEL_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_GREY = "#8a8a8a"
_DASHES = [[1, 0], [5, 3], [2, 2], [8, 3, 2, 3]]
_SHAPES = ["circle", "square", "triangle-up", "diamond"]

NORMS = {"linf": "L∞ norm", "l2": "L2 norm", "l2_rms": "L2 norm, root mean square"}
"""The names of the norms for people."""

_DISTANCES = {
    "l2": "L2 distance",
    "relative_l2": "Relative L2 distance",
    "cosine": "Cosine similarity",
}
_PARTS = ["clean", "perturbation", "adversarial"]
_NO_ODE = "no ODE"

_PANEL = 200
_IMAGE = 84

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


def clean_figure(clean: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw test error and solver cost against the tolerance.

    Args:
        clean: Result of `tables.clean_table`.
        models: All models of the experiment.

    Returns:
        For every dataset two panels: error (points with 95 % intervals; a model without an ODE is
        a horizontal line with a band) and function evaluations an image (mean, and a band of one
        standard deviation over images).
    """
    error = _with_seeds(clean, ["dataset", "model", "tolerance"], "error", "error")
    rows = []
    for dataset in _in_order(clean.dataset):
        own = error[error.dataset == dataset]
        panels = [
            _against_tolerance(own, "Test error", ["model"], models, whole=False)
            .properties(data=_inline(own), width=1.5 * _PANEL, height=_PANEL)
            .properties(title=f"{dataset}: error on clean images")
        ]
        solved = clean[(clean.dataset == dataset) & clean.nfe_mean.notna()]
        if len(solved):
            cost = _cost(solved, models).properties(width=1.5 * _PANEL, height=_PANEL)
            panels.append(cost.properties(title=f"{dataset}: cost of solving the ODE"))
        rows.append(alt.hconcat(*panels, spacing=84, bounds="flush"))
    return _styled(
        alt.vconcat(*rows),
        "Clean error and solver cost at each tolerance",
        [_intervals(clean), "Cost: mean and one standard deviation over images (band)."],
    )


def _cost(clean: pd.DataFrame, models: Sequence[str]) -> Layers:
    by = ["model", "tolerance"]
    nfe = clean.groupby(by, sort=False, as_index=False)[["nfe_mean", "nfe_sd"]].mean()
    nfe = nfe.assign(low=(nfe.nfe_mean - nfe.nfe_sd).clip(lower=0), high=nfe.nfe_mean + nfe.nfe_sd)
    title = "Function evaluations per image"
    base = alt.Chart(_inline(nfe)).encode(
        x=_tolerance_axis(nfe.tolerance), color=_model_colour(models)
    )
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tolerance:Q", title="Tolerance τ", format="~g"),
        alt.Tooltip("nfe_mean:Q", title="Mean evaluations", format=".1f"),
        alt.Tooltip("nfe_sd:Q", title="Standard deviation", format=".1f"),
    ]
    return alt.layer(
        base.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line().encode(y=alt.Y("nfe_mean:Q", title=title)),
        base.mark_point(filled=True, size=45, opacity=1).encode(y="nfe_mean:Q", tooltip=tooltip),
    )


def nfe_figure(nfe: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw how many function evaluations images take.

    Args:
        nfe: Result of `tables.nfe_table`.
        models: All models of the experiment.

    Returns:
        For every dataset a grid of histograms: models from left to right, tolerances downwards,
        share of the images (of all seeds together) on the vertical axis.
    """
    by = ["dataset", "model", "tolerance"]
    counts = nfe.groupby([*by, "nfe"], sort=False, as_index=False)["images"].sum()
    counts["share"] = counts.images / counts.groupby(by)["images"].transform("sum")
    counts["panel"] = [f"τ = {_tau(tolerance)}" for tolerance in counts.tolerance]
    rows = []
    for dataset in _in_order(nfe.dataset):
        own = counts[counts.dataset == dataset]
        values = sorted(set(own.nfe))
        # Solvers spend a fixed number of evaluations a step, so the values come in equal strides.
        stride = min((b - a for a, b in pairwise(values)), default=1)
        own = own.assign(left=own.nfe - 0.4 * stride, right=own.nfe + 0.4 * stride)
        bars = (
            alt.Chart()
            .mark_rect()
            .encode(
                x=alt.X(
                    "left:Q",
                    title="Function evaluations per image",
                    scale=alt.Scale(zero=False),
                    axis=alt.Axis(grid=False),
                ),
                x2="right:Q",
                y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=2)),
                y2=alt.datum(0),
                color=_model_colour(models, legend=False),
                tooltip=[
                    alt.Tooltip("model:N", title="Model"),
                    alt.Tooltip("tolerance:Q", title="Tolerance τ", format="~g"),
                    alt.Tooltip("nfe:Q", title="Evaluations"),
                    alt.Tooltip("images:Q", title="Images"),
                    alt.Tooltip("share:Q", title="Share", format=".1%"),
                ],
            )
            .properties(width=1.5 * _PANEL, height=44)
        )
        rows.append(
            bars.facet(
                data=_inline(own),
                column=alt.Column("model:N", title=None, sort=list(models)),
                row=alt.Row(
                    "panel:N",
                    title=None,
                    sort=[f"τ = {tau}" for tau in _taus(own)],
                    header=alt.Header(labelAngle=0, labelAlign="left"),
                ),
                spacing=12,
                title=dataset,
            )
        )
    return _styled(
        alt.vconcat(*rows),
        "Function evaluations that images take",
        ["Share of the images by number of evaluations of the ODE function, for each tolerance τ."],
    )


def success_figure(attacks: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the attack success rate against the tolerance.

    Args:
        attacks: Result of `tables.attack_table`.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset and norm, one panel an epsilon; dashes and shapes tell
        attacks apart; a model without an ODE is a horizontal line with a band.
    """
    by = ["dataset", "norm", "epsilon", "attack", "model", "tolerance"]
    rates = _with_seeds(attacks, by, "success_rate", "success")
    rates["panel"] = rates.epsilon.map(_epsilon)
    rows = []
    for dataset, norm in _groups(attacks):
        own = rates[(rates.dataset == dataset) & (rates.norm == norm)]
        panels = [_epsilon(epsilon) for epsilon in sorted(set(own.epsilon))]
        rows.append(
            _against_tolerance(own, "Attack success rate", ["model", "attack"], models)
            .properties(width=_PANEL, height=_PANEL)
            .facet(
                data=_inline(own),
                column=alt.Column("panel:N", title=None, sort=panels),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return _styled(
        alt.vconcat(*rows),
        "Attack success rate at each tolerance",
        [
            "Share of the correctly classified images on which the attack succeeded.",
            _intervals(attacks),
        ],
    )


def robust_figure(
    attacks: pd.DataFrame, clean: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw robust accuracy against the size of the perturbation.

    Args:
        attacks: Result of `tables.attack_table`.
        clean: Result of `tables.clean_table`; its accuracy is the value at epsilon 0.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset, norm and attack, one panel a model, one line a
        tolerance.
    """
    own_name = {"accuracy": "robust_accuracy"} | {
        f"accuracy_{bound}": f"robust_{bound}" for bound in ("low", "high")
    }
    under = attacks[["dataset", "norm", "attack"]].drop_duplicates()
    unperturbed = clean.rename(columns=own_name).merge(under, on="dataset").assign(epsilon=0.0)
    both = pd.concat([unperturbed, attacks], ignore_index=True)
    by = ["dataset", "norm", "model", "attack", "tolerance", "epsilon"]
    rates = _with_seeds(both, by, "robust_accuracy", "robust")
    rows = []
    for dataset, norm in _groups(attacks):
        for attack in _in_order(attacks.attack):
            own = rates[
                (rates.dataset == dataset) & (rates.norm == norm) & (rates.attack == attack)
            ]
            solved = own.tolerance.notna()
            x = alt.X(
                "epsilon:Q",
                title="Largest perturbation ε",
                axis=alt.Axis(
                    values=sorted(set(own.epsilon)), format=".3~g", grid=False, labelFlush=False
                ),
            )
            y = _rate_axis("Robust accuracy")
            layers = [
                *_curves(own[solved], x, y, _tau_colour(_taus(own[solved])), ["tau"]),
                *_curves(own[~solved], x, y, alt.value(_GREY), ["tau"]),
            ]
            rows.append(
                alt.layer(*layers)
                .properties(width=_PANEL, height=_PANEL)
                .facet(
                    data=_inline(own),
                    column=alt.Column("model:N", title=None, sort=list(models)),
                    title=f"{dataset}: {NORMS[norm]}, {attack}",
                )
            )
    notes = ["Share of all images that are still classified correctly.", _intervals(attacks)]
    if attacks.tolerance.isna().any():
        notes.append("Grey: a model without an ODE, which has no tolerance.")
    return _styled(alt.vconcat(*rows), "Accuracy under attack", notes)


def trajectory_figure(trajectories: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the distance between clean and adversarial states along the ODE.

    Args:
        trajectories: Result of `tables.trajectory_table`.
        models: All models of the experiment.

    Returns:
        A row of panels for each distance, one panel a model, one line a tolerance: the mean over
        the successful images and a band between the quartiles, both averaged over seeds. A
        drop-down list chooses dataset, attack, norm and epsilon; still images show the first
        dataset, attack and norm of the table at the largest epsilon. Without any successful
        image the panels are empty.
    """
    where = ["dataset", "attack", "norm", "epsilon"]
    columns = [f"{d}_{s}" for d in _DISTANCES for s in ("mean", "q25", "q75")]
    means = (
        trajectories[trajectories.n > 0]
        .groupby([*where, "model", "tolerance", "t"], sort=False, as_index=False)
        .agg({**dict.fromkeys(columns, "mean"), "n": "sum"})
    )
    means["tau"] = means.tolerance.map(_tau)
    conditions = means[where].drop_duplicates()
    # Stable, so that datasets, attacks and epsilons stay in the order of the table.
    conditions = conditions.sort_values(
        "norm", kind="stable", key=lambda norm: norm.map(list(NORMS).index), ignore_index=True
    )
    conditions["condition"] = conditions.index
    names = [
        f"{dataset}, {attack}, {NORMS[norm]}, {_epsilon(epsilon)}"
        for dataset, attack, norm, epsilon in conditions[where].itertuples(index=False)
    ] or ["no successful attack"]
    largest = conditions.groupby(where[:3], sort=False).condition.last()
    menu = alt.param(
        name="condition",
        value=int(next(iter(largest), 0)),
        bind=alt.binding_select(options=list(range(len(names))), labels=names, name="Show: "),
    )
    means = means.merge(conditions, on=where)
    data = _inline(means[["condition", "model", "tau", "t", "n", *columns]])
    listed = json.dumps(names, ensure_ascii=False)
    return _styled(
        # Not by add_params, which would hand the menu to each facet, and fails on layers inside.
        alt.vconcat(
            *(_distance(name, data, _taus(means), models) for name in _DISTANCES),
            spacing=12,
            params=[menu.param],
        ),
        alt.ExprRef(f"'Distance of adversarial from clean states: ' + {listed}[condition]"),
        ["Mean over the images on which the attack succeeded; band between the quartiles."],
    )


def _distance(
    distance: str, data: alt.InlineData, taus: Sequence[str], models: Sequence[str]
) -> alt.FacetChart:
    title = _DISTANCES[distance]
    first, *_, last = _DISTANCES
    base = alt.Chart().encode(
        x=alt.X(
            "t:Q",
            title="Time t of the ODE" if distance == last else None,
            scale=alt.Scale(domain=[0, 1], nice=False),
            axis=alt.Axis(tickCount=5, format="~g", labelFlush=False),
        ),
        color=_tau_colour(taus),
    )
    scale = alt.Scale(zero=distance != "cosine")
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("t:Q", title="Time t", format=".2f"),
        alt.Tooltip(f"{distance}_mean:Q", title=title, format=".3~g"),
        alt.Tooltip(f"{distance}_q25:Q", title="Lower quartile", format=".3~g"),
        alt.Tooltip(f"{distance}_q75:Q", title="Upper quartile", format=".3~g"),
        alt.Tooltip("n:Q", title="Images"),
    ]
    lines = alt.layer(
        base.mark_area(opacity=0.13).encode(
            y=alt.Y(f"{distance}_q25:Q", title=title, scale=scale), y2=f"{distance}_q75:Q"
        ),
        base.mark_line().encode(y=f"{distance}_mean:Q"),
        # Thin lines are hard to hit with a pointer: invisible points carry the tooltips.
        base.mark_point(filled=True, opacity=0, size=60).encode(
            y=f"{distance}_mean:Q", tooltip=tooltip
        ),
    )
    return (
        lines.transform_filter("datum.condition === condition")
        .properties(width=1.5 * _PANEL, height=0.75 * _PANEL)
        .facet(
            data=data,
            column=alt.Column(
                "model:N",
                title=None,
                sort=list(models),
                header=alt.Header(labels=distance == first),
            ),
        )
    )


def example_figure(examples: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Show clean image, perturbation and adversarial image side by side.

    Args:
        examples: Result of `examples.example_table`.
        models: All models of the experiment.

    Returns:
        A block of images for each model, one row an image: the predicted class below clean and
        adversarial image, the scale below the perturbation.
    """
    cells = examples[["attack", "norm", "epsilon"]].drop_duplicates().itertuples(index=False)
    attacks = [f"{attack}, {NORMS[norm]}, {_epsilon(epsilon)}" for attack, norm, epsilon in cells]
    keys = ["dataset", "model", "tolerance", "row"]
    long = pd.concat(
        examples[keys].assign(part=part, url=examples[part], caption=examples[f"{part}_caption"])
        for part in _PARTS
    )
    rows = []
    for dataset in _in_order(long.dataset):
        own = long[long.dataset == dataset]
        blocks = [_block(own[own.model == model]) for model in models if model in set(own.model)]
        rows.append(alt.hconcat(*blocks, spacing=28))
    return _styled(
        alt.vconcat(*rows),
        "Images on which the attack succeeded",
        [
            *attacks,
            "Below the images: the predicted class; below the perturbation: its full colours.",
            "Perturbation: blue lowers, red raises intensity (colour images: grey is no change).",
        ],
    )


def _block(pictures: pd.DataFrame) -> Layers:
    base = alt.Chart(_inline(pictures)).encode(
        x=alt.X(
            "part:N",
            sort=_PARTS,
            title=None,
            axis=alt.Axis(orient="top", domain=False, ticks=False, labelAngle=0),
        ),
        y=alt.Y("row:O", axis=None),
    )
    dataset, model, tolerance = pictures[["dataset", "model", "tolerance"]].iloc[0]
    tau = _NO_ODE if pd.isna(tolerance) else f"τ = {_tau(tolerance)}"
    return alt.layer(
        base.mark_image(width=_IMAGE, height=_IMAGE, yOffset=-8).encode(url="url:N"),
        base.mark_text(dy=_IMAGE / 2 + 2, fill="currentColor").encode(text="caption:N"),
        title=f"{dataset}: {model}, {tau}",
    ).properties(width=alt.Step(_IMAGE + 12), height=alt.Step(_IMAGE + 32))


def save_chart(
    chart: alt.VConcatChart, svg: Path | str, png: Path | str, json_path: Path | str
) -> None:
    """Write a chart as SVG, as PNG (two pixels a point) and as Vega-Lite JSON.

    Args:
        chart: The chart.
        svg: Where the SVG goes.
        png: Where the PNG goes.
        json_path: Where the specification, with its data, goes.
    """
    text = json.dumps(chart.to_dict(), ensure_ascii=False, sort_keys=True)
    with atomic_path(json_path) as path:
        path.write_text(text, encoding="utf-8")
    drawing = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    with atomic_path(svg) as path:
        path.write_text(drawing, encoding="utf-8")
    with atomic_path(png) as path:
        path.write_bytes(vl_convert.svg_to_png(drawing, scale=2))


def _in_order(values: Iterable[str]) -> list[str]:
    return sorted(set(values), key=natural)


def _groups(attacks: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of dataset and norm, norms in the order of their names for people."""
    pairs = set(zip(attacks.dataset, attacks.norm, strict=True))
    return sorted(pairs, key=lambda pair: (natural(pair[0]), list(NORMS).index(pair[1])))


def _tau(tolerance: float) -> str:
    return _NO_ODE if pd.isna(tolerance) else label(float(tolerance))


def _taus(frame: pd.DataFrame) -> list[str]:
    return [_tau(tolerance) for tolerance in sorted(set(frame.tolerance))]


def _epsilon(epsilon: float) -> str:
    return f"ε = {label(float(epsilon))}"


def _inline(frame: pd.DataFrame) -> alt.InlineData:
    """The frame as CSV inside the chart: a third of the size of JSON records."""
    numbers = [str(name) for name in frame.select_dtypes("number").columns]
    return alt.InlineData(
        values=frame.to_csv(index=False, float_format="%.5g", lineterminator="\n"),
        format=alt.CsvDataFormat(type="csv", parse=dict.fromkeys(numbers, "number")),
    )


def _with_seeds(frame: pd.DataFrame, by: list[str], rate: str, prefix: str) -> pd.DataFrame:
    """Rates over seeds, and below them, where a group has several, each seed's own."""
    summary = across_seeds(frame, by, rate, prefix)
    several = frame.merge(summary.loc[summary.seeds > 1, by], on=by).rename(columns={rate: "value"})
    rates = pd.concat([summary, several[[*by, "seed", "value"]]], ignore_index=True)
    return rates.assign(tau=rates.tolerance.map(_tau), seed=rates.get("seed", float("nan")))


def _intervals(frame: pd.DataFrame) -> str:
    if frame.seed.nunique() > 1:
        return "Bars and bands: means over seeds with 95 % t intervals; small points: each seed."
    return "Bars and bands: 95 % Wilson intervals over images."


def _model_colour(models: Sequence[str], *, legend: bool = True) -> alt.Color:
    colours = [_MODEL_COLOURS[i % len(_MODEL_COLOURS)] for i in range(len(models))]
    return alt.Color(
        "model:N",
        title="Model",
        scale=alt.Scale(domain=list(models), range=colours),
        legend=alt.Legend(symbolType="circle") if legend else None,
    )


def _tau_colour(taus: Sequence[str]) -> alt.Color:
    return alt.Color(
        "tau:N",
        title="Tolerance τ",
        sort=list(taus),
        scale=alt.Scale(
            domain=list(taus), scheme=alt.SchemeParams(name="viridis", extent=[0.12, 0.88])
        ),
        legend=alt.Legend(symbolType="circle"),
    )


def _tolerance_axis(tolerances: pd.Series) -> alt.X:
    known = sorted(set(tolerances.dropna()))
    return alt.X(
        "tolerance:Q",
        title="Solver tolerance τ",
        scale=alt.Scale(type="log", domain=[known[0] / 2, known[-1] * 2], nice=False)
        if known
        else alt.Undefined,
        axis=alt.Axis(values=known, format="~g", grid=False),
    )


def _rate_axis(title: str, *, field: str = "value", whole: bool = True) -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title=title,
        axis=alt.Axis(format="~%", tickCount=5),
        scale=alt.Scale(domain=[0, 1]) if whole else alt.Undefined,
    )


def _against_tolerance(
    rates: pd.DataFrame, title: str, series: list[str], models: Sequence[str], *, whole: bool = True
) -> Layers:
    """Curves for the models with an ODE, horizontal lines with bands for the others."""
    x, colour = _tolerance_axis(rates.tolerance), _model_colour(models)
    y = _rate_axis(title, whole=whole)
    level = (
        alt.Chart()
        .transform_filter("!isValid(datum.tolerance) && !isValid(datum.seed)")
        .encode(color=colour)
    )
    return alt.layer(
        level.mark_rect(opacity=0.13).encode(
            y=_rate_axis(title, field="low", whole=whole), y2="high:Q"
        ),
        level.mark_rule(size=2).encode(y=y, tooltip=_tooltip(rates), **_dash(rates)),
        *_curves(rates[rates.tolerance.notna()], x, y, colour, series),
    )


def _curves(
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
    return _in_order(rates.attack) if "attack" in rates else []


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
        alt.Tooltip("seeds:Q", title="Seeds"),
    ]


def _styled(
    chart: alt.VConcatChart, title: str | alt.ExprRef, notes: list[str]
) -> alt.VConcatChart:
    """Add the title, notes below it, and the common look."""
    chart = chart.copy(deep=False)
    chart.title = alt.TitleParams(text=title, subtitle=notes, fontSize=16, subtitleFontSize=12)
    chart.background = "white"
    chart.padding = 12
    chart.config = alt.Config.from_dict(_LOOK)
    return chart
