"""The figure of adversarial images."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    Layers,
    epsilon_label,
    in_order,
    inline,
    styled,
)
from node_robustness.tables.examples import layout_note
from node_robustness.tables.frame import tau_words

_PARTS = ["clean", "perturbation", "adversarial"]
_IMAGE = 84


def figure(examples: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
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
    keys = ["dataset", "model", "tolerance", "tau", "attack", "norm", "epsilon", "row"]
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
    dataset, model, tau = pictures[["dataset", "model", "tau"]].iloc[0]
    return alt.layer(
        base.mark_image(width=_IMAGE, height=_IMAGE, yOffset=-8).encode(url="url:N"),
        base.mark_text(dy=_IMAGE / 2 + 2, fill="currentColor", limit=_IMAGE + 8).encode(
            text="caption:N"
        ),
        title=f"{dataset}: {model}, {tau_words(tau)}",
    ).properties(width=alt.Step(_IMAGE + 12), height=alt.Step(_IMAGE + 32))
