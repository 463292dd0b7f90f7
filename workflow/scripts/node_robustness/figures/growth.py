"""The figure of how fast perturbations grow along the ODE, and why."""

import json
from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    OF_CONDITION,
    condition_menu,
    group_row,
    groups_in,
    means_along_t,
    of_tau,
    quartiles,
    tau_menu,
    time_axis,
    with_menus,
)
from node_robustness.figures.style import GREY, PANEL, Layers, inline

_PARTS = {
    "rate": "whole rate",
    "jacobian": "by the Jacobian",
    "nonlinear": "nonlinear rest",
}
_COLOURS = ["#D55E00", "#0072B2", "#E69F00"]
_DASHES = [[1, 0], [5, 3], [2, 2]]
_SHOWN = ("success", "noise")
_STATISTICS = ["median", "q25", "q75"]


def figure(trajectories: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the rate of growth of perturbations, and what it is made of.

    Args:
        trajectories: Result of `trajectories.trajectory_table`.
        models: All models of the experiment.

    Returns:
        A column a model: the rate d/dt log |delta| with its part by the Jacobian and the nonlinear
        rest, for adversarial examples and for random noise, and below them the bounds by the
        logarithmic norm within which the part by the Jacobian must lie. Medians and quartiles over
        images, averaged over seeds. Lists choose the tolerance, and dataset, attack, norm and
        epsilon.
    """
    grown = trajectories[trajectories.group.isin(_SHOWN) & (trajectories.n > 0)]
    frame, menu = condition_menu(grown)
    parts = pd.concat([_part(frame, name) for name in _PARTS])
    bounds = _bounds(frame[frame.group == "success"])
    sized = {"width": 1.3 * PANEL, "height": 0.7 * PANEL}
    charts: list[Layers] = [
        alt.layer(*_curves())
        .transform_filter(f"{OF_CONDITION} && {of_tau(frame)}")
        .properties(**sized)
        .facet(
            data=inline(parts),
            column=alt.Column("model:N", title=None, sort=list(models)),
            row=group_row(groups_in(frame)),
            spacing=16,
        )
    ]
    if len(bounds):
        charts.append(
            alt.layer(*_between())
            .transform_filter(f"{OF_CONDITION} && {of_tau(frame)}")
            .properties(**sized)
            .facet(
                data=inline(bounds),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title="Bounds by the logarithmic norm, where the attack succeeded",
            )
        )
    return with_menus(
        charts,
        [tau_menu(frame), menu],
        "Growth of perturbations",
        [
            "Rate d/dt log |δ|, median over images and a band between the quartiles of the whole "
            "rate; above zero",
            "the perturbation grows. Without an ODE: from block to block, per unit of depth. Parts "
            "and bounds are of",
            "the first images alone, whose number the tooltip tells.",
        ],
    )


def _part(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of one part of the rate that have a value."""
    own = frame if name == "rate" else frame.assign(n=frame.n_split)
    columns = {f"{name}_{part}": part for part in _STATISTICS}
    means = means_along_t(own.rename(columns=columns), _STATISTICS).dropna(subset="median")
    return means.assign(part=name)


def _bounds(frame: pd.DataFrame) -> pd.DataFrame:
    names = {"log_norm_lower_median": "lower", "log_norm_upper_median": "upper"}
    names["jacobian_median"] = "jacobian"
    return means_along_t(frame.rename(columns=names), list(names.values())).dropna(subset="upper")


def _curves() -> list[alt.Chart]:
    names, legend = list(_PARTS), alt.Legend(labelExpr=f"{json.dumps(_PARTS)}[datum.label]")
    colour = alt.Color(
        "part:N",
        title="Rate",
        sort=names,
        scale=alt.Scale(domain=names, range=_COLOURS),
        legend=legend,
    )
    dash = alt.StrokeDash(
        "part:N",
        title="Rate",
        sort=names,
        scale=alt.Scale(domain=names, range=_DASHES),
        legend=legend,
    )
    base = alt.Chart().encode(x=time_axis())
    y = alt.Y("median:Q", title="d/dt log |δ|")
    return [
        base.transform_filter(alt.FieldEqualPredicate(field="part", equal="rate"))
        .mark_area(opacity=0.13, color=_COLOURS[0])
        .encode(y=alt.Y("q25:Q", title="d/dt log |δ|"), y2="q75:Q"),
        base.mark_rule(color=GREY, strokeWidth=1).encode(
            x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0)
        ),
        base.mark_line().encode(y=y, color=colour, strokeDash=dash),
        base.mark_point(filled=True, opacity=0, size=60).encode(
            y=y,
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("group:N", title="Images"),
                alt.Tooltip("n:Q", title="Number of images"),
                alt.Tooltip("t:Q", title="Time t", format=".2f"),
                alt.Tooltip("part:N", title="Rate"),
                *quartiles("Median", ".3~g"),
            ],
        ),
    ]


def _between() -> list[alt.Chart]:
    base = alt.Chart().encode(x=time_axis())
    title = "d/dt log |δ|"
    return [
        base.mark_area(opacity=0.25, color=GREY).encode(
            y=alt.Y("lower:Q", title=title),
            y2="upper:Q",
            tooltip=[
                alt.Tooltip("t:Q", title="Time t", format=".2f"),
                alt.Tooltip("lower:Q", title="Lower bound", format=".3~g"),
                alt.Tooltip("upper:Q", title="Upper bound", format=".3~g"),
            ],
        ),
        base.mark_line(color=_COLOURS[1], strokeDash=_DASHES[1]).encode(
            y=alt.Y("jacobian:Q", title=title)
        ),
    ]
