"""The figure of a tolerance that is drawn at random."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    epsilon_label,
    groups_of,
    inline,
    percent,
    rate_axis,
    styled,
)
from node_robustness.statistics.networks import over_networks

_ATTACKERS = ["clean", "fixed", "fresh", "eot"]
_ATTACKER_COLOURS = ["#8a8a8a", "#56B4E9", "#0072B2", "#D55E00"]


def figure(randomisation: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the accuracy of models whose tolerance is drawn at random.

    Args:
        randomisation: Result of `audit.randomisation_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel an epsilon: a bar for every model and attacker, the mean
        over its networks, with an interval that contains the exact 95 % interval of each.
    """
    by = ["dataset", "norm", "epsilon", "model", "attacker"]
    cells = over_networks(randomisation, by, "accuracy", "accuracy")
    cells["panel"] = cells.epsilon.map(epsilon_label)
    rows = []
    for dataset, norm in groups_of(randomisation):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        base = alt.Chart().encode(
            x=alt.X("model:N", title=None, sort=list(models), axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("attacker:N", sort=_ATTACKERS),
        )
        bars = base.mark_bar().encode(
            y=rate_axis("Accuracy"),
            color=alt.Color(
                "attacker:N",
                title="Attacker",
                scale=alt.Scale(domain=_ATTACKERS, range=_ATTACKER_COLOURS),
                legend=alt.Legend(symbolType="square"),
            ),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("attacker:N", title="Attacker"),
                percent("value", "Accuracy"),
                percent("low", "95 % from"),
                percent("high", "95 % to"),
            ],
        )
        whiskers = base.mark_rule(stroke="currentColor").encode(
            y=rate_axis("Accuracy", field="low"), y2="high:Q"
        )
        wide = 96 * own.model.nunique()
        rows.append(
            alt.layer(bars, whiskers)
            .properties(width=wide, height=PANEL)
            .facet(
                data=inline(own),
                column=alt.Column(
                    "panel:N", title=None, sort=[epsilon_label(e) for e in sorted(set(own.epsilon))]
                ),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "A tolerance drawn at random as a defence",
        [
            "Clean: no attack; fixed: gradients at one tolerance; fresh: a new draw at every step;",
            "eot: gradients averaged over draws. Accuracy over images and drawn tolerances.",
        ],
    )
