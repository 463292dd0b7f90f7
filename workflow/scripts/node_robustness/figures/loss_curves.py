"""The figure of the loss along the paths of attacks."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    epsilon_label,
    groups_of,
    inline,
    styled,
    tau_colour,
    tau_labels,
)
from node_robustness.tables.frame import NO_ODE

_ATTACKS = {"paper": "paper's", "apgd": "Auto-PGD"}
_DASHES = [[5, 3], [1, 0]]


def figure(losses: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the loss of attacks, iteration by iteration.

    Args:
        losses: Result of `audit.loss_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel a model: the median over images of the highest loss so
        far, a line for every tolerance, attack (dashes) and seed.
    """
    cells = losses.assign(line=losses.attack.map(_ATTACKS)).dropna(subset=["loss_median"])
    rows = []
    for dataset, norm in groups_of(cells):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        lines = (
            alt.Chart()
            .mark_line(opacity=0.9)
            .encode(
                x=alt.X("iteration:Q", title="Iteration", axis=alt.Axis(grid=False, tickMinStep=1)),
                y=alt.Y(
                    "loss_median:Q",
                    title="Cross-entropy",
                    scale=alt.Scale(type="symlog", constant=0.01),
                ),
                strokeDash=alt.StrokeDash(
                    "line:N",
                    title="Attack",
                    scale=alt.Scale(domain=list(_ATTACKS.values()), range=_DASHES),
                ),
                detail="seed:N",
                tooltip=[
                    alt.Tooltip("tau:N", title="Tolerance τ"),
                    alt.Tooltip("line:N", title="Attack"),
                    alt.Tooltip("iteration:Q", title="Iteration"),
                    alt.Tooltip("loss_median:Q", title="Median", format=".3~g"),
                    alt.Tooltip("loss_q25:Q", title="Lower quartile", format=".3~g"),
                    alt.Tooltip("loss_q75:Q", title="Upper quartile", format=".3~g"),
                    alt.Tooltip("broken:Q", title="Images broken"),
                    alt.Tooltip("n:Q", title="of"),
                ],
            )
        )
        plain = alt.FieldEqualPredicate(field="tau", equal=NO_ODE)
        solved = tau_colour(tau_labels(own[own.tau != NO_ODE]))
        both = alt.layer(
            lines.transform_filter(~plain).encode(color=solved),
            lines.transform_filter(plain).encode(color=alt.value(GREY)),
        )
        columns = ["model", "seed", "tau", "line", "iteration", "n", "broken"]
        columns += [f"loss_{part}" for part in ("median", "q25", "q75")]
        epsilon = epsilon_label(own.epsilon.iloc[0])
        rows.append(
            both.properties(width=1.2 * PANEL, height=PANEL).facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Loss along the attacks",
        [
            "Highest loss so far, median over the audited images; one line a seed, which is one "
            "network.",
            "Grey: a model without an ODE. A curve that still rises at its end has too few steps.",
        ],
    )
