"""The figure of the success rate of attacks."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    against_tolerance,
    by_papers_method,
    epsilon_label,
    groups_of,
    inline,
    intervals_note,
    levels_note,
    styled,
    with_seeds,
)


def figure(attacks: pd.DataFrame, suite: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the attack success rate against the tolerance.

    Args:
        attacks: Result of `evaluation.attack_table`; those by the paper's method are drawn.
        suite: Result of `protocols.suite_table`.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset and norm, one panel an epsilon; dashes and shapes tell
        attacks apart; own settings and models without an ODE are horizontal lines with bands.
    """
    attacks = by_papers_method(attacks, suite)
    by = ["dataset", "norm", "epsilon", "attack", "model", "tolerance", "tau"]
    rates = with_seeds(attacks, by, "success_rate", "success")
    rates["panel"] = rates.epsilon.map(epsilon_label)
    rows = []
    for dataset, norm in groups_of(attacks):
        own = rates[(rates.dataset == dataset) & (rates.norm == norm)]
        panels = [epsilon_label(epsilon) for epsilon in sorted(set(own.epsilon))]
        rows.append(
            against_tolerance(own, "Attack success rate", ["model", "attack"], models)
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own),
                column=alt.Column("panel:N", title=None, sort=panels),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Attack success rate at each tolerance",
        [
            "Share of the correctly classified images on which the attack succeeded.",
            intervals_note(attacks),
            *levels_note(attacks),
        ],
    )
