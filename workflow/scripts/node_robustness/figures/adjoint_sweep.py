"""The figure of the adjoint-tolerance sweep."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    epsilon_label,
    inline,
    percent,
    rate_axis,
    styled,
    tau_colour,
    tau_labels,
    tolerance_axis,
)


def figure(sweep: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw robust accuracy against the tolerance of the backward solve.

    Args:
        sweep: Result of `adjoint_sweep.sweep_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a panel a model: for every network and forward tolerance
        a line with exact intervals, and a dashed line for the direct gradient.
    """
    cells = sweep
    rows = []
    places = cells[["dataset", "norm", "epsilon"]].drop_duplicates()
    for dataset, norm, epsilon in places.to_numpy():
        own = cells[(cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)]
        taus = tau_labels(own)
        own = own.assign(tolerance=own.backward_tolerance)
        columns = ["model", "seed", "tau", "gradient", "tolerance"]
        columns += ["robust_accuracy", "robust_accuracy_low", "robust_accuracy_high"]
        base = alt.Chart().encode(
            color=tau_colour(taus).title("Tolerance τ of the forward solve"),
            detail="seed:N",
            y=rate_axis("Robust accuracy", field="robust_accuracy"),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("seed:N", title="Seed"),
                alt.Tooltip("tau:N", title="Forward τ"),
                alt.Tooltip("gradient:N", title="Gradient"),
                alt.Tooltip("tolerance:Q", title="Backward τ", format="~g"),
                percent("robust_accuracy", "Robust accuracy"),
                percent("robust_accuracy_low", "95 % from"),
                percent("robust_accuracy_high", "95 % to"),
            ],
        )
        adjoint = base.transform_filter("datum.gradient == 'adjoint'").encode(
            x=tolerance_axis(own.tolerance).title("Tolerance of the backward solve")
        )
        rows.append(
            alt.layer(
                base.transform_filter("datum.gradient == 'direct'").mark_rule(
                    strokeDash=[5, 3], size=2
                ),
                adjoint.mark_rule(size=1.5, opacity=0.55).encode(
                    y=rate_axis("Robust accuracy", field="robust_accuracy_low"),
                    y2="robust_accuracy_high:Q",
                ),
                adjoint.mark_line(),
                adjoint.mark_point(filled=True, size=45, opacity=1),
            )
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "The paper's attack with its adjoint solved at other tolerances",
        [
            "A line a network and forward tolerance; bars: exact 95 % intervals over its images.",
            "Dashed: the same attack with the direct gradient.",
        ],
    )
