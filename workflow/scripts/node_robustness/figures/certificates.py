"""The figure of what is proven and of what attacks leave."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PAPER,
    Layers,
    epsilon_label,
    inline,
    styled,
)
from node_robustness.tables.frame import NO_ODE, OWN

_MARKS = {
    "clean": ("no attack", "diamond", GREY, 60),
    "paper": ("paper's attack", "circle", PAPER, 190),
    "corrected": ("corrected gradient", "square", "#009E73", 95),
    "strongest": ("strongest attack", "triangle-left", "#0072B2", 60),
    "certified": ("proven", "triangle-right", "#CC79A7", 60),
}
"""What robust accuracy is measured by, each drawn over those before it: its name for people, its
shape, its colour and its size."""

_PLACE = ["dataset", "norm", "epsilon", "model"]
_WIDTH, _ROW = 420, 26


def figure(
    verdicts: pd.DataFrame, certificates: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw between which bounds robust accuracy lies.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        certificates: Result of `certificates.certificate_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon with certificates a panel, a row a model at its author's
        settings, the most robust first: a line from what it proves of itself to what the strongest
        attack leaves, between which robust accuracy lies, and what the other attacks leave; means
        over networks.
    """
    proven = certificates.groupby(_PLACE, sort=False).certified.mean().reset_index()
    own = verdicts[verdicts.tau.isin([OWN, NO_ODE])].merge(proven, on=_PLACE, how="left")
    names, shapes, colours, sizes = zip(*_MARKS.values(), strict=True)
    rows: list[Layers] = []
    for dataset, norm, epsilon in proven[_PLACE[:3]].drop_duplicates().to_numpy():
        panel = own[(own.dataset == dataset) & (own.norm == norm) & (own.epsilon == epsilon)]
        ranked = panel.sort_values("strongest", ascending=False, kind="stable").model.tolist()
        points = panel.melt(["model"], list(_MARKS), "by", "value").dropna(subset=["value"])
        points["by"] = points.by.map({key: mark[0] for key, mark in _MARKS.items()})
        y = alt.Y("model:N", title=None, sort=ranked)
        between = (
            alt.Chart(inline(panel[["model", "certified", "strongest"]].dropna()))
            .mark_rule(size=6, opacity=0.35)
            .encode(y=y, x=alt.X("certified:Q", title=""), x2="strongest:Q")
        )
        marks = [
            alt.Chart(inline(points))
            .transform_filter(alt.FieldEqualPredicate(field="by", equal=name))
            .mark_point(filled=True, opacity=1, size=size)
            .encode(
                y=y,
                x=alt.X(
                    "value:Q",
                    title="Robust accuracy",
                    axis=alt.Axis(format="~%", tickCount=5),
                    scale=alt.Scale(domain=[0, 1]),
                ),
                color=alt.Color(
                    "by:N",
                    title="Under",
                    sort=list(names),
                    scale=alt.Scale(domain=list(names), range=list(colours)),
                ),
                shape=alt.Shape(
                    "by:N",
                    title="Under",
                    sort=list(names),
                    scale=alt.Scale(domain=list(names), range=list(shapes)),
                ),
                tooltip=[
                    alt.Tooltip("model:N", title="Model"),
                    alt.Tooltip("by:N", title="Under"),
                    alt.Tooltip("value:Q", title="Robust accuracy", format=".1%"),
                ],
            )
            for name, size in zip(names, sizes, strict=True)
        ]
        rows.append(
            alt.layer(between, *marks).properties(
                width=_WIDTH,
                height=_ROW * len(ranked),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Between proof and attack",
        ["Robust accuracy of each model at its author's settings; a bar: it lies in between."],
    )
