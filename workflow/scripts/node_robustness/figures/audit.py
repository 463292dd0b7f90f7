"""The figure of how far gradients agree."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    PANEL,
    in_order,
    inline,
    levels_note,
    model_colour,
    styled,
    tolerance_axis,
)
from node_robustness.tables.audit import FINITE_DIFFERENCES
from node_robustness.tables.frame import NO_ODE

_AGREEMENT = {"cosine": "Cosine", "sign_agreement": "Share of equal signs"}
_QUARTILES = ("median", "q25", "q75")


def figure(audit: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw how gradients agree, by the tolerance.

    Args:
        audit: Result of `audit.audit_table`.
        models: All models of the experiment.

    Returns:
        For every dataset a row each for the cosine and the share of equal signs between direct
        gradients and those of another source, a panel a source, and one for the relative error of
        directional derivatives against finite differences: median and quartiles over images, the
        mean of both over seeds. Models without an ODE have only one kind of gradient.
    """
    columns = [f"{name}_{part}" for name in (*_AGREEMENT, "error") for part in _QUARTILES]
    by = ["dataset", "model", "tolerance", "tau", "source", "reference"]
    solved = audit[audit.tau != NO_ODE]
    means = solved.groupby(by, sort=False, as_index=False, dropna=False)[columns].mean()
    rows = []
    for dataset in in_order(means.dataset):
        own = means[means.dataset == dataset]
        pairs = own[own.reference == "direct"].assign(panel=own.source + " and direct")
        for name, title in _AGREEMENT.items():
            rows.append(
                _by_source(pairs, name, title, models).properties(
                    title=f"{dataset}: {title.lower()} of gradients"
                )
            )
        differences = own[own.reference.isin(FINITE_DIFFERENCES.values())]
        differences = differences.assign(panel=differences.source + ", " + differences.reference)
        rows.append(
            _by_source(
                differences[differences.source.isin(["direct", "adjoint"])],
                "error",
                "Relative error",
                models,
            ).properties(title=f"{dataset}: derivatives along directions")
        )
    return styled(
        alt.vconcat(*rows),
        "Agreement of gradients",
        [
            "Median over images with quartiles. Direct: through the solver's steps; adjoint: the "
            "paper's;",
            "tight and rk4: of the same network solved more accurately.",
            *levels_note(solved),
        ],
    )


def _by_source(cells: pd.DataFrame, name: str, title: str, models: Sequence[str]) -> alt.FacetChart:
    scale = alt.Scale(type="symlog", constant=0.01) if name == "error" else alt.Undefined
    base = alt.Chart().encode(color=model_colour(models))
    y = alt.Y(f"{name}_median:Q", title=title, scale=scale)
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip(f"{name}_median:Q", title="Median", format=".3~f"),
        alt.Tooltip(f"{name}_q25:Q", title="Lower quartile", format=".3~f"),
        alt.Tooltip(f"{name}_q75:Q", title="Upper quartile", format=".3~f"),
    ]
    layers: list[alt.Chart] = []
    # A layer without data has no scale.
    if cells.tolerance.isna().any():
        level = base.transform_filter("!isValid(datum.tolerance)")
        layers.append(level.mark_rule(size=2).encode(y=y, tooltip=tooltip))
    if cells.tolerance.notna().any() or not layers:
        along = base.transform_filter("isValid(datum.tolerance)")
        along = along.encode(x=tolerance_axis(cells.tolerance))
        between = alt.Y(f"{name}_q25:Q", title=title, scale=scale)
        layers += [
            along.mark_rule(opacity=0.5).encode(y=between, y2=f"{name}_q75:Q"),
            along.mark_line().encode(y=y),
            along.mark_point(filled=True, size=45, opacity=1).encode(y=y, tooltip=tooltip),
        ]
    columns = ["model", "tolerance", "tau", "panel", *(f"{name}_{part}" for part in _QUARTILES)]
    return (
        alt.layer(*layers)
        .properties(width=PANEL, height=0.6 * PANEL)
        .facet(
            data=inline(cells[columns]),
            column=alt.Column("panel:N", title=None, sort=list(dict.fromkeys(cells.panel))),
        )
    )
