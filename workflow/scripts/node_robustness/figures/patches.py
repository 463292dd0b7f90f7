"""The figure of what repair and insertion of an interval of t do to the decision."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import (
    OF_CONDITION,
    condition_menu,
    option_menu,
    with_menus,
)
from node_robustness.figures.style import (
    PANEL,
    Layers,
    inline,
    percent,
    rate_axis,
    tau_labels,
)
from node_robustness.statistics.networks import over_networks
from node_robustness.tables.frame import NO_ODE, tau_words

_PATCHES = {
    "repaired": "repair of adversarial examples",
    "inserted": "insertion into clean images",
}


def figure(patches: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw how many decisions change when an interval of t is patched.

    Args:
        patches: Result of `shares.patch_table`.
        models: All models of the experiment.

    Returns:
        For every model a panel a tolerance: the share of the decisions that change against the
        start of the interval, a line a length of the interval; means over networks. Lists choose
        the patch, and dataset, attack, norm and epsilon.
    """
    frame, menu = condition_menu(patches[patches.repaired_of > 0])
    rates = pd.concat([_of_patch(frame, patch) for patch in _PATCHES], ignore_index=True)
    charts = [
        _curves()
        .properties(width=0.9 * PANEL, height=0.7 * PANEL)
        .facet(
            data=inline(rates[rates.model == model]),
            column=alt.Column("panel:N", title=None, sort=_panels(model, rates)),
            spacing=16,
        )
        for model in models
        if model in set(rates.model)
    ]
    return with_menus(
        charts or [_curves()],
        [option_menu("patch", "Patch", _PATCHES), menu],
        "Repair and insertion",
        [
            "Share of the decisions that change when one interval is patched; a line is a length.",
            "Repair undoes what the interval adds to the perturbation of an adversarial example. "
            "Insertion adds it to",
            "the clean image. What came in before the interval stays.",
        ],
    )


def _of_patch(frame: pd.DataFrame, patch: str) -> pd.DataFrame:
    by = ["condition", "model", "tolerance", "tau", "start", "end"]
    rates = over_networks(frame, by, f"{patch}_rate", patch)
    return rates.assign(
        patch=patch,
        panel=[_panel(*place) for place in zip(rates.model, rates.tau, strict=True)],
        length=(rates.end - rates.start).round(6),
    )


def _panels(model: str, rates: pd.DataFrame) -> list[str]:
    """The panels of a model, the smallest tolerance first."""
    return [_panel(model, tau) for tau in tau_labels(rates[rates.model == model])]


def _panel(model: str, tau: str) -> str:
    return model if tau == NO_ODE else f"{model}, {tau_words(tau)}"


def _curves() -> Layers:
    """A line a length of the interval."""
    x = alt.X(
        "start:Q",
        title="Start of the interval, t",
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(format=".2~f"),
    )
    base = (
        alt.Chart()
        .transform_filter(f"{OF_CONDITION} && datum.patch === patch")
        .encode(
            x=x,
            y=rate_axis("Decisions changed"),
            color=alt.Color(
                "length:Q",
                title="Length of the interval",
                scale=alt.Scale(scheme="viridis", domain=[0, 1], reverse=True),
                legend=alt.Legend(format=".2~f", gradientLength=160),
            ),
        )
    )
    lines = base.mark_line().encode(detail="length:Q")
    points = base.mark_point(filled=True, size=35, opacity=1).encode(
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("tau:N", title="Tolerance τ"),
            alt.Tooltip("start:Q", title="From t", format=".3~g"),
            alt.Tooltip("end:Q", title="To t", format=".3~g"),
            percent("value", "Decision changed"),
            percent("low", "95 % from"),
            percent("high", "95 % to"),
            alt.Tooltip("networks:Q", title="Networks"),
        ]
    )
    return alt.layer(lines, points)
