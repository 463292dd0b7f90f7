"""The small figure of claim 2: what a larger tolerance seems to gain, and what is left of it."""

from collections.abc import Sequence
from typing import Literal

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    GREY,
    PAPER,
    SHORT_NORMS,
    Layers,
    apart,
    epsilon_label,
    inline,
    rate_axis,
    small,
    small_panel,
    tolerance_axis,
)

_LINES = {
    "paper": ("paper's attack", PAPER, "circle", [1, 0]),
    "corrected": ("corrected gradient", "#009E73", "square", [5, 3]),
    "strongest": ("strongest attack", GOOD, "triangle-up", [2, 2]),
}
_AREAS = {"masked": ("masked gradient", BAD), "weak": ("weak search", "#56B4E9")}
_UNKNOWN = ("cause not known", GREY)
_WIDTH, _HEIGHT = 168, 138
_APART = 0.11  # of the axis, what a line of words takes
_TICKS = 4  # for which there is space
_LABELLED = 0.1  # the smallest area with space for its name

_ALIGNED: dict[Literal["left", "right"], int] = {"left": 4, "right": -4}
"""How names of areas are aligned, and by how much they are moved."""


def figure(
    verdicts: pd.DataFrame, tolerances: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw robust accuracy against the tolerance, for the model whose gap is largest.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        tolerances: Result of `tolerances.tolerance_table`.
        models: All models of the experiment.

    Returns:
        At one epsilon at which the claim is made first: a line a protocol, the mean over the
        networks with an interval that contains that of each, and the areas between the lines,
        named after what they are: masked gradient and weak search.
    """
    if tolerances.empty:
        return small([])
    first = tolerances[tolerances.primary]
    claims = (first if len(first) else tolerances)[_KEY].drop_duplicates()
    cells = verdicts.merge(claims, on=_KEY)
    cells = cells[cells.tolerance.notna()]
    if cells.empty:
        return small([])
    key = cells[_KEY].iloc[int(cells.gap.fillna(-1).argmax())]
    own = cells[(cells[_KEY] == key).all(axis="columns")].sort_values("tolerance")
    title = f"{key.model} on {key.dataset}, {SHORT_NORMS[key.norm]} {epsilon_label(key.epsilon)}"
    return small([small_panel(_chart(own), title, width=_WIDTH, height=_HEIGHT)])


_KEY = ["dataset", "model", "norm", "epsilon"]


def _chart(own: pd.DataFrame) -> Layers:
    lines = _lines(own)
    x, y = tolerance_axis(own.tolerance, most=_TICKS), rate_axis("Robust accuracy")
    names, colours, shapes, dashes = (list(part) for part in zip(*_LINES.values(), strict=True))
    base = alt.Chart(inline(lines)).encode(
        x=x, color=alt.Color("line:N", scale=alt.Scale(domain=names, range=colours), legend=None)
    )
    ends = base.transform_filter("isValid(datum.at)")
    areas = _areas(own)
    between = alt.Chart(inline(areas)).encode(x=x)
    fills = [*_AREAS.values(), _UNKNOWN]
    return alt.layer(
        between.mark_area(opacity=0.3).encode(
            y=alt.Y("from:Q", title=""),
            y2="to:Q",
            fill=alt.Fill(
                "area:N",
                scale=alt.Scale(
                    domain=[name for name, _ in fills], range=[colour for _, colour in fills]
                ),
                legend=None,
            ),
        ),
        base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=""), y2="high:Q"),
        base.mark_line().encode(
            y=y,
            strokeDash=alt.StrokeDash(
                "line:N", scale=alt.Scale(domain=names, range=dashes), legend=None
            ),
        ),
        base.mark_point(filled=True, size=40, opacity=1).encode(
            y=y,
            shape=alt.Shape("line:N", scale=alt.Scale(domain=names, range=shapes), legend=None),
            tooltip=[
                alt.Tooltip("tau:N", title="Tolerance τ"),
                alt.Tooltip("line:N", title="Under"),
                alt.Tooltip("value:Q", title="Robust accuracy", format=".1%"),
                alt.Tooltip("low:Q", title="95 % from", format=".1%"),
                alt.Tooltip("high:Q", title="95 % to", format=".1%"),
                alt.Tooltip("level:N", title="Of"),
            ],
        ),
        ends.mark_text(fontSize=11, align="left", dx=8, fill="currentColor").encode(
            y=alt.Y("at:Q", title=""), text="line:N"
        ),
        *(
            between.transform_filter(f"datum.label != '' && datum.align == '{align}'")
            .mark_text(fontSize=11, fontStyle="italic", fill="currentColor", align=align, dx=shift)
            .encode(y=alt.Y("middle:Q", title=""), text="label:N")
            for align, shift in _ALIGNED.items()
        ),
    )


def _lines(own: pd.DataFrame) -> pd.DataFrame:
    """A row a protocol and tolerance; at the largest tolerance, where the line's name stands."""
    last = own.iloc[-1]
    known = [name for name in _LINES if pd.notna(last[name])]
    at = dict(zip(known, apart([float(last[name]) for name in known], _APART), strict=True))
    parts = []
    for name, (line, *_) in _LINES.items():
        columns = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
        part = own[["tolerance", "tau", "level", *columns]].rename(columns=columns)
        part = part.assign(line=line, at=float("nan"))
        part.loc[part.tolerance == last.tolerance, "at"] = at.get(name)
        parts.append(part)
    lines = pd.concat(parts, ignore_index=True)
    return lines[lines.value.notna()]


def _areas(own: pd.DataFrame) -> pd.DataFrame:
    """A row an area and tolerance; where an area is widest, ``label`` is its name."""
    if own.corrected.isna().any():
        bounds = {_UNKNOWN[0]: ("strongest", "paper")}
    else:
        bounds = {
            _AREAS["masked"][0]: ("corrected", "paper"),
            _AREAS["weak"][0]: ("strongest", "corrected"),
        }
    first, parts = own.tolerance.iloc[0], []
    for name, (low, high) in bounds.items():
        part = own[["tolerance", low, high]].set_axis(["tolerance", "from", "to"], axis="columns")
        part = part.dropna().assign(area=name)
        wide = part.to - part["from"]
        # The last of equals, where the lines end.
        widest = part.tolerance[(wide == wide.max()) & (wide >= _LABELLED)].max()
        parts.append(
            part.assign(
                middle=part["from"] + wide / 2,
                label=part.area.where(part.tolerance == widest, ""),
                align=["left" if tau == first else "right" for tau in part.tolerance],
            )
        )
    return pd.concat(parts, ignore_index=True)
