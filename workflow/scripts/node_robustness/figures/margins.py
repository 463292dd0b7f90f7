"""The figure of when the decision changes along the ODE."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    OF_CONDITION,
    condition_menu,
    group_colour,
    group_dash,
    groups_in,
    means_along_t,
    of_tau,
    quartiles,
    tau_menu,
    time_axis,
    with_menus,
)
from node_robustness.figures.style import GREY, PANEL, Layers, inline, rate_axis

_READERS = {"head": "read by the head", "probe": "read by a linear probe of each t"}
_DASHES = [[1, 0], [5, 3]]
_STATISTICS = ["median", "q25", "q75"]


def figure(
    trajectories: pd.DataFrame, probes: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw the margin of the clean decision along the ODE, and when decisions leave it.

    Args:
        trajectories: Result of `trajectories.trajectory_table`.
        probes: Result of `trajectories.probe_table`.
        models: All models of the experiment.

    Returns:
        A column a model: the margin of the clean run's class over the next one as the head and as
        linear probes read the state, for clean images, adversarial examples, what a failed attack
        ended with and random noise, medians and quartiles over images, averaged over seeds; below,
        the share of the images whose decision has left the clean one for good, and the accuracy of
        head and probes on clean validation images. Lists choose the tolerance, and dataset, attack,
        norm and epsilon.
    """
    frame, menu = condition_menu(trajectories[trajectories.n > 0])
    groups = groups_in(frame)
    chosen = f"{OF_CONDITION} && {of_tau(frame)}"
    column = alt.Column("model:N", title=None, sort=list(models))
    charts: list[Layers] = []
    for reader, title in _READERS.items():
        margins = _read(frame, reader)
        if len(margins):
            charts.append(
                alt.layer(*_margins(groups))
                .transform_filter(chosen)
                .properties(width=1.3 * PANEL, height=0.75 * PANEL)
                .facet(data=inline(margins), column=column, title=f"Margin, {title}")
            )
    flips = pd.concat(_flipped(frame[frame.group != "clean"], reader) for reader in _READERS)
    charts.append(
        _shares(groups)
        .transform_filter(chosen)
        .properties(width=1.3 * PANEL, height=0.5 * PANEL)
        .facet(
            data=inline(flips.dropna(subset="share")),
            column=column,
            row=alt.Row("reader:N", title=None, sort=list(_READERS)),
            spacing=16,
            title="Decisions that have left the clean one for good",
        )
    )
    if len(probes):
        quality = _quality(probes, frame)
        charts.append(
            _accuracy()
            .transform_filter(chosen)
            .properties(width=1.3 * PANEL, height=0.5 * PANEL)
            .facet(
                data=inline(quality),
                column=column,
                title="Accuracy on clean validation images: head (solid), probes (dashed)",
            )
        )
    return with_menus(
        charts,
        [tau_menu(frame), menu],
        "The decision along the ODE",
        [
            "Margin: logit of the clean decision less the largest other; below zero the decision "
            "differs.",
            "Median over images, band between the quartiles. The head was trained on states of "
            "t = 1 alone,",
            "a probe is a linear classifier of the states at one t.",
        ],
    )


def _read(frame: pd.DataFrame, reader: str) -> pd.DataFrame:
    columns = {f"margin_{reader}_{part}": part for part in _STATISTICS}
    means = means_along_t(frame.rename(columns=columns), _STATISTICS).assign(reader=reader)
    return means.dropna(subset="median").drop(columns="reader")


def _flipped(frame: pd.DataFrame, reader: str) -> pd.DataFrame:
    return means_along_t(frame.rename(columns={f"flipped_{reader}": "share"}), ["share"]).assign(
        reader=reader
    )


def _margins(groups: Sequence[str]) -> list[alt.Chart]:
    base, colour = alt.Chart().encode(x=time_axis()), group_colour(groups)
    y = alt.Y("median:Q", title="Margin")
    return [
        base.mark_area(opacity=0.12).encode(
            y=alt.Y("q25:Q", title="Margin"), y2="q75:Q", color=colour
        ),
        alt.Chart()
        .mark_rule(color=GREY, strokeWidth=1)
        .encode(x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0)),
        base.mark_line().encode(y=y, color=colour, strokeDash=group_dash(groups)),
        base.mark_point(filled=True, opacity=0, size=60).encode(
            y=y,
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("group:N", title="Images"),
                alt.Tooltip("n:Q", title="Number of images"),
                alt.Tooltip("t:Q", title="Time t", format=".2f"),
                *quartiles("Margin, median", ".3~g"),
            ],
        ),
    ]


def _shares(groups: Sequence[str]) -> Layers:
    base = alt.Chart().encode(x=time_axis(), y=rate_axis("Images", field="share"))
    return alt.layer(
        base.mark_line(interpolate="step-after").encode(
            color=group_colour(groups), strokeDash=group_dash(groups)
        ),
        base.mark_point(filled=True, opacity=0, size=60).encode(
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("group:N", title="Images"),
                alt.Tooltip("t:Q", title="Time t", format=".2f"),
                alt.Tooltip("share:Q", title="Have left by then", format=".1%"),
            ],
        ),
    )


def _quality(probes: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by reader, the mean over seeds, for every condition of the model and tolerance."""
    by = ["dataset", "model", "tau", "t"]
    names = {"accuracy": "probe", "head_accuracy": "head"}
    means = probes.groupby(by, sort=False, as_index=False)[list(names)].mean()
    long = means.rename(columns=names).melt(by, list(names.values()), "reader", "accuracy")
    where = frame[["condition", "dataset", "model", "tau"]].drop_duplicates()
    return long.merge(where, on=["dataset", "model", "tau"]).drop(columns="dataset")


def _accuracy() -> Layers:
    base = alt.Chart().encode(x=time_axis(), y=rate_axis("Accuracy", field="accuracy"))
    lines = [
        base.transform_filter(alt.FieldEqualPredicate(field="reader", equal=reader)).mark_line(
            color=GREY, strokeDash=dash
        )
        for reader, dash in zip(_READERS, _DASHES, strict=True)
    ]
    points = base.mark_point(filled=True, opacity=0, size=60).encode(
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("reader:N", title="Read by"),
            alt.Tooltip("t:Q", title="Time t", format=".2f"),
            alt.Tooltip("accuracy:Q", title="Accuracy", format=".1%"),
        ]
    )
    return alt.layer(*lines, points)
