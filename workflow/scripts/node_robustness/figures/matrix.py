"""The figure of adversarial examples that are evaluated at other tolerances."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    epsilon_label,
    heat_map,
    inline,
    percent,
    styled,
    tau_labels,
)
from node_robustness.numbers import label


def figure(matrix: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw adversarial examples made at one tolerance and evaluated at another.

    Args:
        matrix: Result of `audit.matrix_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm, epsilon and attack a heat map a model: tolerance of the attack
        by tolerance of the evaluation, coloured by robust accuracy, the mean over seeds.
    """
    by = ["dataset", "norm", "epsilon", "attack", "model", "tolerance", "tau", "evaluated_at"]
    means = matrix[matrix.tolerance.notna()].groupby(by, sort=False, as_index=False)
    cells = means[["robust_accuracy", "accuracy", "kept_rate"]].mean()
    cells["made"] = cells.tau
    cells["evaluated"] = cells.evaluated_at.map(label)
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("made:N", title="Attacked at τ"),
        alt.Tooltip("evaluated:N", title="Evaluated at τ"),
        percent("robust_accuracy", "Robust accuracy"),
        percent("accuracy", "Clean accuracy"),
        percent("kept_rate", "Adversarial examples that stay so"),
    ]
    rows = []
    for dataset, norm, epsilon, attack in cells[by[:4]].drop_duplicates().to_numpy():
        here = (cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)
        own = cells[here & (cells.attack == attack)]
        panels = []
        for model in (name for name in models if name in set(own.model)):
            mine = own[own.model == model]
            taus = [label(tau) for tau in sorted(set(mine.evaluated_at))]
            x = alt.X("evaluated:N", title="Evaluated at τ", sort=taus, axis=alt.Axis(labelAngle=0))
            y = alt.Y("made:N", title="Attacked at τ", sort=tau_labels(mine))
            chart = heat_map(mine, x, y, "robust_accuracy", "Robust accuracy", tooltip)
            panels.append(chart.properties(data=inline(mine), title=model))
        title = f"{dataset}: {attack}, {NORMS[norm]}, {epsilon_label(epsilon)}"
        rows.append(alt.hconcat(*panels, title=title, spacing=24))
    return styled(
        alt.vconcat(*rows),
        "Attacked at one tolerance, evaluated at another",
        ["Share of all images that are classified correctly, clean and attacked."],
    )
