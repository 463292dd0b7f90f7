"""The figure of the function evaluations of single images."""

from collections.abc import Sequence
from itertools import pairwise

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    PANEL,
    in_order,
    inline,
    model_colour,
    styled,
    tau_labels,
)
from node_robustness.tables.frame import tau_words


def figure(nfe: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw how many function evaluations images take.

    Args:
        nfe: Result of `evaluation.nfe_table`.
        models: All models of the experiment.

    Returns:
        For every dataset a grid of histograms: models from left to right, tolerances downwards,
        share of the images (of all seeds together) on the vertical axis.
    """
    by = ["dataset", "model", "tolerance", "tau"]
    counts = nfe.groupby([*by, "nfe"], sort=False, as_index=False, dropna=False)["images"].sum()
    counts["share"] = counts.images / counts.groupby(by, dropna=False)["images"].transform("sum")
    counts["panel"] = counts.tau.map(tau_words)
    rows = []
    for dataset in in_order(nfe.dataset):
        own = _filled(counts[counts.dataset == dataset])
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
                    alt.Tooltip("tau:N", title="Tolerance τ"),
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
                    sort=[tau_words(tau) for tau in tau_labels(own)],
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


def _filled(counts: pd.DataFrame) -> pd.DataFrame:
    """The same with a row without images in every field of the grid that has none.

    A grid with fields left out would have the others in wrong places.
    """
    models = counts[["model"]].drop_duplicates()
    panels = counts[["tolerance", "tau", "panel"]].drop_duplicates()
    fields = models.merge(panels, how="cross")
    filled = fields.merge(counts, "left", on=[*fields.columns])
    return filled.fillna({"images": 0, "share": 0, "nfe": counts.nfe.min()})
