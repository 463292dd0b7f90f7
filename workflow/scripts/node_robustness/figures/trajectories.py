"""The figure of how far paths part along the ODE."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    OF_CONDITION,
    condition_menu,
    group_row,
    groups_in,
    option_menu,
    over_seeds,
    quartiles,
    time_axis,
    with_menus,
)
from node_robustness.figures.style import (
    GREY,
    PANEL,
    Layers,
    inline,
    tau_colour,
    tau_labels,
)
from node_robustness.tables.frame import NO_ODE

_DISTANCES = {
    "relative_l2": "Relative L2 distance",
    "l2": "L2 distance",
    "cosine": "Cosine similarity",
}
_PARTS = ["median", "q25", "q75"]


def figure(trajectories: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the distance between clean and perturbed states along the ODE.

    Args:
        trajectories: Result of `trajectories.trajectory_table`.
        models: All models of the experiment.

    Returns:
        A grid of panels, a column a model and a row a group of images (adversarial examples, what
        the attack ended with where it failed, random noise), one line a tolerance: the median over
        images and a band between the quartiles, both averaged over seeds. Dots are where accepted
        steps end, the dashed line is the same at a tight tolerance. A model without an ODE is drawn
        block by block. Lists choose the distance, and dataset, attack, norm and epsilon.
    """
    perturbed = trajectories[(trajectories.group != "clean") & (trajectories.n > 0)]
    frame, menu = condition_menu(perturbed)
    distances = pd.concat([_of_distance(frame, distance) for distance in _DISTANCES])
    which = option_menu("distance", "Distance", _DISTANCES)
    chart = (
        alt.layer(*_lines(tau_labels(frame[frame.tau != NO_ODE])))
        .transform_filter(f"{OF_CONDITION} && datum.distance === distance")
        .properties(width=1.3 * PANEL, height=0.75 * PANEL)
        .facet(
            data=inline(distances),
            column=alt.Column("model:N", title=None, sort=list(models)),
            row=group_row(groups_in(frame)),
            spacing=16,
        )
    )
    return with_menus(
        [chart],
        [which, menu],
        "Distance from the clean state",
        [
            "Median over images, band between the quartiles. Dots: where accepted steps end, the "
            "larger the more;",
            "between them the solver interpolates. Dashed: where a tight tolerance would put it, "
            "by the first images.",
            "Grey: block by block.",
        ],
    )


def _of_distance(frame: pd.DataFrame, distance: str) -> pd.DataFrame:
    """The rows of one distance, with the names of its statistics cut down to those."""
    names = {f"{distance}_{part}": part for part in _PARTS}
    tight = f"tight_{distance}_median"
    frame = frame.rename(columns={**names, tight: "tight"})
    known = [*names.values(), "nodes", *(["tight"] if "tight" in frame else [])]
    means = over_seeds(frame, ["condition", "model", "tau", "group", "t"], known)
    return means.assign(
        distance=distance,
        tight=means["median"] * means["tight"] if "tight" in means else None,
    )


def _lines(taus: Sequence[str]) -> list[alt.Chart | Layers]:
    plain = alt.FieldEqualPredicate(field="tau", equal=NO_ODE)
    layers: list[alt.Chart | Layers] = []
    for colour, own in ((tau_colour(taus), ~plain), (alt.value(GREY), plain)):
        base = alt.Chart().transform_filter(own).encode(x=time_axis(), color=colour)
        y = alt.Y("median:Q", title=None, scale=alt.Scale(zero=False))
        layers += [
            base.mark_area(opacity=0.13).encode(
                y=alt.Y("q25:Q", title=None, scale=alt.Scale(zero=False)), y2="q75:Q"
            ),
            base.mark_line().encode(y=y),
        ]
    solved = alt.Chart().transform_filter(~plain).encode(x=time_axis(), color=tau_colour(taus))
    blocks = alt.Chart().transform_filter(plain).encode(x=time_axis(), y="median:Q")
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("group:N", title="Images"),
        alt.Tooltip("n:Q", title="Number of images"),
        alt.Tooltip("t:Q", title="Time t", format=".2f"),
        *quartiles("Median", ".3~g"),
        alt.Tooltip("nodes:Q", title="Steps that end here, per image", format=".2~f"),
    ]
    return [
        *layers,
        solved.transform_filter("isValid(datum.tight)")
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2)
        .encode(y="tight:Q"),
        solved.transform_filter("datum.nodes > 0")
        .mark_point(filled=True, opacity=1)
        .encode(
            y="median:Q",
            size=alt.Size(
                "nodes:Q", scale=alt.Scale(domain=[0, 1], range=[0, 60], clamp=True), legend=None
            ),
        ),
        blocks.mark_point(filled=True, opacity=1, size=30, color=GREY),
        # Thin lines are hard to hit with a pointer: invisible points carry the tooltips.
        alt.Chart()
        .mark_point(filled=True, opacity=0, size=60)
        .encode(x=time_axis(), y="median:Q", tooltip=tooltip),
    ]
