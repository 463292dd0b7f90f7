"""The figure of detection by the disagreement of tolerances."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    epsilon_label,
    inline,
    roc_curves,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
)


def figure(roc: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the ROC curves of the detector.

    Args:
        roc: Result of `audit.roc_table`.
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
        dashes = alt.StrokeDash(
            "attacker:N",
            title="Attack",
            scale=alt.Scale(domain=["plain", "adaptive"], range=[[1, 0], [5, 3]]),
        )
        columns = ["model", "seed", "tau", "attacker", "false_positive_rate", "true_positive_rate"]
        rows.append(
            roc_curves(alt.Chart(), tau_colour(tau_labels(own)), dashes)
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Detection by the disagreement of tolerances",
        ["ROC curves; dashed: an attack that knows the detector. On the grey line it is chance."],
    )
