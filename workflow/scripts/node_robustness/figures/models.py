"""The figure of claim 1: are models with an ODE more robust, and under which procedure?"""

import json
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    PANEL,
    PROCEDURES,
    epsilon_label,
    groups_of,
    inline,
    model_colour,
    percent,
    rate_axis,
    styled,
    tau_labels,
)
from node_robustness.tables.frame import NO_ODE, tau_words

_TITLE = "Robust accuracy"
_LINE = 0.11  # what a line of words takes of the axis


def figure(
    protocols: pd.DataFrame, compared: pd.DataFrame, models: Sequence[str]
) -> alt.VConcatChart:
    """Draw how the ranking of models changes from the paper's procedure to the strongest attack.

    Args:
        protocols: Result of `protocols.protocol_table`.
        compared: Result of `models.model_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm, at the epsilon of which the claim is made first, a panel a
        tolerance: a thin line a network from its robust accuracy under the paper's procedure to
        that under the strongest attack, models without an ODE in every panel, with a point at the
        mean over the networks; above, the claim on each model under both.
    """
    rows = []
    for dataset, norm in groups_of(compared):
        claims = compared[
            (compared.dataset == dataset) & (compared.norm == norm) & compared.primary
        ]
        if claims.empty:
            continue
        epsilon = claims.epsilon.iloc[0]
        own = protocols[
            (protocols.dataset == dataset)
            & (protocols.norm == norm)
            & (protocols.epsilon == epsilon)
        ]
        lines = _lines(own, claims)
        words = _words(claims)
        above = _LINE * (words.line.max() + 1)
        rows.append(
            alt.layer(*_slopes(models, above), *_claims(models, above))
            .properties(width=1.15 * PANEL, height=1.1 * PANEL)
            .facet(
                data=inline(pd.concat([lines, words], ignore_index=True)),
                facet=alt.Facet(
                    "tau:N",
                    title=None,
                    sort=tau_labels(claims),
                    header=alt.Header(labelExpr=_header(claims)),
                ),
                columns=3,
                title=f"{dataset}: {NORMS[norm]}, {epsilon_label(epsilon)}",
            )
        )
    return styled(
        alt.vconcat(*rows),
        "Does the ranking survive the strongest attack?",
        [
            "A thin line is one network; points are means over the networks.",
            "In words: the claim under the paper's procedure → under the strongest attack.",
        ],
    )


def _header(claims: pd.DataFrame) -> str:
    """An expression: the tolerance of a panel in words."""
    names = {tau: tau_words(tau) for tau in tau_labels(claims)}
    return f"{json.dumps(names, ensure_ascii=False)}[datum.value]"


def _lines(protocols: pd.DataFrame, claims: pd.DataFrame) -> pd.DataFrame:
    """Both robust accuracies of every network, of models without an ODE at every tolerance."""
    taus = pd.DataFrame({"tau": tau_labels(claims)})
    plain = protocols[protocols.tau == NO_ODE].drop(columns="tau").merge(taus, how="cross")
    solved = protocols[protocols.tau != NO_ODE]
    wide = pd.concat([solved, plain], ignore_index=True)[["model", "seed", "tau", *PROCEDURES]]
    long = wide.melt(["model", "seed", "tau"], var_name="procedure", value_name="value").dropna()
    return long.assign(procedure=long.procedure.map(PROCEDURES))


def _words(claims: pd.DataFrame) -> pd.DataFrame:
    """The claim on every model and tolerance, in a line above the slopes."""
    found: list[dict[str, Any]] = []
    for tau, own in claims.groupby("tau", sort=False):
        for line, claim in enumerate(own.to_dict("records")):
            change = f"{claim['paper_claim'] or '–'} → {claim['strongest_claim']}"
            found.append(
                {
                    "tau": tau,
                    "model": claim["model"],
                    "line": line,
                    "at": 1 + _LINE * (len(own) - line - 0.4),
                    "claim": f"{claim['model']} against {claim['reference_model']}: {change}"
                    + (", reversed" if claim["reversed"] else ""),
                    "level": claim["level"],
                    "reason": claim["reason"],
                }
            )
    return pd.DataFrame(found)


def _slopes(models: Sequence[str], above: float) -> list[alt.Chart]:
    base = (
        alt.Chart()
        .transform_filter("isValid(datum.value)")
        .encode(
            x=alt.X(
                "procedure:N",
                title=None,
                sort=[*PROCEDURES.values()],
                axis=alt.Axis(labelAngle=0, labelLimit=PANEL),
            ),
            color=model_colour(models),
        )
    )
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("procedure:N", title="Under"),
    ]
    networks = base.encode(
        y=rate_axis(_TITLE, above=above),
        detail="seed:N",
        tooltip=[*tooltip, alt.Tooltip("seed:Q", title="Seed"), percent("value", "Robust")],
    )
    means = base.encode(
        y=alt.Y("mean(value):Q", title=_TITLE),
        tooltip=[*tooltip, alt.Tooltip("mean(value):Q", title="Mean over networks", format=".1%")],
    )
    return [
        networks.mark_line(strokeWidth=1.2, opacity=0.8),
        means.mark_point(filled=True, size=60, opacity=1),
    ]


def _claims(models: Sequence[str], above: float) -> list[alt.Chart]:
    base = alt.Chart().transform_filter("isValid(datum.claim)")
    return [
        base.mark_text(fontSize=10, limit=1.15 * PANEL).encode(
            x=alt.value(1.15 * PANEL / 2),
            y=rate_axis(_TITLE, field="at", above=above),
            text="claim:N",
            color=model_colour(models),
            tooltip=[
                alt.Tooltip("level:N", title="Of"),
                alt.Tooltip("reason:N", title="Because"),
            ],
        )
    ]
