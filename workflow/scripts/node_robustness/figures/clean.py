"""Figures of accuracy and cost on clean images."""

from collections.abc import Sequence
from itertools import pairwise

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    PANEL,
    Layers,
    against_tolerance,
    in_order,
    inline,
    intervals_note,
    model_colour,
    styled,
    tau_label,
    tau_labels,
    tolerance_axis,
    with_seeds,
)


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
    error = with_seeds(clean, ["dataset", "model", "tolerance"], "error", "error")
    rows = []
    for dataset in in_order(clean.dataset):
        own = error[error.dataset == dataset]
        panels = [
            against_tolerance(own, "Test error", ["model"], models, whole=False)
            .properties(data=inline(own), width=1.5 * PANEL, height=PANEL)
            .properties(title=f"{dataset}: error on clean images")
        ]
        solved = clean[(clean.dataset == dataset) & clean.nfe_mean.notna()]
        if len(solved):
            cost = _cost(solved, models).properties(width=1.5 * PANEL, height=PANEL)
            panels.append(cost.properties(title=f"{dataset}: cost of solving the ODE"))
        rows.append(alt.hconcat(*panels, spacing=84, bounds="flush"))
    return styled(
        alt.vconcat(*rows),
        "Clean error and solver cost at each tolerance",
        [intervals_note(clean), "Cost: mean and one standard deviation over images (band)."],
    )


def _cost(clean: pd.DataFrame, models: Sequence[str]) -> Layers:
    by = ["model", "tolerance"]
    nfe = clean.groupby(by, sort=False, as_index=False)[["nfe_mean", "nfe_sd"]].mean()
    nfe = nfe.assign(low=(nfe.nfe_mean - nfe.nfe_sd).clip(lower=0), high=nfe.nfe_mean + nfe.nfe_sd)
    title = "Function evaluations per image"
    base = alt.Chart(inline(nfe)).encode(
        x=tolerance_axis(nfe.tolerance), color=model_colour(models)
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
    counts["panel"] = [f"τ = {tau_label(tolerance)}" for tolerance in counts.tolerance]
    rows = []
    for dataset in in_order(nfe.dataset):
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
                color=model_colour(models, legend=False),
                tooltip=[
                    alt.Tooltip("model:N", title="Model"),
                    alt.Tooltip("tolerance:Q", title="Tolerance τ", format="~g"),
                    alt.Tooltip("nfe:Q", title="Evaluations"),
                    alt.Tooltip("images:Q", title="Images"),
                    alt.Tooltip("share:Q", title="Share", format=".1%"),
                ],
            )
            .properties(width=1.5 * PANEL, height=44)
        )
        rows.append(
            bars.facet(
                data=inline(own),
                column=alt.Column("model:N", title=None, sort=list(models)),
                row=alt.Row(
                    "panel:N",
                    title=None,
                    sort=[f"τ = {tau}" for tau in tau_labels(own)],
                    header=alt.Header(labelAngle=0, labelAlign="left"),
                ),
                spacing=12,
                title=dataset,
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Function evaluations that images take",
        ["Share of the images by number of evaluations of the ODE function, for each tolerance τ."],
    )
