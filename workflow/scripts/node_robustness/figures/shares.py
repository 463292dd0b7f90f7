"""The figure of where the margin is lost: in h(0), or in which part of t."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.menus import OF_CONDITION, condition_menu, with_menus
from node_robustness.figures.style import (
    BAD,
    GREY,
    PANEL,
    PAPER,
    Layers,
    inline,
    percent,
    tau_labels,
)
from node_robustness.statistics.networks import over_networks
from node_robustness.tables.frame import NO_ODE, tau_words
from node_robustness.tables.shares import START

_PERTURBATIONS = {
    "strong": ("adversarial example", BAD),
    "noise": ("random noise", GREY),
    "swapped": ("difference of another image", PAPER),
}
_WIDTH = 24  # of the three bars of a player


def figure(shares: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw which fraction of the loss of margin h(0) and each part of the body have.

    Args:
        shares: Result of `shares.share_table`.
        models: All models of the experiment.

    Returns:
        For every model a panel a tolerance: bars by player, h(0) first, then the parts by their
        start, for the strong adversarial example and for the two controls; means over networks
        with intervals that contain those of each. A list chooses dataset, attack, norm and
        epsilon.
    """
    frame, menu = condition_menu(shares[shares.n > 0])
    by = ["condition", "model", "tolerance", "tau", "perturbation", "player", "start", "end"]
    rates = over_networks(frame, by, "fraction", "fraction")
    # An interval that is too wide to be drawn hides the others.
    rates = rates.assign(low=rates.low.clip(-1, 2), high=rates.high.clip(-1, 2))
    rates["of"] = rates.perturbation.map(
        {name: words for name, (words, _) in _PERTURBATIONS.items()}
    )
    rates["part"] = rates.start.map("{:.2g}".format).where(rates.player != START, START)
    taus = tau_labels(frame)
    charts = [_of_model(model, rates[rates.model == model], taus) for model in models]
    return with_menus(
        [chart for chart in charts if chart is not None] or [_of_nothing()],
        [menu],
        "Where the margin is lost",
        [
            "Fraction of the loss of margin that comes from the perturbation of h(0), which is all "
            "before the body,",
            "and from what each part adds to it, by the t where the part begins. The fractions of "
            "a colour add up to 100 %.",
            "A part that brings the states together again has a negative one. Lines: 95 % "
            "intervals over images.",
        ],
    )


def _of_model(model: str, rates: pd.DataFrame, taus: Sequence[str]) -> Layers | None:
    """The panels of a model, None without any."""
    if rates.empty:
        return None
    order = rates.sort_values(["end", "start"]).part.drop_duplicates().tolist()
    names = [words for words, _ in _PERTURBATIONS.values()]
    base = (
        alt.Chart()
        .transform_filter(OF_CONDITION)
        .encode(
            x=alt.X(
                "part:N", title=None, sort=order, axis=alt.Axis(labelAngle=0, labelOverlap="greedy")
            ),
            xOffset=alt.XOffset("of:N", sort=names),
        )
    )
    y = alt.Axis(format="~%")
    bars = base.mark_bar().encode(
        y=alt.Y("value:Q", title="Of the loss of margin", axis=y),
        color=alt.Color(
            "of:N",
            title="Perturbation",
            sort=names,
            scale=alt.Scale(domain=names, range=[colour for _, colour in _PERTURBATIONS.values()]),
            legend=alt.Legend(symbolType="square", labelLimit=240),
        ),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("tau:N", title="Tolerance τ"),
            alt.Tooltip("of:N", title="Perturbation"),
            alt.Tooltip("player:N", title="Part"),
            alt.Tooltip("start:Q", title="From t", format=".3~g"),
            alt.Tooltip("end:Q", title="To t", format=".3~g"),
            percent("value", "Of the loss of margin"),
            percent("low", "95 % from"),
            percent("high", "95 % to"),
            alt.Tooltip("networks:Q", title="Networks"),
        ],
    )
    intervals = base.mark_rule(opacity=0.7, color="currentColor").encode(
        y=alt.Y("low:Q", title="Of the loss of margin", axis=y), y2="high:Q"
    )
    own = [tau for tau in taus if tau in set(rates.tau)]
    panels = [model if tau == NO_ODE else f"{model}, {tau_words(tau)}" for tau in own]
    return (
        alt.layer(bars, intervals)
        .properties(width=_WIDTH * len(order), height=0.7 * PANEL)
        .facet(
            data=inline(rates.assign(panel=rates.tau.map(dict(zip(own, panels, strict=True))))),
            column=alt.Column("panel:N", title=None, sort=panels),
            spacing=16,
        )
    )


def _of_nothing() -> Layers:
    """A figure without data still has its title."""
    return alt.layer(alt.Chart(inline(pd.DataFrame({"x": []}))).mark_point())
