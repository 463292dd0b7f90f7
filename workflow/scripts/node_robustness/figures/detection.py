"""The figure of how well adversarial examples are detected."""

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
    tau_labels,
)

_ATTACKS = {
    "plain": "stops at its first success",
    "confident": "goes on",
    "adaptive": "knows the disagreement",
}
_DASHES = [[1, 0], [5, 3], [2, 2]]


def figure(roc: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the ROC curves of the detectors.

    Args:
        roc: Result of `audit.roc_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a grid, models from left to right, detectors downwards:
        a curve for every tolerance, attacker (dashes) and seed, and the diagonal of chance.
    """
    cells = roc.assign(attack=roc.attacker.map(_ATTACKS))
    rows = []
    places = cells[["dataset", "norm", "epsilon"]].drop_duplicates()
    for dataset, norm, epsilon in places.to_numpy():
        own = cells[(cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)]
        dashes = alt.StrokeDash(
            "attack:N",
            title="Attack",
            scale=alt.Scale(domain=[*_ATTACKS.values()], range=_DASHES),
        )
        columns = ["model", "seed", "tau", "attack", "detector"]
        rows.append(
            roc_curves(alt.Chart(), tau_colour(tau_labels(own)), dashes)
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own[[*columns, "false_positive_rate", "true_positive_rate"]]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                row=alt.Row("detector:N", title=None, sort=["disagreement", "confidence"]),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Detection by the disagreement of tolerances, and by confidence",
        ["ROC curves; the line's pattern is the attack. On the grey line it is chance."],
    )
