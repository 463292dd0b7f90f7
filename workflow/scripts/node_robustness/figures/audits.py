"""Figures of gradients, of other tolerances, and of defences by the tolerance."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    GREY,
    NORMS,
    PANEL,
    epsilon_label,
    groups_of,
    heat_map,
    in_order,
    inline,
    model_colour,
    percent,
    rate_axis,
    styled,
    tau_colour,
    tau_label,
    tau_labels,
    tolerance_axis,
)
from node_robustness.tables.audit import FINITE_DIFFERENCES

_AGREEMENT = {"cosine": "Cosine", "sign_agreement": "Share of equal signs"}
_ATTACKERS = ["clean", "fixed", "fresh", "eot"]
_ATTACKER_COLOURS = ["#8a8a8a", "#56B4E9", "#0072B2", "#D55E00"]


def audit_figure(audit: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw how gradients agree, by the tolerance.

    Args:
        audit: Result of `audit_tables.audit_table`.
        models: All models of the experiment.

    Returns:
        For every dataset a row each for the cosine and the share of equal signs between direct
        gradients and those of another source, a panel a source, and one for the relative error of
        directional derivatives against finite differences: median and quartiles over images, the
        mean of both over seeds. Models without an ODE have only one kind of gradient.
    """
    columns = [f"{name}_{part}" for name in (*_AGREEMENT, "error") for part in _QUARTILES]
    by = ["dataset", "model", "tolerance", "source", "reference"]
    solved = audit[audit.tolerance.notna()]
    means = solved.groupby(by, sort=False, as_index=False)[columns].mean()
    rows = []
    for dataset in in_order(means.dataset):
        own = means[means.dataset == dataset]
        pairs = own[own.reference == "direct"].assign(panel=own.source + " and direct")
        for name, title in _AGREEMENT.items():
            rows.append(
                _by_source(pairs, name, title, models).properties(
                    title=f"{dataset}: {title.lower()} of gradients"
                )
            )
        differences = own[own.reference.isin(FINITE_DIFFERENCES.values())]
        differences = differences.assign(panel=differences.source + ", " + differences.reference)
        rows.append(
            _by_source(
                differences[differences.source.isin(["direct", "adjoint"])],
                "error",
                "Relative error",
                models,
            ).properties(title=f"{dataset}: derivatives along directions")
        )
    return styled(
        alt.vconcat(*rows),
        "Where gradients point",
        [
            "Median over images with quartiles. Direct: through the solver's steps; adjoint: the "
            "paper's;",
            "tight and rk4: of the same network solved more exactly, judged at the tolerance τ.",
        ],
    )


_QUARTILES = ("median", "q25", "q75")


def _by_source(cells: pd.DataFrame, name: str, title: str, models: Sequence[str]) -> alt.FacetChart:
    scale = alt.Scale(type="symlog", constant=0.01) if name == "error" else alt.Undefined
    base = alt.Chart().encode(x=tolerance_axis(cells.tolerance), color=model_colour(models))
    y = alt.Y(f"{name}_median:Q", title=title, scale=scale)
    layers = alt.layer(
        base.mark_rule(opacity=0.5).encode(
            y=alt.Y(f"{name}_q25:Q", title=title, scale=scale), y2=f"{name}_q75:Q"
        ),
        base.mark_line().encode(y=y),
        base.mark_point(filled=True, size=45, opacity=1).encode(
            y=y,
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("tolerance:Q", title="Tolerance τ", format="~g"),
                alt.Tooltip(f"{name}_median:Q", title="Median", format=".3~f"),
                alt.Tooltip(f"{name}_q25:Q", title="Lower quartile", format=".3~f"),
                alt.Tooltip(f"{name}_q75:Q", title="Upper quartile", format=".3~f"),
            ],
        ),
    )
    columns = ["model", "tolerance", "panel", *(f"{name}_{part}" for part in _QUARTILES)]
    return layers.properties(width=PANEL, height=0.6 * PANEL).facet(
        data=inline(cells[columns]),
        column=alt.Column("panel:N", title=None, sort=list(dict.fromkeys(cells.panel))),
    )


def matrix_figure(matrix: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw adversarials made at one tolerance and judged at another.

    Args:
        matrix: Result of `audit_tables.matrix_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm, epsilon and attack a heat map a model: tolerance of the attack
        by tolerance of the judgement, coloured by robust accuracy, the mean over seeds.
    """
    by = ["dataset", "norm", "epsilon", "attack", "model", "tolerance", "evaluated_at"]
    means = matrix[matrix.tolerance.notna()].groupby(by, sort=False, as_index=False)
    cells = means[["robust_accuracy", "accuracy", "kept_rate"]].mean()
    cells["made"] = cells.tolerance.map(tau_label)
    cells["judged"] = cells.evaluated_at.map(tau_label)
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("made:N", title="Attacked at τ"),
        alt.Tooltip("judged:N", title="Judged at τ"),
        percent("robust_accuracy", "Robust accuracy"),
        percent("accuracy", "Clean accuracy"),
        percent("kept_rate", "Adversarials that stay so"),
    ]
    rows = []
    for dataset, norm, epsilon, attack in cells[by[:4]].drop_duplicates().to_numpy():
        here = (cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)
        own = cells[here & (cells.attack == attack)]
        panels = []
        for model in (name for name in models if name in set(own.model)):
            mine = own[own.model == model]
            judged = [tau_label(tau) for tau in sorted(set(mine.evaluated_at))]
            x = alt.X("judged:N", title="Judged at τ", sort=judged, axis=alt.Axis(labelAngle=0))
            y = alt.Y("made:N", title="Attacked at τ", sort=tau_labels(mine))
            chart = heat_map(mine, x, y, "robust_accuracy", "Robust accuracy", tooltip)
            panels.append(chart.properties(data=inline(mine), title=model))
        title = f"{dataset}: {attack}, {NORMS[norm]}, {epsilon_label(epsilon)}"
        rows.append(alt.hconcat(*panels, title=title, spacing=24))
    return styled(
        alt.vconcat(*rows),
        "Attacked at one tolerance, judged at another",
        ["Share of all images that are classified correctly, clean and attacked."],
    )


def randomisation_figure(randomisation: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the accuracy of models whose tolerance is drawn at random.

    Args:
        randomisation: Result of `audit_tables.randomisation_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a panel an epsilon: a bar for every model and attacker with its
        95 % interval; with several seeds their means.
    """
    by = ["dataset", "norm", "epsilon", "model", "attacker"]
    values = ["accuracy", "accuracy_low", "accuracy_high"]
    cells = randomisation.groupby(by, sort=False, as_index=False)[values].mean()
    cells["panel"] = cells.epsilon.map(epsilon_label)
    rows = []
    for dataset, norm in groups_of(randomisation):
        own = cells[(cells.dataset == dataset) & (cells.norm == norm)]
        base = alt.Chart().encode(
            x=alt.X("model:N", title=None, sort=list(models), axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("attacker:N", sort=_ATTACKERS),
        )
        bars = base.mark_bar().encode(
            y=rate_axis("Accuracy", field="accuracy"),
            color=alt.Color(
                "attacker:N",
                title="Attacker",
                scale=alt.Scale(domain=_ATTACKERS, range=_ATTACKER_COLOURS),
                legend=alt.Legend(symbolType="square"),
            ),
            tooltip=[
                alt.Tooltip("model:N", title="Model"),
                alt.Tooltip("attacker:N", title="Attacker"),
                percent("accuracy", "Accuracy"),
                percent("accuracy_low", "95 % from"),
                percent("accuracy_high", "95 % to"),
            ],
        )
        whiskers = base.mark_rule(stroke="currentColor").encode(
            y=rate_axis("Accuracy", field="accuracy_low"), y2="accuracy_high:Q"
        )
        wide = 96 * own.model.nunique()
        rows.append(
            alt.layer(bars, whiskers)
            .properties(width=wide, height=PANEL)
            .facet(
                data=inline(own),
                column=alt.Column(
                    "panel:N", title=None, sort=[epsilon_label(e) for e in sorted(set(own.epsilon))]
                ),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "A tolerance drawn at random as a defence",
        [
            "Clean: no attack; fixed: gradients at one tolerance; fresh: a new draw at every step;",
            "eot: gradients averaged over draws. Accuracy over images and drawn tolerances.",
        ],
    )


def detection_figure(roc: pd.DataFrame, models: Sequence[str]) -> alt.VConcatChart:
    """Draw the ROC curves of the detector.

    Args:
        roc: Result of `audit_tables.roc_table`.
        models: All models of the experiment.

    Returns:
        For every dataset, norm and epsilon a panel a model: a curve for every tolerance, attacker
        (dashes) and seed, and the diagonal of chance.
    """
    cells = roc.assign(tau=roc.tolerance.map(tau_label))
    rows = []
    places = cells[["dataset", "norm", "epsilon"]].drop_duplicates()
    for dataset, norm, epsilon in places.to_numpy():
        own = cells[(cells.dataset == dataset) & (cells.norm == norm) & (cells.epsilon == epsilon)]
        x = alt.X(
            "false_positive_rate:Q",
            title="Clean images suspected",
            axis=alt.Axis(format="~%", tickCount=3),
            scale=alt.Scale(domain=[0, 1]),
        )
        y = rate_axis("Adversarials detected", field="true_positive_rate")
        lines = (
            alt.Chart()
            .mark_line()
            .encode(
                x=x,
                y=y,
                color=tau_colour(tau_labels(own)),
                strokeDash=alt.StrokeDash(
                    "attacker:N",
                    title="Attack",
                    scale=alt.Scale(domain=["plain", "adaptive"], range=[[1, 0], [5, 3]]),
                ),
                detail="seed:N",
                order="true_positive_rate:Q",
            )
        )
        chance = (
            alt.Chart()
            .mark_rule(color=GREY, strokeWidth=1)
            .encode(x=alt.datum(0), x2=alt.datum(1), y=alt.datum(0), y2=alt.datum(1))
        )
        columns = ["model", "seed", "tau", "attacker", "false_positive_rate", "true_positive_rate"]
        rows.append(
            alt.layer(chance, lines)
            .properties(width=PANEL, height=PANEL)
            .facet(
                data=inline(own[columns]),
                column=alt.Column("model:N", title=None, sort=list(models)),
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Adversarials given away by the disagreement of tolerances",
        ["ROC curves; dashed: an attack that knows the detector. On the grey line it is chance."],
    )
