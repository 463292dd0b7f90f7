"""The small figure of claim 3: where along the dynamics the margin of a decision is lost."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    Layers,
    inline,
    model_colour,
    small,
    small_panel,
)
from node_robustness.tables.frame import NO_ODE, records, tau_words

_KEY = "Share of lost margin: bars attack, ○ noise, △ other image"
_SHAPES = {"noise": "circle", "swapped": "triangle-up"}
_PANELS, _WIDTH, _HEIGHT = 2, 118, 118
_BEFORE = -0.12  # where h(0) stands on the axis of t
_MOST = (-0.5, 1.5)  # what the axis shows of fractions that a small loss makes large


def figure(shares: pd.DataFrame, dynamics: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the fractions of the loss of margin that h(0) and each part of the dynamics have.

    Args:
        shares: Result of `shares.share_table`.
        dynamics: Result of `dynamics.dynamics_table`.
        models: All models of the experiment.

    Returns:
        A panel for each of two models at most, those with an ODE first, in the setting with the
        most images among those of which the claim is made first: bars for adversarial examples, the
        mean over the networks with an interval that contains that of each, and points for the
        controls.
    """
    settings = _settings(dynamics, models)
    found = [(key, _fractions(shares, key)) for key in records(settings)]
    drawn = [(key, own) for key, own in found if own.value.notna().any()][:_PANELS]
    if not drawn:
        return small([])
    every = pd.concat([own for _, own in drawn])
    # The intervals of the controls are not drawn.
    strong = every[every.perturbation == "strong"]
    low = min(0, every.value.min(), strong.low.min())
    high = max(1, every.value.max(), strong.high.max())
    limits = [max(low, _MOST[0]), min(high, _MOST[1])]
    panels = [
        small_panel(
            _bars(own, models, limits, first=place == 0),
            _title(key),
            width=_WIDTH if len(drawn) > 1 else 2 * _WIDTH,
            height=_HEIGHT,
            limit=_WIDTH + 6 if len(drawn) > 1 else 2 * _WIDTH,
        )
        for place, (key, own) in enumerate(drawn)
    ]
    return small(panels, _KEY)


_SETTING = ["dataset", "model", "tolerance", "tau", "attack", "norm", "epsilon"]


def _settings(dynamics: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """One setting a dataset and model, the best first."""
    ranked = dynamics.assign(
        plain=dynamics.tau == NO_ODE, place=dynamics.model.map(list(models).index)
    ).sort_values(
        ["primary", "plain", "place", "n", "tolerance"],
        ascending=[False, True, True, False, True],
        kind="stable",
    )
    return ranked.drop_duplicates(["dataset", "model"])[_SETTING]


def _fractions(shares: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    """A row a perturbation and player: the mean over networks, and where it stands along t."""
    own = shares
    for name, value in key.items():
        own = own[own[name].isna() if pd.isna(value) else own[name] == value]
    names = ["model", "perturbation", "player", "start", "end"]
    means = (
        own.groupby(names, sort=False, dropna=False)
        .agg(
            value=("fraction", "mean"),
            low=("fraction_low", "min"),
            high=("fraction_high", "max"),
            images=("n", "min"),
        )
        .reset_index()
    )
    before = means.player != "part"
    half = min((means.end - means.start)[~before].min() / 2, -_BEFORE / 2)
    left = means.start.where(~before, _BEFORE - half)
    right = means.end.where(~before, _BEFORE + half)
    return means.assign(left=left, right=right, middle=(left + right) / 2)


def _title(key: Mapping[str, Any]) -> str:
    return f"{key['model']} on {key['dataset']}, {tau_words(key['tau'])}"


def _bars(
    fractions: pd.DataFrame, models: Sequence[str], limits: list[float], *, first: bool
) -> Layers:
    x = alt.X(
        "left:Q",
        title=None,
        scale=alt.Scale(domain=[_BEFORE - 0.1, 1], nice=False),
        axis=alt.Axis(
            values=[_BEFORE, 0.5, 1],
            labelExpr="datum.value < 0 ? 'before' : datum.value < 1 ? 't = 0.5' : '1'",
            grid=False,
            ticks=False,
        ),
    )
    scale = alt.Scale(domain=limits, nice=False)
    y = alt.Y(
        "value:Q",
        title=None,
        scale=scale,
        axis=alt.Axis(
            format="~%", values=[-0.5, 0, 0.5, 1], labels=first, ticks=first, domain=first
        ),
    )
    base = alt.Chart(inline(fractions))
    strong = base.transform_filter("datum.perturbation == 'strong'")
    tooltip = [
        alt.Tooltip("perturbation:N", title="Perturbation"),
        alt.Tooltip("player:N", title="Part"),
        alt.Tooltip("start:Q", title="From t"),
        alt.Tooltip("end:Q", title="To t"),
        alt.Tooltip("value:Q", title="Share of the loss", format=".1%"),
        alt.Tooltip("low:Q", title="95 % from", format=".1%"),
        alt.Tooltip("high:Q", title="95 % to", format=".1%"),
        alt.Tooltip("images:Q", title="Images"),
    ]
    middle = alt.X("middle:Q", title=None)
    return alt.layer(
        strong.mark_rect(opacity=0.75, clip=True, stroke="white", strokeWidth=0.5)
        .transform_calculate(none="0")
        .encode(
            x=x,
            x2="right:Q",
            y=y,
            y2=alt.Y2("none:Q"),
            color=model_colour(models, legend=False),
            tooltip=tooltip,
        ),
        strong.mark_rule(clip=True, color="currentColor", opacity=0.7).encode(
            x=middle, y=alt.Y("low:Q", scale=scale), y2="high:Q"
        ),
        base.transform_filter("datum.perturbation != 'strong'")
        .mark_point(clip=True, size=30, stroke="currentColor", strokeWidth=1.2, opacity=1)
        .encode(
            x=middle,
            y=y,
            shape=alt.Shape(
                "perturbation:N",
                scale=alt.Scale(domain=list(_SHAPES), range=list(_SHAPES.values())),
                legend=None,
            ),
            tooltip=tooltip,
        ),
        strong.transform_filter("datum.player != 'part'")
        .mark_text(align="left", dx=8, dy=-4, fontSize=11, fill="currentColor")
        .encode(x=middle, y=y, text=alt.Text("value:Q", format=".0%")),
    )
