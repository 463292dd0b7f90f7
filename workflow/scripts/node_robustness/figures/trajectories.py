"""The figure of hidden states along the ODE."""

import json
from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    epsilon_label,
    inline,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
)

_DISTANCES = {
    "l2": "L2 distance",
    "relative_l2": "Relative L2 distance",
    "cosine": "Cosine similarity",
}


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
    means["tau"] = means.tolerance.map(tau_label)
    conditions = means[where].drop_duplicates()
    # Stable, so that datasets, attacks and epsilons stay in the order of the table.
    conditions = conditions.sort_values(
        "norm", kind="stable", key=lambda norm: norm.map(list(NORMS).index), ignore_index=True
    )
    conditions["condition"] = conditions.index
    names = [
        f"{dataset}, {attack}, {NORMS[norm]}, {epsilon_label(epsilon)}"
        for dataset, attack, norm, epsilon in conditions[where].itertuples(index=False)
    ] or ["no successful attack"]
    largest = conditions.groupby(where[:3], sort=False).condition.last()
    menu = alt.param(
        name="condition",
        value=int(next(iter(largest), 0)),
        bind=alt.binding_select(options=list(range(len(names))), labels=names, name="Show: "),
    )
    means = means.merge(conditions, on=where)
    data = inline(means[["condition", "model", "tau", "t", "n", *columns]])
    listed = json.dumps(names, ensure_ascii=False)
    return styled(
        # Not by add_params, which would hand the menu to each facet, and fails on layers inside.
        alt.vconcat(
            *(_distance(name, data, tau_labels(means), models) for name in _DISTANCES),
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
        color=tau_colour(taus),
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
        .properties(width=1.5 * PANEL, height=0.75 * PANEL)
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
