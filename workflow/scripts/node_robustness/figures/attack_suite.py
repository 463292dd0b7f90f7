"""The figure of what each attack leaves."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    LEVEL,
    NORMS,
    epsilon_label,
    groups_of,
    heat_map,
    inline,
    percent,
    styled,
    tau_labels,
)


def figure(suite: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw what every attack leaves.

    Args:
        suite: Result of `protocols.suite_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a heat map a model: attacks by tolerances, coloured
        by robust accuracy, the mean over seeds.
    """
    by = ["dataset", "norm", "epsilon", "model", "tolerance", "tau", "attack"]
    means = suite.groupby(by, sort=False, as_index=False, dropna=False)
    cells = means[["robust_accuracy", "broken", "alone"]].mean()
    tooltip = [
        alt.Tooltip("attack:N", title="Attack"),
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        percent("robust_accuracy", "Robust accuracy"),
        alt.Tooltip("broken:Q", title="Images broken", format=".4~g"),
        alt.Tooltip("alone:Q", title="By this attack alone", format=".4~g"),
    ]
    rows = []
    for dataset, norm in groups_of(suite):
        of_norm = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        for epsilon in sorted(set(of_norm.epsilon)):
            own = of_norm[of_norm.epsilon == epsilon]
            panels = []
            for model in (name for name in models if name in set(own.model)):
                mine = own[own.model == model]
                x = alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(mine), axis=LEVEL)
                y = alt.Y("attack:N", title=None, sort=list(dict.fromkeys(own.attack)))
                chart = heat_map(mine, x, y, "robust_accuracy", "Robust accuracy", tooltip)
                panels.append(chart.properties(data=inline(mine), title=model))
            rows.append(
                alt.hconcat(
                    *panels,
                    title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
                    spacing=24,
                )
            )
    return styled(
        alt.vconcat(*rows),
        "What each attack leaves",
        [
            "Robust accuracy. Adversarial examples of an attack count at every epsilon that is "
            "large enough for them."
        ],
    )
