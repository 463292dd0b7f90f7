"""The figure of accuracy under attack."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    by_papers_method,
    curves,
    groups_of,
    in_order,
    inline,
    intervals_note,
    rate_axis,
    styled,
    tau_colour,
    tau_labels,
    with_seeds,
)


def figure(
    attacks: pd.DataFrame, suite: pd.DataFrame, clean: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw robust accuracy against the size of the perturbation.

    Args:
        attacks: Result of `evaluation.attack_table`; those by the paper's method are drawn.
        suite: Result of `protocols.suite_table`.
        clean: Result of `evaluation.clean_table`; its accuracy is the value at epsilon 0.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset, norm and attack, one panel a model, one line a
        tolerance.
    """
    attacks = by_papers_method(attacks, suite)
    own_name = {"accuracy": "robust_accuracy"} | {
        f"accuracy_{bound}": f"robust_{bound}" for bound in ("low", "high")
    }
    under = attacks[["dataset", "norm", "attack"]].drop_duplicates()
    unperturbed = clean.rename(columns=own_name).merge(under, on="dataset").assign(epsilon=0.0)
    both = pd.concat([unperturbed, attacks], ignore_index=True)
    by = ["dataset", "norm", "model", "attack", "tolerance", "epsilon"]
    rates = with_seeds(both, by, "robust_accuracy", "robust")
    rows = []
    for dataset, norm in groups_of(attacks):
        for attack in in_order(attacks.attack):
            own = rates[
                (rates.dataset == dataset) & (rates.norm == norm) & (rates.attack == attack)
            ]
            if own.empty:  # the attack has another norm
                continue
            solved = own.tolerance.notna()
            x = alt.X(
                "epsilon:Q",
                title="Largest perturbation ε",
                axis=alt.Axis(
                    values=sorted(set(own.epsilon)), format=".3~g", grid=False, labelFlush=False
                ),
            )
            y = rate_axis("Robust accuracy")
            layers = [
                *curves(own[solved], x, y, tau_colour(tau_labels(own[solved])), ["tau"]),
                *curves(own[~solved], x, y, alt.value(GREY), ["tau"]),
            ]
            rows.append(
                alt.layer(*layers)
                .properties(width=PANEL, height=PANEL)
                .facet(
                    data=inline(own),
                    column=alt.Column("model:N", title=None, sort=list(models)),
                    title=f"{dataset}: {NORMS[norm]}, {attack}",
                )
            )
    notes = ["Share of all images that are still classified correctly.", intervals_note(attacks)]
    if attacks.tolerance.isna().any():
        notes.append("Grey: a model without an ODE, which has no tolerance.")
    return styled(alt.vconcat(*rows), "Accuracy under attack", notes)
