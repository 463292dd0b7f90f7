"""The figure of which interval of t is responsible for a misclassification."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    OF_CONDITION,
    condition_menu,
    option_menu,
    over_seeds,
    time_axis,
    with_menus,
)
from node_robustness.figures.style import (
    GREY,
    NO_ODE,
    PANEL,
    Layers,
    inline,
    percent,
    rate_axis,
    tau_colour,
    tau_label,
    tau_labels,
)
from node_robustness.statistics.networks import over_networks

_PATCHES = {
    "repaired": "repair of adversarials",
    "inserted": "insertion into clean images",
}
_WHOSE = {"repaired": "shortest that restores it", "random": "random one of that length"}
_COLOURS = ["#0072B2", "#8a8a8a"]
_BY = ["condition", "model", "tolerance"]
_MATRIX, _WIDEST = 150, 30


def figure(
    responsible: pd.DataFrame,
    trajectories: pd.DataFrame,
    summary: pd.DataFrame,
    models: Sequence[str],
) -> alt.VConcatChart:
    """Draw what becomes of the decision when an interval of t is patched.

    Args:
        responsible: Result of `trajectories.responsible_table`.
        trajectories: Result of `trajectories.trajectory_table`.
        summary: Result of `trajectory_summary.summary_table`.
        models: All models of the experiment.

    Returns:
        For every model and tolerance a heat map of intervals by their start and end, coloured by
        the share of the adversarial examples whose decision changes back (or of the clean images
        whose decision is taken away), averaged over seeds; below, how many adversarial examples
        have each t in their responsible interval, and the share that the responsible interval
        restores with that of a random one of its length. Lists choose the patch, and dataset,
        attack, norm and epsilon.
    """
    frame, menu = condition_menu(responsible[responsible.repaired_of > 0])
    maps = pd.concat([_of_patch(frame, patch) for patch in _PATCHES])
    where = frame[["dataset", "attack", "norm", "epsilon", "condition"]].drop_duplicates()
    covered = trajectories[trajectories.responsible.notna()].merge(where)
    covered = _named(over_seeds(covered, [*_BY, "t"], ["responsible"]))
    rates = pd.concat([_rates(summary.merge(where), whose) for whose in _WHOSE])
    taus = tau_labels(frame)
    mapped = [model for model in models if model in set(maps.model)]
    column = alt.Column("model:N", title=None, sort=list(models))
    charts: list[Layers] = [
        *(
            _map(maps[maps.model == model], first=model == mapped[0])
            .transform_filter(f"{OF_CONDITION} && datum.patch === patch")
            .facet(
                data=inline(maps[maps.model == model]),
                column=alt.Column("panel:N", title=None, sort=[_panel(model, tau) for tau in taus]),
                spacing=16,
            )
            for model in mapped
        ),
        _density(taus)
        .transform_filter(OF_CONDITION)
        .properties(width=1.1 * PANEL, height=0.6 * PANEL)
        .facet(
            data=inline(covered),
            column=column,
            title="Adversarial examples whose responsible interval has t",
        ),
        _compared(taus)
        .transform_filter(OF_CONDITION)
        .properties(width=1.1 * PANEL, height=0.6 * PANEL)
        .facet(
            data=inline(rates),
            column=column,
            title="Adversarial examples restored by the responsible interval, and by a random one",
        )
        .resolve_scale(x="independent", xOffset="independent"),
    ]
    return with_menus(
        charts,
        [option_menu("patch", "Patch", _PATCHES), menu],
        "Responsible intervals",
        [
            "Share of the images whose decision changes, by start and end of the interval that is "
            "patched.",
            "Repair undoes what the interval adds to the perturbation, which restores a decision; "
            "insertion",
            "adds it to the clean image, which takes one away. What came in before the interval "
            "stays.",
        ],
    )


def _of_patch(frame: pd.DataFrame, patch: str) -> pd.DataFrame:
    names = {f"{patch}_rate": "share", f"{patch}_of": "n"}
    means = over_seeds(frame.rename(columns=names), [*_BY, "start", "end"], ["share"])
    means = _named(means).assign(patch=patch)
    panels = [_panel(*where) for where in zip(means.model, means.tau, strict=True)]
    return means.assign(panel=panels)


def _panel(model: str, tau: str) -> str:
    return f"{model}, {tau if tau == NO_ODE else f'τ = {tau}'}"


def _named(means: pd.DataFrame) -> pd.DataFrame:
    return means.assign(tau=means.tolerance.map(tau_label)).drop(columns="tolerance")


def _rates(summary: pd.DataFrame, whose: str) -> pd.DataFrame:
    """The share that an interval restores, with its interval over images and networks."""
    rates = over_networks(summary, _BY, f"{whose}_rate", whose)
    return _named(rates).assign(whose=_WHOSE[whose])


def _map(maps: pd.DataFrame, *, first: bool) -> Layers:
    """Intervals by start and end; the numbers are left out where they would not fit."""
    most = max(maps.groupby(["model", "tau"]).start.nunique(), default=1)
    step = max(_MATRIX / most, 8)
    axis = alt.Axis(format=".2~f", labelAngle=0, labelOverlap=True, grid=False)
    base = alt.Chart().encode(
        x=alt.X("start:O", title="Interval from t =", axis=axis),
        y=alt.Y("end:O", title="to t =", axis=axis, sort="descending"),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("tau:N", title="Tolerance τ"),
            alt.Tooltip("start:Q", title="From t", format=".3~g"),
            alt.Tooltip("end:Q", title="To t", format=".3~g"),
            percent("share", "Decision changed"),
            alt.Tooltip("n:Q", title="Of images"),
        ],
    )
    fields = base.mark_rect(stroke="white", strokeWidth=1).encode(
        color=alt.Color(
            "share:Q",
            title="Decision changed",
            scale=alt.Scale(domain=[0, 1], scheme="viridis"),
            legend=alt.Legend(format="~%", gradientLength=160) if first else None,
        ),
    )
    layers: list[alt.Chart] = [fields]
    if step >= _WIDEST:
        layers.append(
            base.mark_text(fontSize=10).encode(
                text=alt.Text("share:Q", format=".0%"),
                color=alt.condition("datum.share < 0.6", alt.value("white"), alt.value("black")),
            )
        )
    return alt.layer(*layers).properties(width=alt.Step(step), height=alt.Step(step))


def _density(taus: Sequence[str]) -> Layers:
    plain = alt.FieldEqualPredicate(field="tau", equal=NO_ODE)
    y = rate_axis("Adversarials", field="responsible")
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("t:Q", title="Time t", format=".2f"),
        percent("responsible", "Have it in theirs"),
    ]
    layers = []
    for colour, own in (
        (tau_colour([tau for tau in taus if tau != NO_ODE]), ~plain),
        (alt.value(GREY), plain),
    ):
        base = alt.Chart().transform_filter(own).encode(x=time_axis(), y=y, color=colour)
        points = base.mark_point(filled=True, opacity=0, size=60)
        layers += [base.mark_line(), points.encode(tooltip=tooltip)]
    return alt.layer(*layers)


def _compared(taus: Sequence[str]) -> Layers:
    names = list(_WHOSE.values())
    base = alt.Chart().encode(
        x=alt.X("tau:N", title="Tolerance τ", sort=list(taus), axis=alt.Axis(labelAngle=0)),
        xOffset=alt.XOffset("whose:N", sort=names),
        color=alt.Color(
            "whose:N",
            title="Interval",
            sort=names,
            scale=alt.Scale(domain=names, range=_COLOURS),
            legend=alt.Legend(symbolType="circle"),
        ),
    )
    title = "Restored"
    return alt.layer(
        base.mark_rule(size=1.5, opacity=0.6).encode(y=rate_axis(title, field="low"), y2="high:Q"),
        base.mark_point(filled=True, opacity=1, size=60).encode(
            y=rate_axis(title),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("tau:N", title="Tolerance τ"),
                alt.Tooltip("whose:N", title="Interval"),
                percent("value", "Restored"),
                percent("low", "95 % from"),
                percent("high", "95 % to"),
            ],
        ),
    )
