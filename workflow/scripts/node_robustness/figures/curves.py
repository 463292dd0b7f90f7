"""The figure of robust accuracy at every epsilon."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    PROTOCOLS,
    groups_of,
    inline,
    rate_axis,
    styled,
    tau_colour,
    tau_labels,
)
from node_robustness.tables.frame import NO_ODE

_PROTOCOL_DASHES = [[1, 0], [5, 3], [1, 3]]


def figure(curves: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw robust accuracy as a function of epsilon.

    Args:
        curves: Result of `protocols.curve_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel a model: a step function for every tolerance, protocol
        (dashes) and seed.
    """
    known = [protocol for protocol in PROTOCOLS if protocol in set(curves.protocol)]
    cells = curves.assign(
        line=curves.protocol.map(PROTOCOLS),
    )
    rows = []
    for dataset, norm in groups_of(curves):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        lines = (
            alt.Chart()
            .mark_line(interpolate="step-after", opacity=0.9)
            .encode(
                x=alt.X("epsilon:Q", title="Largest perturbation ε", axis=alt.Axis(grid=False)),
                y=rate_axis("Robust accuracy", field="robust_accuracy"),
                strokeDash=alt.StrokeDash(
                    "line:N",
                    title="Protocol",
                    scale=alt.Scale(
                        domain=[PROTOCOLS[name] for name in known],
                        range=_PROTOCOL_DASHES[: len(known)],
                    ),
                ),
                detail="seed:N",
            )
        )
        plain = alt.FieldEqualPredicate(field="tau", equal=NO_ODE)
        solved = tau_colour(tau_labels(own[own.tau != NO_ODE]))
        both = alt.layer(
            lines.transform_filter(~plain).encode(color=solved),
            lines.transform_filter(plain).encode(color=alt.value(GREY)),
        )
        columns = ["model", "seed", "tau", "line", "epsilon", "robust_accuracy"]
        rows.append(
            both.properties(width=1.2 * PANEL, height=PANEL).facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Robust accuracy at every epsilon",
        [
            "Steps at the sizes of the smallest adversarial examples found; one line a seed.",
            "Grey: a model without an ODE, which has no tolerance.",
        ],
    )
