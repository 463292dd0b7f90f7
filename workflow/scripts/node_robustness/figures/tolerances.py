"""The figure of claim 2: does a larger tolerance protect?"""

from collections.abc import Mapping, Sequence
from typing import Literal

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    BAD,
    GOOD,
    GREY,
    NORMS,
    PANEL,
    PAPER,
    epsilon_label,
    groups_of,
    inline,
    percent,
    rate_axis,
    styled,
    tolerance_axis,
)
from node_robustness.tables.frame import NO_ODE, OWN
from node_robustness.words import listed

_LINES = {
    "paper": ("paper's procedure", PAPER),
    "corrected": ("with its gradient corrected", "#009E73"),
    "strongest": ("strongest attack", GOOD),
}
_AREAS = {
    "masked": ("masked gradient", BAD),
    "weak": ("weak search", "#56B4E9"),
    "unknown": ("cause not known", GREY),
}
_TICK = 58  # as wide as a claim is written
_ABOVE = 0.12  # the part of the axis above 100 % that the claims take
_ALIGNED: dict[Literal["left", "center", "right"], int] = {"left": 6, "center": 0, "right": -6}
"""How names of areas are aligned, and by how much they are moved."""

_LABELLED = 0.08  # the smallest area with room for its name


def figure(
    protocols: pd.DataFrame,
    verdicts: pd.DataFrame,
    tolerances: pd.DataFrame,
    models: Sequence[str],
) -> alt.VConcatChart:
    """Draw robust accuracy under three protocols against the tolerance of the solver.

    Args:
        protocols: Result of `protocols.protocol_table`.
        verdicts: Result of `verdicts.verdict_table`.
        tolerances: Result of `tolerances.tolerance_table`.
        models: All models of the experiment.

    Returns:
        For every dataset and norm a grid, models with an ODE from left to right, epsilons
        downwards: a line a protocol, the mean over the networks with an interval that contains
        that of each, a thin line a network, and the areas between the lines, which are masked
        gradient and weak search; above each tolerance the claim that it protects. Dashed: the
        strongest attack on a model without an ODE (grey), and on the model at its own settings.
    """
    solved, own_settings, plain = (
        verdicts[chosen]
        for chosen in (
            verdicts.tolerance.notna(),
            verdicts.tau == OWN,
            verdicts.tau == NO_ODE,
        )
    )
    where = ["dataset", "model", "norm", "epsilon", "tolerance"]
    claims = tolerances[[*where, "claim", "reason"]].rename(columns={"reason": "why"})
    cells = solved.merge(claims, "left", where)
    rows = []
    for dataset, norm in groups_of(solved):
        own, networks, levels, reference = (
            table[(table.dataset == dataset) & (table.norm == norm)]
            for table in (cells, protocols[protocols.tolerance.notna()], own_settings, plain)
        )
        data = pd.concat(
            [
                *(_long(own), _long(networks), _areas(own)),
                *(_references(reference, own), _own_settings(levels, own)),
            ],
            ignore_index=True,
        )
        rows.append(
            alt.layer(*_layers(own, own=len(levels) > 0))
            .properties(width=max(PANEL, _TICK * own.tolerance.nunique()), height=0.9 * PANEL)
            .facet(
                data=inline(data.assign(panel=data.epsilon.map(epsilon_label))),
                column=alt.Column("model:N", title=None, sort=list(models)),
                row=alt.Row(
                    "panel:N", title=None, sort=[epsilon_label(e) for e in sorted(set(own.epsilon))]
                ),
                title=f"{dataset}: {NORMS[norm]}",
            )
        )
    notes = ["A thin line is one network; thick lines and points are means over the networks."]
    if len(plain):
        models_without = listed(list(dict.fromkeys(plain.model)))
        notes.append(f"Grey line: the strongest attack on {models_without}, without an ODE.")
    if len(own_settings):
        notes.append("Dashed line in blue: the strongest attack at the model's own settings.")
    return styled(alt.vconcat(*rows), "Does a larger tolerance protect?", notes)


_KEY = ["model", "epsilon", "tolerance"]


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """A row a protocol: ``value`` with its interval; with the claim, or the seed of a network."""
    also = [name for name in ("seed", "claim", "why", "level", "verdict") if name in table]
    parts = []
    for protocol, (line, _) in _LINES.items():
        columns = {protocol: "value", f"{protocol}_low": "low", f"{protocol}_high": "high"}
        part = table[[*_KEY, "tau", *also, *columns]].rename(columns=columns)
        parts.append(part.assign(line=line))
    long = pd.concat(parts, ignore_index=True)
    return long[long.value.notna()]


def _areas(verdicts: pd.DataFrame) -> pd.DataFrame:
    """A row an area and tolerance; where an area is widest, ``label`` is its name."""
    unknown = verdicts.corrected.isna()
    bounds = {
        "masked": verdicts[~unknown][[*_KEY, "corrected", "paper"]],
        "weak": verdicts[~unknown][[*_KEY, "strongest", "corrected"]],
        "unknown": verdicts[unknown & verdicts.paper.notna()][[*_KEY, "strongest", "paper"]],
    }
    parts = [
        own.set_axis([*_KEY, "from", "to"], axis="columns").dropna().assign(area=_AREAS[name][0])
        for name, own in bounds.items()
    ]
    areas = pd.concat(parts, ignore_index=True)
    wide = areas.to - areas["from"]
    widest = wide.groupby([areas.model, areas.epsilon, areas.area]).transform("idxmax")
    labelled = (widest == areas.index) & (wide >= _LABELLED)
    first, last = verdicts.tolerance.min(), verdicts.tolerance.max()
    return areas.assign(
        middle=areas["from"] + wide / 2,
        label=areas.area.where(labelled, ""),
        # A name at the edge of a panel would leave it.
        align=areas.tolerance.map({first: "left", last: "right"}).fillna("center"),
    )


def _references(plain: pd.DataFrame, solved: pd.DataFrame) -> pd.DataFrame:
    """The strongest attack on models without an ODE, for the panels of those with one."""
    panels = solved[["model", "epsilon"]].drop_duplicates()
    level = plain[["epsilon", "strongest"]].rename(columns={"strongest": "reference"})
    return panels.merge(level, on="epsilon")


def _own_settings(levels: pd.DataFrame, solved: pd.DataFrame) -> pd.DataFrame:
    """The strongest attack on models at their own settings, for their panels."""
    panels = solved[["model", "epsilon"]].drop_duplicates()
    level = levels[["model", "epsilon", "strongest"]].rename(columns={"strongest": "own"})
    return panels.merge(level, on=["model", "epsilon"])


def _layers(cells: pd.DataFrame, *, own: bool) -> list[alt.Chart]:
    x, title = tolerance_axis(cells.tolerance), "Robust accuracy"
    unused = "" if cells.corrected.isna().any() else "unknown"
    y = rate_axis(title, above=_ABOVE)

    def scale(known: Mapping[str, tuple[str, str]]) -> alt.Scale:
        names, colours = zip(*known.values(), strict=True)
        return alt.Scale(domain=list(names), range=list(colours))

    under = alt.Color(
        "line:N",
        title="Under",
        scale=scale(_LINES),
        legend=alt.Legend(symbolType="circle", labelLimit=240),
    )
    between = alt.Fill(
        "area:N",
        title="Between",
        scale=scale({name: area for name, area in _AREAS.items() if name != unused}),
        legend=alt.Legend(symbolType="square", labelLimit=240),
    )
    area = alt.Chart().transform_filter("isValid(datum.area)").encode(x=x)
    line = alt.Chart().transform_filter("isValid(datum.line)").encode(x=x, y=y)
    line = line.encode(color=under)
    mean = line.transform_filter("!isValid(datum.seed)")
    network = line.transform_filter("isValid(datum.seed)")
    tooltip = [
        alt.Tooltip("model:N", title="Model"),
        alt.Tooltip("tau:N", title="Tolerance τ"),
        alt.Tooltip("line:N", title="Under"),
        percent("value", "Robust accuracy"),
        percent("low", "95 % from"),
        percent("high", "95 % to"),
    ]
    return [
        area.mark_area(opacity=0.3).encode(y=alt.Y("from:Q", title=title), y2="to:Q", fill=between),
        alt.Chart()
        .transform_filter("isValid(datum.reference)")
        .mark_rule(color=GREY, strokeDash=[4, 3])
        .encode(y=alt.Y("reference:Q", title=title)),
        *(
            [
                alt.Chart()
                .transform_filter("isValid(datum.own)")
                .mark_rule(color=GOOD, strokeDash=[4, 3])
                .encode(y=alt.Y("own:Q", title=title))
            ]
            if own
            else []
        ),
        network.mark_line(strokeWidth=0.8, opacity=0.6).encode(detail="seed:N"),
        mean.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        mean.mark_line(),
        mean.mark_point(filled=True, size=45, opacity=1).encode(
            tooltip=[
                *tooltip,
                alt.Tooltip("level:N", title="Of"),
                alt.Tooltip("verdict:N", title="Verdict"),
            ]
        ),
        *(
            area.transform_filter(f"datum.label != '' && datum.align == '{align}'")
            .mark_text(fontSize=10, fill="currentColor", align=align, dx=shift)
            .encode(y=alt.Y("middle:Q", title=title), text="label:N")
            for align, shift in _ALIGNED.items()
        ),
        mean.transform_filter(alt.FieldEqualPredicate(field="line", equal=_LINES["strongest"][0]))
        .transform_filter("isValid(datum.claim)")
        .mark_text(fontSize=10, fill="currentColor")
        .encode(
            y=alt.datum(1 + _ABOVE / 2),
            text="claim:N",
            color=alt.value("currentColor"),
            tooltip=[alt.Tooltip("level:N", title="Of"), alt.Tooltip("why:N", title="Because")],
        ),
    ]
