"""The figure of the verdict in every setting."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    LEVEL,
    NORMS,
    OPEN,
    PAPER,
    epsilon_label,
    groups_of,
    inline,
    percent,
    styled,
    tau_labels,
)
from node_robustness.verdict.verdicts import (
    BROKEN,
    MASKED,
    SURVIVES,
    UNDECIDED,
    UNDER_SEARCHED,
    VERDICTS,
)

_SYMBOLS = {BROKEN: "✕", MASKED: "◐", UNDER_SEARCHED: "◔", SURVIVES: "✓", UNDECIDED: "?"}
# Okabe and Ito's, and black or white words, whichever can be read on them.
_COLOURS = {
    BROKEN: (BAD, "black"),
    MASKED: ("#CC79A7", "black"),
    UNDER_SEARCHED: (PAPER, "black"),
    SURVIVES: (GOOD, "white"),
    UNDECIDED: (OPEN, "white"),
}
_ON_DARK = [name for name, (_, words) in _COLOURS.items() if words == "white"]
_READABLE = alt.condition(
    alt.FieldOneOfPredicate(field="verdict", oneOf=_ON_DARK), alt.value("white"), alt.value("black")
)
_FIELD, _HIGH, _WIDEST = 100, 38, 1000
_BECAUSE = {
    "no_images": "no images",
    "no_correct": "nothing correct",
    "no_accuracy": "little accuracy",
    "no_paper": "no paper's attack",
    "no_corrected": "cause not known",
    "mixed": "both causes",
    "attacks": "weak attacks",
    "saturation": "not saturated",
    "checks": "checks not passed",
    "images": "too few images",
    "networks": "networks differ",
    "margin": "on a margin",
}


def figure(verdicts: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the verdict on every cell.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel an epsilon: models by tolerances, each field coloured
        and marked by its verdict, with robust accuracy under both protocols, and below in a word
        that verdict or why there is none.
    """
    cells = verdicts.assign(
        panel=verdicts.epsilon.map(epsilon_label),
        symbol=verdicts.verdict.map(_SYMBOLS),
        rates=[
            f"{_whole(paper)} → {_whole(strongest)} %"
            for paper, strongest in zip(verdicts.paper, verdicts.strongest, strict=True)
        ],
        word=verdicts.because.map(_BECAUSE).where(verdicts.verdict == UNDECIDED, verdicts.verdict),
    )
    rows = []
    for dataset, norm in groups_of(verdicts):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        base = alt.Chart().encode(
            x=alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(own), axis=LEVEL),
            y=alt.Y("model:N", title=None, sort=list(models)),
            # Of the words too, which lie over most of a field.
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("tau:N", title="Tolerance τ"),
                alt.Tooltip("verdict:N", title="Verdict"),
                percent("paper", "Robust, paper's protocol"),
                percent("strongest", "Robust, strongest attack"),
                percent("masked", "Masked gradient"),
                percent("weak", "Weak search"),
                alt.Tooltip("level:N", title="Of"),
                alt.Tooltip("reason:N", title="Because"),
            ],
        )
        fields = base.mark_rect(stroke="white", strokeWidth=3).encode(
            color=alt.Color(
                "verdict:N",
                title="Robustness",
                scale=alt.Scale(
                    domain=list(VERDICTS), range=[_COLOURS[name][0] for name in VERDICTS]
                ),
                legend=alt.Legend(symbolType="square"),
            ),
        )
        # On its own: a still falls back for all of a text on a font that has the symbol.
        texts = base.encode(color=_READABLE)
        symbols = texts.mark_text(dx=-38).encode(text="symbol:N")
        rates = texts.mark_text(fontWeight=600, dx=7, dy=-7).encode(text="rates:N")
        words = texts.mark_text(fontSize=10, dx=7, dy=8).encode(text="word:N")
        wide = _FIELD * own.tau.nunique()
        epsilons = [epsilon_label(epsilon) for epsilon in sorted(set(own.epsilon))]
        rows.append(
            alt.layer(fields, symbols, rates, words)
            .properties(width=wide, height=_HIGH * own.model.nunique())
            .facet(
                data=inline(own.drop(columns=["experiment", "because", "lacks"])),
                facet=alt.Facet("panel:N", title=None, sort=epsilons),
                columns=max(1, _WIDEST // wide),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "What is real and what is masked",
        [
            "Robust accuracy under the paper's protocol → the strongest attack; below, the verdict "
            "or why there is none.",
        ],
    )


def _whole(rate: float) -> str:
    return "–" if pd.isna(rate) else f"{100 * rate:.0f}"
