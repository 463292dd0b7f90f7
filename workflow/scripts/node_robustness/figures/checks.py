"""The figure of the outcome of every sanity check."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    LEVEL,
    NORMS,
    OPEN,
    Layers,
    inline,
    styled,
)
from node_robustness.verdict.checks import FAILED, NOT_MEASURED, PASSED, UNDECIDED

_MARKS = {PASSED: "✓", FAILED: "✕", UNDECIDED: "?", NOT_MEASURED: "–"}


def figure(checks: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the outcome of every check.

    Args:
        checks: Result of `checks.check_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and seed a grid: checks downwards, one for each norm where there are
        several, models and tolerances from left to right.
    """
    several = checks.seed.nunique() > 1
    cells = checks.assign(mark=checks.outcome.map(_MARKS), line=_lines(checks))
    rows = []
    for (dataset, seed), own in cells.groupby(["dataset", "seed"], sort=False):
        panels: list[Layers] = []
        for model in (name for name in models if name in set(own.model)):
            mine = own[own.model == model]
            panels.append(_panel(mine, model, own, first=not panels))
        title = f"{dataset}, seed {seed}" if several else str(dataset)
        rows.append(alt.hconcat(*panels, title=title, spacing=12))
    return styled(
        alt.vconcat(*rows),
        "Sanity checks",
        [
            "Each column is one network. ✓ passed, ✕ failed, ? too few images to tell, – not "
            "measured; empty: does not apply."
        ],
    )


def _lines(checks: pd.DataFrame) -> pd.Series:
    """The titles of the checks, with the norm where there are several."""
    if checks.norm[checks.norm != ""].nunique() < 2:
        return checks.title
    norms = checks.norm.map(lambda norm: f" ({NORMS[norm]})" if norm else "")
    return checks.title + norms


def _panel(mine: pd.DataFrame, model: str, every: pd.DataFrame, *, first: bool) -> Layers:
    lines = list(dict.fromkeys(every.line))
    axis = alt.Axis(labelLimit=420, labels=first, ticks=first, domain=first)
    base = alt.Chart(inline(mine.drop(columns=["experiment", "dataset", "supports"]))).encode(
        x=alt.X("tau:N", title="τ", sort=list(dict.fromkeys(mine.tau)), axis=LEVEL),
        y=alt.Y("line:N", title=None, sort=lines, scale=alt.Scale(domain=lines), axis=axis),
        tooltip=[
            alt.Tooltip("line:N", title="Check"),
            alt.Tooltip("outcome:N", title="Outcome"),
            alt.Tooltip("value:Q", title="Value", format=".3~g"),
            alt.Tooltip("low:Q", title="at least", format=".3~g"),
            alt.Tooltip("high:Q", title="at most", format=".3~g"),
            alt.Tooltip("n:Q", title="Images"),
            alt.Tooltip("bound:N", title="Passes if its bound is"),
            alt.Tooltip("threshold:Q", title="of", format=".3~g"),
            alt.Tooltip("failure:N", title="A failure means"),
            alt.Tooltip("reason:N", title="Reason"),
        ],
    )
    fields = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color(
            "outcome:N",
            title="Outcome",
            scale=alt.Scale(domain=list(_MARKS), range=[GOOD, BAD, OPEN, "#9a9a9a"]),
            legend=alt.Legend(symbolType="square"),
        ),
    )
    marks = base.mark_text(color="white", fontWeight=600).encode(text="mark:N")
    return alt.layer(fields, marks, title=model).properties(
        width=44 * mine.tau.nunique(), height=22 * len(lines)
    )
