"""Figures of the verdict: what holds, what is masked, and what that rests on."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NO_ODE,
    NORMS,
    PANEL,
    Layers,
    epsilon_label,
    groups_of,
    heat_map,
    inline,
    percent,
    rate_axis,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
)
from node_robustness.verdict.checks import FAILED, NOT_MEASURED, PASSED
from node_robustness.verdict.protocols import CONTROL
from node_robustness.verdict.verdicts import HOLDS, MASKED, UNDECIDED

# Blue and vermilion differ for the colour-blind too, and every field bears a symbol besides.
_GOOD, _BAD, _OPEN, _PAPER = "#0072B2", "#D55E00", "#6b6b6b", "#E69F00"
_SYMBOLS = {HOLDS: "✓", MASKED: "✕", UNDECIDED: "?"}
_MARKS = {PASSED: "✓", FAILED: "✕", NOT_MEASURED: "–"}
_PROTOCOLS = {"strongest": "strongest attack", "paper": "paper's", CONTROL: "random noise"}
_PROTOCOL_DASHES = [[1, 0], [5, 3], [1, 3]]
_LEVEL = alt.Axis(labelAngle=0)
_FIELD, _HIGH, _WIDEST = 100, 38, 1000
_TICK = 36  # as wide as a tolerance is written
_BECAUSE = {
    "no_correct": "nothing correct",
    "no_paper": "no paper's attack",
    "no_robustness": "little is left",
    "weak_attack": "paper's attack weak",
    "ladder": "attacks too weak",
    "checks": "checks not passed",
    "images": "too few images",
    "seeds": "too few seeds",
}


def verdict_figure(verdicts: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
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
        tau=verdicts.tolerance.map(tau_label),
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
            x=alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(own), axis=_LEVEL),
            y=alt.Y("model:N", title=None, sort=list(models)),
            # Of the words too, which lie over most of a field.
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("tau:N", title="Tolerance τ"),
                alt.Tooltip("verdict:N", title="Verdict"),
                percent("paper", "Robust, paper's protocol"),
                percent("strongest", "Robust, strongest attack"),
                percent("gap", "Gap"),
                percent("gap_low", "95 % from"),
                percent("gap_high", "95 % to"),
                alt.Tooltip("reason:N", title="Because"),
            ],
        )
        fields = base.mark_rect(stroke="white", strokeWidth=3).encode(
            color=alt.Color(
                "verdict:N",
                title="Robustness",
                scale=alt.Scale(domain=[HOLDS, MASKED, UNDECIDED], range=[_GOOD, _BAD, _OPEN]),
                legend=alt.Legend(symbolType="square"),
            ),
        )
        # On its own: a still falls back for all of a text on a font that has the symbol.
        symbols = base.mark_text(color="white", dx=-38).encode(text="symbol:N")
        rates = base.mark_text(color="white", fontWeight=600, dx=7, dy=-7).encode(text="rates:N")
        words = base.mark_text(color="white", fontSize=10, dx=7, dy=8).encode(text="word:N")
        wide = _FIELD * own.tau.nunique()
        epsilons = [epsilon_label(epsilon) for epsilon in sorted(set(own.epsilon))]
        rows.append(
            alt.layer(fields, symbols, rates, words)
            .properties(width=wide, height=_HIGH * own.model.nunique())
            .facet(
                data=inline(own.drop(columns=["experiment", "because"])),
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


def protocol_figure(verdicts: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
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
            alt.layer(*_protocol_layers(own))
            .properties(width=max(0.8 * PANEL, _TICK * own.tau.nunique()), height=0.7 * PANEL)
            .facet(
                data=inline(own.drop(columns=["experiment", "because", "reason"])),
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


def _protocol_layers(cells: pd.DataFrame) -> list[alt.Chart]:
    base = alt.Chart().encode(
        x=alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(cells), axis=_LEVEL)
    )
    title = "Robust accuracy"
    layers = [
        alt.Chart()
        .transform_filter("isValid(datum.strongest_plain)")
        .mark_rule(color=GREY, strokeDash=[4, 3])
        .encode(y=rate_axis(title, field="strongest_plain")),
        base.mark_bar(size=9, color=_BAD, opacity=0.55).encode(
            y=rate_axis(title, field="strongest"), y2="paper:Q"
        ),
    ]
    for protocol, shape, colour, shift in (
        ("paper", "diamond", _PAPER, -9),
        ("strongest", "circle", _GOOD, 9),
    ):
        told = alt.Color(
            "protocol:N",
            title="Protocol",
            scale=alt.Scale(domain=["paper's", "strongest attack"], range=[_PAPER, _GOOD]),
            legend=alt.Legend(symbolType="circle"),
        )
        own = base.transform_calculate(protocol=f'"{_PROTOCOLS[protocol]}"')
        layers += [
            own.mark_rule(xOffset=shift, color=colour, opacity=0.6).encode(
                y=rate_axis(title, field=f"{protocol}_low"), y2=f"{protocol}_high:Q"
            ),
            own.mark_point(xOffset=shift, filled=True, size=60, opacity=1, shape=shape).encode(
                y=rate_axis(title, field=protocol),
                color=told,
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


def ladder_figure(ladder: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw what every attack leaves.

    Args:
        ladder: Result of `protocols.ladder_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a heat map a model: attacks by tolerances, coloured
        by robust accuracy, the mean over seeds.
    """
    by = ["dataset", "norm", "epsilon", "model", "tolerance", "attack"]
    means = ladder.groupby(by, sort=False, as_index=False, dropna=False)
    cells = means[["robust_accuracy", "broken", "alone"]].mean()
    cells["tau"] = cells.tolerance.map(tau_label)
    tooltip = [
        alt.Tooltip("attack:N", title="Attack"),
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        percent("robust_accuracy", "Robust accuracy"),
        alt.Tooltip("broken:Q", title="Images broken", format=".4~g"),
        alt.Tooltip("alone:Q", title="By this attack alone", format=".4~g"),
    ]
    rows = []
    for dataset, norm in groups_of(ladder):
        of_norm = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        for epsilon in sorted(set(of_norm.epsilon)):
            own = of_norm[of_norm.epsilon == epsilon]
            panels = []
            for model in (name for name in models if name in set(own.model)):
                mine = own[own.model == model]
                x = alt.X("tau:N", title="Solver tolerance τ", sort=tau_labels(mine), axis=_LEVEL)
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
            "Robust accuracy, counting an attack's adversarials from all of its epsilons that are "
            "small enough."
        ],
    )


def curve_figure(curves: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw robust accuracy as a function of epsilon.

    Args:
        curves: Result of `protocols.curve_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel a model: a step function for every tolerance, protocol
        (dashes) and seed.
    """
    known = [protocol for protocol in _PROTOCOLS if protocol in set(curves.protocol)]
    cells = curves.assign(
        tau=curves.tolerance.map(tau_label),
        line=curves.protocol.map(_PROTOCOLS),
    )
    rows = []
    for dataset, norm in groups_of(curves):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        lines = (
            alt.Chart()
            .mark_line(interpolate="step-after", opacity=0.9)
            .encode(
                x=alt.X("epsilon:Q", title="Largest perturbation ε", axis=alt.Axis(grid=False)),
                y=rate_axis("Robust accuracy", field="robust_accuracy"),
                strokeDash=alt.StrokeDash(
                    "line:N",
                    title="Protocol",
                    scale=alt.Scale(
                        domain=[_PROTOCOLS[name] for name in known],
                        range=_PROTOCOL_DASHES[: len(known)],
                    ),
                ),
                detail="seed:N",
            )
        )
        plain = alt.FieldEqualPredicate(field="tau", equal=NO_ODE)
        solved = tau_colour(tau_labels(own[own.tolerance.notna()]))
        both = alt.layer(
            lines.transform_filter(~plain).encode(color=solved),
            lines.transform_filter(plain).encode(color=alt.value(GREY)),
        )
        columns = ["model", "seed", "tau", "line", "epsilon", "robust_accuracy"]
        rows.append(
            both.properties(width=1.2 * PANEL, height=PANEL).facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Robust accuracy at every epsilon",
        [
            "Steps at the sizes of the smallest adversarials that were found; one line a seed.",
            "Grey: a model without an ODE, which has no tolerance.",
        ],
    )


def check_figure(checks: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the outcome of every check.

    Args:
        checks: Result of `checks.check_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and seed a grid: checks downwards, models and tolerances from left to
        right.
    """
    several = checks.seed.nunique() > 1
    cells = checks.assign(tau=checks.tolerance.map(tau_label), mark=checks.outcome.map(_MARKS))
    rows = []
    for (dataset, seed), own in cells.groupby(["dataset", "seed"], sort=False):
        panels: list[Layers] = []
        for model in (name for name in models if name in set(own.model)):
            mine = own[own.model == model]
            panels.append(_check_panel(mine, model, own, first=not panels))
        title = f"{dataset}, seed {seed}" if several else str(dataset)
        rows.append(alt.hconcat(*panels, title=title, spacing=12))
    return styled(
        alt.vconcat(*rows),
        "Sanity checks",
        ["✓ passed, ✕ failed, – not measured; empty: does not apply."],
    )


def _check_panel(mine: pd.DataFrame, model: str, every: pd.DataFrame, *, first: bool) -> Layers:
    titles = list(dict.fromkeys(every.title))
    axis = alt.Axis(labelLimit=420, labels=first, ticks=first, domain=first)
    base = alt.Chart(inline(mine.drop(columns=["experiment", "dataset", "supports"]))).encode(
        x=alt.X("tau:N", title="τ", sort=list(dict.fromkeys(mine.tau)), axis=_LEVEL),
        y=alt.Y("title:N", title=None, sort=titles, scale=alt.Scale(domain=titles), axis=axis),
        tooltip=[
            alt.Tooltip("title:N", title="Check"),
            alt.Tooltip("outcome:N", title="Outcome"),
            alt.Tooltip("figure:Q", title="Figure", format=".3~g"),
            alt.Tooltip("bound:N", title="Passes if"),
            alt.Tooltip("threshold:Q", title="of", format=".3~g"),
            alt.Tooltip("failure:N", title="A failure means"),
        ],
    )
    fields = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color(
            "outcome:N",
            title="Outcome",
            scale=alt.Scale(domain=list(_MARKS), range=[_GOOD, _BAD, "#9a9a9a"]),
            legend=alt.Legend(symbolType="square"),
        ),
    )
    marks = base.mark_text(color="white", fontWeight=600).encode(text="mark:N")
    return alt.layer(fields, marks, title=model).properties(
        width=44 * mine.tau.nunique(), height=22 * len(titles)
    )
