"""Figures of what attacks achieve."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NO_ODE,
    NORMS,
    PANEL,
    Layers,
    against_tolerance,
    curves,
    epsilon_label,
    groups_of,
    in_order,
    inline,
    intervals_note,
    rate_axis,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
    with_seeds,
)
from node_robustness.tables.examples import layout_note

_PARTS = ["clean", "perturbation", "adversarial"]
_IMAGE = 84


def published(attacks: pd.DataFrame, ladder: pd.DataFrame) -> pd.DataFrame:
    """Choose the attacks whose rates are drawn as curves: those by the paper's method.

    Args:
        attacks: Result of `tables.attack_table`.
        ladder: Result of `protocols.ladder_table`, which shows all of them.

    Returns:
        The rows of the basic iterative method with its various gradients; all rows if none is.
    """
    own = attacks[attacks.attack.isin(ladder.attack[ladder.method == "bim"])]
    return own if len(own) else attacks


def success_figure(attacks: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the attack success rate against the tolerance.

    Args:
        attacks: Result of `tables.attack_table`.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset and norm, one panel an epsilon; dashes and shapes tell
        attacks apart; a model without an ODE is a horizontal line with a band.
    """
    by = ["dataset", "norm", "epsilon", "attack", "model", "tolerance"]
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
        ],
    )


def robust_figure(
    attacks: pd.DataFrame, clean: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw robust accuracy against the size of the perturbation.

    Args:
        attacks: Result of `tables.attack_table`.
        clean: Result of `tables.clean_table`; its accuracy is the value at epsilon 0.
        models: All models of the experiment.

    Returns:
        A row of panels for every dataset, norm and attack, one panel a model, one line a
        tolerance.
    """
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


def example_figure(examples: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Show clean image, perturbation and adversarial image side by side.

    Args:
        examples: Result of `examples.example_table`.
        models: All models of the experiment.

    Returns:
        A block of images for each model, one row an image: the predicted class below clean and
        adversarial image, the scale below the perturbation.
    """
    cells = examples[["attack", "norm", "epsilon"]].drop_duplicates().itertuples(index=False)
    attacks = [
        f"{attack}, {NORMS[norm]}, {epsilon_label(epsilon)}" for attack, norm, epsilon in cells
    ]
    keys = ["dataset", "model", "tolerance", "row"]
    long = pd.concat(
        examples[keys].assign(part=part, url=examples[part], caption=examples[f"{part}_caption"])
        for part in _PARTS
    )
    rows = []
    for dataset in in_order(long.dataset):
        own = long[long.dataset == dataset]
        blocks = [_block(own[own.model == model]) for model in models if model in set(own.model)]
        rows.append(alt.hconcat(*blocks, spacing=28))
    return styled(
        alt.vconcat(*rows),
        "Images on which the attack succeeded",
        [
            *attacks,
            "Below the images: the predicted class; below the perturbation: its full colours.",
            "Perturbation: blue lowers, red raises intensity (colour images: grey is no change).",
            *layout_note(examples.channels),
        ],
    )


def _block(pictures: pd.DataFrame) -> Layers:
    base = alt.Chart(inline(pictures)).encode(
        x=alt.X(
            "part:N",
            sort=_PARTS,
            title=None,
            axis=alt.Axis(orient="top", domain=False, ticks=False, labelAngle=0),
        ),
        y=alt.Y("row:O", axis=None),
    )
    dataset, model, tolerance = pictures[["dataset", "model", "tolerance"]].iloc[0]
    tau = NO_ODE if pd.isna(tolerance) else f"τ = {tau_label(tolerance)}"
    return alt.layer(
        base.mark_image(width=_IMAGE, height=_IMAGE, yOffset=-8).encode(url="url:N"),
        base.mark_text(dy=_IMAGE / 2 + 2, fill="currentColor", limit=_IMAGE + 8).encode(
            text="caption:N"
        ),
        title=f"{dataset}: {model}, {tau}",
    ).properties(width=alt.Step(_IMAGE + 12), height=alt.Step(_IMAGE + 32))
