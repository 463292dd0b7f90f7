"""Drop-down lists that choose what a figure of paths shows, and what such figures share."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import altair as alt
import pandas as pd

from node_robustness.figures.style import (
    NORMS,
    Layers,
    epsilon_label,
    styled,
    tau_labels,
)
from node_robustness.tables.frame import NO_ODE, tau_words, without_tolerance

GROUPS = {
    "clean": "clean image",
    "success": "attack succeeded",
    "failed": "attack failed",
    "noise": "random noise",
}
"""The groups of `trajectories.trajectory_table` for people."""

CONDITION = ["dataset", "attack", "norm", "epsilon"]

_GROUP_COLOURS = ["#0072B2", "#D55E00", "#CC79A7", "#009E73"]
_GROUP_DASHES = [[8, 3, 2, 3], [1, 0], [5, 3], [2, 2]]


@dataclass(frozen=True)
class Menu:
    """A drop-down list.

    Attributes:
        name: the parameter that expressions of the chart know.
        label: what stands before the list.
        values: of the parameter, one a choice.
        names: the choices as people read them.
        chosen: the value at the beginning, and in still images.
    """

    name: str
    label: str
    values: Sequence[str | int]
    names: Sequence[str]
    chosen: str | int

    @property
    def parameter(self) -> Any:
        """The Vega-Lite parameter."""
        bind = alt.binding_select(
            options=list(self.values), labels=list(self.names), name=f"{self.label}: "
        )
        # Altair's own way would hand the list to each facet, and fails on layers inside.
        return alt.param(name=self.name, value=self.chosen, bind=bind).param

    @property
    def title(self) -> str:
        """An expression: the choice as people read it."""
        names = dict(zip(map(str, self.values), self.names, strict=True))
        return f"{json.dumps(names, ensure_ascii=False)}[toString({self.name})]"


def condition_menu(frame: pd.DataFrame) -> tuple[pd.DataFrame, Menu]:
    """Let the reader choose dataset, attack, norm and epsilon.

    Args:
        frame: has the columns `CONDITION`.

    Returns:
        The frame with a column ``condition``, and the menu. It begins with the first dataset,
        attack and norm at the largest epsilon.
    """
    found = frame[CONDITION].drop_duplicates()
    # Stable, so that datasets, attacks and epsilons stay in the order of the table.
    found = found.sort_values(
        "norm", kind="stable", key=lambda norm: norm.map(list(NORMS).index), ignore_index=True
    )
    found["condition"] = found.index
    names = [
        f"{dataset}, {attack}, {NORMS[norm]}, {epsilon_label(epsilon)}"
        for dataset, attack, norm, epsilon in found[CONDITION].itertuples(index=False)
    ] or ["nothing was followed"]
    largest = found.groupby(CONDITION[:3], sort=False).condition.last()
    chosen = int(next(iter(largest), 0))
    menu = Menu("condition", "Show", list(range(len(names))), names, chosen)
    return frame.merge(found, on=CONDITION), menu


def tau_menu(frame: pd.DataFrame) -> Menu:
    """Let the reader choose the tolerance; it begins with the smallest."""
    bounded = frame[~frame.model.isin(without_tolerance(frame))]
    taus = tau_labels(bounded) or tau_labels(frame) or [NO_ODE]
    return Menu("tau", "Tolerance τ", taus, taus, taus[0])


def of_tau(frame: pd.DataFrame) -> str:
    """A filter: rows of the tolerance that is chosen, and of models that none bounds."""
    others = json.dumps(without_tolerance(frame), ensure_ascii=False)
    return f"(datum.tau === tau || indexof({others}, datum.model) >= 0)"


def chosen_tau(menu: Menu) -> str:
    """An expression: the tolerance that is chosen, in words."""
    return replace(menu, names=[tau_words(str(tau)) for tau in menu.values]).title


def option_menu(name: str, label: str, options: dict[str, str]) -> Menu:
    """Let the reader choose one of some values, given with their names, the first to begin with."""
    return Menu(name, label, list(options), list(options.values()), next(iter(options)))


OF_CONDITION = "datum.condition === condition"
"""A filter: rows of the condition that is chosen."""


def groups_in(frame: pd.DataFrame) -> list[str]:
    """The groups that a frame has, in their order."""
    return [group for group in GROUPS if group in set(frame.group)]


def group_colour(groups: Sequence[str], symbol: str = "stroke") -> alt.Color:
    """The colour of a group, the same in every figure."""
    return alt.Color(
        "group:N",
        title="Images",
        sort=list(groups),
        scale=_scale(groups, _GROUP_COLOURS),
        legend=alt.Legend(labelExpr=_in_words("label"), symbolType=symbol),
    )


def group_dash(groups: Sequence[str]) -> alt.StrokeDash:
    """The dashes of a group, for those who cannot tell the colours apart."""
    return alt.StrokeDash(
        "group:N",
        title="Images",
        sort=list(groups),
        scale=_scale(groups, _GROUP_DASHES),
        legend=alt.Legend(labelExpr=_in_words("label"), symbolType="stroke"),
    )


def group_row(groups: Sequence[str]) -> alt.Row:
    """A row of panels for each group."""
    header = alt.Header(labelExpr=_in_words("label"))
    return alt.Row("group:N", title=None, sort=list(groups), header=header)


def _in_words(field: str) -> str:
    """An expression: a group for people. The data hold the short names, thousands of times."""
    return f"{json.dumps(GROUPS)}[datum.{field}]"


def _scale(groups: Sequence[str], marks: Sequence[Any]) -> alt.Scale:
    known = dict(zip(GROUPS, marks, strict=True))
    return alt.Scale(domain=list(groups), range=[known[group] for group in groups])


def time_axis(title: str | None = "Time t of the ODE (without one: depth)") -> alt.X:
    """The axis of t, on which the blocks of a residual body end at 1/B, 2/B, ..., 1."""
    return alt.X(
        "t:Q",
        title=title,
        scale=alt.Scale(domain=[0, 1], nice=False),
        axis=alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f", labelFlush=False),
    )


def with_menus(
    charts: Sequence[Layers | alt.HConcatChart],
    menus: Sequence[Menu],
    title: str,
    notes: list[str],
    **scales: Literal["independent", "shared"],
) -> alt.VConcatChart:
    """Join the parts of a figure and give it its menus; the title says what they chose.

    Args:
        charts: the parts, from above.
        menus: in the order in which the title names their choices.
        title: what stands before these.
        notes: lines below the title.
        **scales: by channel, whether each part has its own.
    """
    choices = " + ', ' + ".join(
        chosen_tau(menu) if menu.name == "tau" else menu.title for menu in menus
    )
    chart = alt.vconcat(*charts, spacing=18, params=[menu.parameter for menu in menus])
    if scales:
        chart = chart.resolve_scale(**scales)
    return styled(chart, alt.ExprRef(f"{json.dumps(f'{title}: ')} + {choices}"), notes)


def over_seeds(frame: pd.DataFrame, by: list[str], columns: list[str]) -> pd.DataFrame:
    """The mean over seeds of some columns; `n` is summed over them."""
    groups = frame.groupby([*by], sort=False, as_index=False, dropna=False)
    return groups.agg({**dict.fromkeys(columns, "mean"), "n": "sum"})


def means_along_t(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The means over seeds at every t, by condition, model, `tau` and group."""
    return over_seeds(frame, ["condition", "model", "tau", "group", "t"], columns)


def quartiles(median: str, form: str) -> list[alt.Tooltip]:
    """Tooltips of a median, which has this name, and of its quartiles."""
    names = {"median": median, "q25": "Lower quartile", "q75": "Upper quartile"}
    return [alt.Tooltip(f"{part}:Q", title=name, format=form) for part, name in names.items()]
