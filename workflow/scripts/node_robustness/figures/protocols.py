"""The figure of robust accuracy under the paper's protocol and under the strongest attack."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    GREY,
    LEVEL,
    NORMS,
    PANEL,
    PAPER,
    PROTOCOLS,
    epsilon_label,
    groups_of,
    inline,
    percent,
    rate_axis,
    styled,
    tau_label,
    tau_labels,
)

_TICK = 36  # as wide as a tolerance is written


def figure(verdicts: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw robust accuracy under the paper's protocol and under the strongest attack.

    Args:
        verdicts: Result of `verdicts.verdict_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a grid, models from left to right, epsilons downwards: at each
        tolerance the two robust accuracies with their 95 % intervals and a bar between them, the
        gap. A grey line is the strongest attack on the model without an ODE.
    """
    plain = verdicts[verdicts.tolerance.isna()]
    line = plain.drop_duplicates(["dataset", "norm", "epsilon"])
    line = line[["dataset", "norm", "epsilon", "strongest"]]
    cells = verdicts.merge(line, "left", ["dataset", "norm", "epsilon"], suffixes=("", "_plain"))
    cells = cells.assign(tau=cells.tolerance.map(tau_label), panel=cells.epsilon.map(epsilon_label))
    rows = []
    for dataset, norm in groups_of(verdicts):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        rows.append(
            alt.layer(*_layers(own))
            .properties(width=max(0.8 * PANEL, _TICK * own.tau.nunique()), height=0.7 * PANEL)
            .facet(
                data=inline(own.drop(columns=["experiment", "because", "reason", "lacks"])),
                column=alt.Column("model:N", title=None, sort=list(models)),
                row=alt.Row(
                    "panel:N", title=None, sort=[epsilon_label(e) for e in sorted(set(own.epsilon))]
                ),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    notes = ["Robust accuracy with 95 % intervals; the orange bar between the two is the gap."]
    if len(plain):
        notes.append(f"Grey line: the strongest attack on {plain.model.iloc[0]}, without an ODE.")
    return styled(alt.vconcat(*rows), "The paper's protocol and the strongest attack", notes)


def _layers(cells: pd.DataFrame) -> list[alt.Chart]:
    base = alt.Chart().encode(
        x=alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(cells), axis=LEVEL)
    )
    title = "Robust accuracy"
    layers = [
        alt.Chart()
        .transform_filter("isValid(datum.strongest_plain)")
        .mark_rule(color=GREY, strokeDash=[4, 3])
        .encode(y=rate_axis(title, field="strongest_plain")),
        base.mark_bar(size=9, color=BAD, opacity=0.55).encode(
            y=rate_axis(title, field="strongest"), y2="paper:Q"
        ),
    ]
    for protocol, shape, colour, shift in (
        ("paper", "diamond", PAPER, -9),
        ("strongest", "circle", GOOD, 9),
    ):
        colours = alt.Color(
            "protocol:N",
            title="Protocol",
            scale=alt.Scale(domain=["paper's", "strongest attack"], range=[PAPER, GOOD]),
            legend=alt.Legend(symbolType="circle"),
        )
        own = base.transform_calculate(protocol=f'"{PROTOCOLS[protocol]}"')
        layers += [
            own.mark_rule(xOffset=shift, color=colour, opacity=0.6).encode(
                y=rate_axis(title, field=f"{protocol}_low"), y2=f"{protocol}_high:Q"
            ),
            own.mark_point(xOffset=shift, filled=True, size=60, opacity=1, shape=shape).encode(
                y=rate_axis(title, field=protocol),
                color=colours,
                tooltip=[
                    alt.Tooltip("model:N", title="Model"),
                    alt.Tooltip("tau:N", title="Tolerance τ"),
                    alt.Tooltip("protocol:N", title="Protocol"),
                    percent(protocol, "Robust accuracy"),
                    percent(f"{protocol}_low", "95 % from"),
                    percent(f"{protocol}_high", "95 % to"),
                    percent("gap", "Gap"),
                    alt.Tooltip("verdict:N", title="Verdict"),
                ],
            ),
        ]
    return layers
