"""The small figure of claim 1: who is more robust, by the paper's attack and by the strongest."""

from collections.abc import Sequence
from typing import Literal

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    SHORT_NORMS,
    Layers,
    apart,
    epsilon_label,
    inline,
    model_colour,
    rate_axis,
    small,
    small_panel,
)
from node_robustness.tables.frame import tau_words, without_tolerance

_PROCEDURES = {"paper": "paper's attack", "strongest": "strongest attack"}
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
_WIDTH, _HEIGHT = 250, 138
_APART = 0.11  # of the axis, what a line of words takes
_WORDS = 84  # pixels for the words on either side
_LETTERS = 9  # of the name of a model in them
_SIDES: dict[Literal["right", "left"], int] = {"right": -8, "left": 8}
"""How the words at either end are aligned, and by how much they are moved."""


def figure(
    verdicts: pd.DataFrame, compared: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw robust accuracy under both procedures, in the setting where they differ most.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        compared: Result of `models.model_table`.
        models: All models of the experiment.

    Returns:
        A line a model, at one epsilon at which the claim is made first, those with an ODE at one
        tolerance: from the mean over its networks under the paper's procedure to that under the
        strongest attack, with intervals that contain those of every network.
    """
    if compared.empty:
        return small([])
    at = _setting(compared)
    own = verdicts[
        (verdicts.dataset == at.dataset)
        & (verdicts.norm == at.norm)
        & (verdicts.epsilon == at.epsilon)
        & ((verdicts.tau == at.tau) | verdicts.model.isin(without_tolerance(verdicts)))
    ]
    title = (
        f"{at.dataset}, {SHORT_NORMS[at.norm]} {epsilon_label(at.epsilon)}, ODE nets at "
        f"{tau_words(at.tau)}"
    )
    slopes = _slopes(_ends(own), models)
    return small([small_panel(slopes, title, width=_WIDTH, height=_HEIGHT)])


def _setting(compared: pd.DataFrame) -> pd.Series:
    """The comparison, at the epsilon of the claim, in which the two procedures differ most."""
    first = compared[compared.primary]
    known = first if len(first) else compared
    return known.iloc[int((known.paper - known.strongest).abs().fillna(-1).argmax())]


def _ends(verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row an end of a line, with the words next to it and where they stand."""
    ends = []
    for name, words in _PROCEDURES.items():
        own = verdicts[verdicts[name].notna()]
        columns = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
        end = own[["model", "level", *columns]].rename(columns=columns)
        named = [
            f"{_short(model)} {100 * value:.0f} %"
            for model, value in zip(end.model, end.value, strict=True)
        ]
        ends.append(
            end.assign(
                procedure=words,
                at=apart(end.value.tolist(), _APART),
                words=named,
            )
        )
    return pd.concat(ends, ignore_index=True)


def _short(model: str) -> str:
    return model if len(model) <= _LETTERS else f"{model[: _LETTERS - 1]}…"


def _slopes(ends: pd.DataFrame, models: Sequence[str]) -> Layers:
    base = alt.Chart(inline(ends)).encode(
        x=alt.X(
            "procedure:N",
            title=None,
            sort=[*_PROCEDURES.values()],
            axis=alt.Axis(
                # In two lines, as the ends of the lines are close to each other.
                labelExpr="split(datum.label, ' ')",
                labelAngle=0,
                labelLimit=_WIDTH,
                domain=False,
                ticks=False,
            ),
            scale=alt.Scale(type="point", padding=1.1),
        ),
        color=model_colour(models, legend=False),
    )
    y = rate_axis("Robust accuracy")
    shapes = [_SHAPES[index % len(_SHAPES)] for index in range(len(models))]
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y,
        shape=alt.Shape("model:N", scale=alt.Scale(domain=list(models), range=shapes), legend=None),
        tooltip=[
            alt.Tooltip("model:N", title="Model"),
            alt.Tooltip("procedure:N", title="Under"),
            alt.Tooltip("value:Q", title="Robust accuracy", format=".1%"),
            alt.Tooltip("low:Q", title="95 % from", format=".1%"),
            alt.Tooltip("high:Q", title="95 % to", format=".1%"),
            alt.Tooltip("level:N", title="Of"),
        ],
    )
    words = [
        base.transform_filter(alt.FieldEqualPredicate(field="procedure", equal=procedure))
        .mark_text(fontSize=10, align=align, dx=shift, limit=_WORDS, fill="currentColor")
        .encode(y=alt.Y("at:Q"), text="words:N")
        for procedure, (align, shift) in zip(_PROCEDURES.values(), _SIDES.items(), strict=True)
    ]
    return alt.layer(
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=""), y2="high:Q"),
        base.mark_line().encode(y=y),
        points,
        *words,
    )
