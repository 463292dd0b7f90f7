"""The figure of detection by the disagreement of tolerances."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    epsilon_label,
    inline,
    rate_axis,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
)


def figure(roc: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the ROC curves of the detector.

    Args:
        roc: Result of `audit_tables.roc_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a panel a model: a curve for every tolerance, attacker
        (dashes) and seed, and the diagonal of chance.
    """
    cells = roc.assign(tau=roc.tolerance.map(tau_label))
    rows = []
    places = cells[["dataset", "norm", "epsilon"]].drop_duplicates()
    for dataset, norm, epsilon in places.to_numpy():
        own = cells[(cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)]
        x = alt.X(
            "false_positive_rate:Q",
            title="Clean images suspected",
            axis=alt.Axis(format="~%", tickCount=3),
            scale=alt.Scale(domain=[0, 1]),
        )
        y = rate_axis("Adversarial examples detected", field="true_positive_rate")
        lines = (
            alt.Chart()
            .mark_line()
            .encode(
                x=x,
                y=y,
                color=tau_colour(tau_labels(own)),
                strokeDash=alt.StrokeDash(
                    "attacker:N",
                    title="Attack",
                    scale=alt.Scale(domain=["plain", "adaptive"], range=[[1, 0], [5, 3]]),
                ),
                detail="seed:N",
                order="true_positive_rate:Q",
            )
        )
        chance = (
            alt.Chart()
            .mark_rule(color=GREY, strokeWidth=1)
            .encode(x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0), y2=alt.datum(1))
        )
        columns = ["model", "seed", "tau", "attacker", "false_positive_rate", "true_positive_rate"]
        rows.append(
            alt.layer(chance, lines)
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Adversarial examples given away by the disagreement of tolerances",
        ["ROC curves; dashed: an attack that knows the detector. On the grey line it is chance."],
    )
