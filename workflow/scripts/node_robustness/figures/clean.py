"""The figure of accuracy and solver cost on clean images."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    PANEL,
    Layers,
    against_tolerance,
    in_order,
    inline,
    intervals_note,
    levels_note,
    model_colour,
    styled,
    tolerance_axis,
    with_seeds,
)


def figure(clean: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw test error and solver cost against the tolerance.

    Args:
        clean: Result of `evaluation.clean_table`.
        models: All models of the experiment.

    Returns:
        For every dataset two panels: error (points with 95 % intervals; own settings and models
        without an ODE are horizontal lines with bands) and function evaluations an image (mean, and
        a band of one standard deviation over images).
    """
    error = with_seeds(clean, ["dataset", "model", "tolerance", "tau"], "error", "error")
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
        [
            intervals_note(clean),
            "Cost: mean and one standard deviation over images (band).",
            *levels_note(clean),
        ],
    )


def _cost(clean: pd.DataFrame, models: Sequence[str]) -> Layers:
    by = ["model", "tolerance", "tau"]
    nfe = clean.groupby(by, sort=False, as_index=False, dropna=False)[["nfe_mean", "nfe_sd"]].mean()
    nfe = nfe.assign(low=(nfe.nfe_mean - nfe.nfe_sd).clip(lower=0), high=nfe.nfe_mean + nfe.nfe_sd)
    title = "Function evaluations per image"
    base = alt.Chart(inline(nfe)).encode(color=model_colour(models))
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("nfe_mean:Q", title="Mean evaluations", format=".1f"),
        alt.Tooltip("nfe_sd:Q", title="Standard deviation", format=".1f"),
    ]
    y = alt.Y("nfe_mean:Q", title=title)
    layers: list[alt.Chart] = []
    # A layer without data has no scale.
    if nfe.tolerance.isna().any():
        level = base.transform_filter("!isValid(datum.tolerance)")
        layers.append(level.mark_rule(size=2).encode(y=y, tooltip=tooltip))
    if nfe.tolerance.notna().any():
        along = base.transform_filter("isValid(datum.tolerance)")
        along = along.encode(x=tolerance_axis(nfe.tolerance))
        layers += [
            along.mark_area(opacity=0.18).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
            along.mark_line().encode(y=y),
            along.mark_point(filled=True, size=45, opacity=1).encode(y=y, tooltip=tooltip),
        ]
    return alt.layer(*layers)
