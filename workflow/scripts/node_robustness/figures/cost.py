"""The figure of the attack on the cost."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    GREY,
    NORMS,
    PANEL,
    epsilon_label,
    inline,
    styled,
    tolerance_axis,
)

_RUNS = {"clean": GREY, "noise": GOOD, "attacked": BAD}


def figure(cost: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw what images cost clean, with noise and attacked.

    Args:
        cost: Result of `cost.cost_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a panel a model: the mean number of function evaluations
        against the tolerance, a line a network, and a triangle for the costliest image.
    """
    place = ["dataset", "model", "seed", "tolerance", "norm", "epsilon"]
    runs = [
        cost[place].assign(
            run=run, mean=cost[f"nfe_{run}_mean"], most=cost[f"nfe_{run}_max"], ratio=cost.ratio
        )
        for run in _RUNS
    ]
    cells = pd.concat(runs)
    rows = []
    for dataset, norm, epsilon in (
        cells[["dataset", "norm", "epsilon"]].drop_duplicates().to_numpy()
    ):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)]
        base = alt.Chart().encode(
            x=tolerance_axis(own.tolerance),
            color=alt.Color(
                "run:N",
                title="Images",
                scale=alt.Scale(domain=list(_RUNS), range=list(_RUNS.values())),
            ),
            detail="seed:N",
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("seed:N", title="Seed"),
                alt.Tooltip("tolerance:Q", title="Tolerance τ", format="~g"),
                alt.Tooltip("run:N", title="Images"),
                alt.Tooltip("mean:Q", title="Evaluations, mean", format=".1f"),
                alt.Tooltip("most:Q", title="Evaluations, largest"),
                alt.Tooltip("ratio:Q", title="Attacked over clean, median", format=".3f"),
            ],
        )
        mean = alt.Y("mean:Q", title="Function evaluations per image")
        rows.append(
            alt.layer(
                base.mark_line().encode(y=mean),
                base.mark_point(filled=True, size=45, opacity=1).encode(y=mean),
                base.mark_point(shape="triangle-up", size=45).encode(
                    y=alt.Y("most:Q", title="Function evaluations per image")
                ),
            )
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "An attack on the cost",
        [
            "Lines: means over images, one a network; triangles: the costliest image.",
            "Noise: random, as large as the attack may be.",
        ],
    )
