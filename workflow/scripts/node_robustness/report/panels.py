"""The grid of verdicts, and what is known of each of its settings, for the page to show on demand.

A setting is a model, a tolerance, a norm and an epsilon on a dataset. Its id, such as
``digits/OON/tau-10/linf/0.1``, is part of the page's address and stays the same from run to run.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from node_robustness.grid.paths import CELL, SOLVED, fill, result, spell
from node_robustness.report.phrases import NORMS, sized
from node_robustness.tables.frame import NO_ODE, OWN, records, tau_of, tau_words
from node_robustness.verdict.checks import PASSED
from node_robustness.verdict.contrasts import setting_key
from node_robustness.verdict.protocols import PROTOCOLS
from node_robustness.verdict.verdicts import (
    BROKEN,
    MASKED,
    SHOWS,
    SURVIVES,
    UNDECIDED,
    UNDER_SEARCHED,
)

SIGNS = {BROKEN: "✕", MASKED: "◐", UNDER_SEARCHED: "◔", SURVIVES: "✓", UNDECIDED: "?"}
"""The sign of each verdict, so that colour is not all that tells them apart."""

_NOTHING_TO_SAY = ("no_images", "no_correct", "no_accuracy")
_DIGITS = 5


@dataclass(frozen=True)
class Field:
    """One setting of the grid.

    Attributes:
        id: of its panel, and in the address of the page.
        verdict: on the setting.
        sign: of the verdict, one character.
        strongest: robust accuracy under the strongest attack, such as `51 %`.
        about: the setting and its verdict in words.
        says_something: False where there is no robustness to speak of: the paper's procedure shows
            that hardly anything is left (*broken*, shown), or no image is classified correctly.
    """

    id: str
    verdict: str
    sign: str
    strongest: str
    about: str
    says_something: bool


@dataclass(frozen=True)
class GridRow:
    """One line of a grid: a model at a tolerance.

    Attributes:
        model: its name.
        tau: its tolerance for people, or what stands for it (`frame.tau_of`).
        fields: one a column; None where the setting was not attacked.
    """

    model: str
    tau: str
    fields: list[Field | None]

    @property
    def solved_at(self) -> str:
        """Its tolerance in words."""
        return tau_words(self.tau)


@dataclass(frozen=True)
class Grid:
    """The verdicts on one dataset.

    Attributes:
        dataset: its name.
        columns: norm and epsilon of each column, for people.
        rows: the models at their tolerances.
    """

    dataset: str
    columns: list[str]
    rows: list[GridRow]


def grid(tables: Mapping[str, pd.DataFrame]) -> list[Grid]:
    """Lay out the verdicts.

    Args:
        tables: ``verdicts`` of the experiment.

    Returns:
        One grid a dataset, in the order of the table but own settings before the tolerances of a
        model; norms and epsilons from left to right.
    """
    found = []
    for dataset, own in tables["verdicts"].groupby("dataset", sort=False):
        sizes = own[["norm", "epsilon"]].drop_duplicates()
        sizes = sizes.assign(order=sizes.norm.map(list(NORMS).index))
        sizes = sizes.sort_values(["order", "epsilon"], kind="stable")
        columns = list(sizes[["norm", "epsilon"]].itertuples(index=False, name=None))
        rows = []
        models = list(dict.fromkeys(own.model))
        solved = own.groupby(["model", "tau"], sort=False)
        for (model, tau), line in sorted(
            solved, key=lambda one: (models.index(one[0][0]), one[0][1] != OWN)
        ):
            at = {(row["norm"], row["epsilon"]): _field(row) for row in records(line)}
            rows.append(
                GridRow(
                    str(model),
                    str(tau),
                    [at.get(size) for size in columns],
                )
            )
        found.append(Grid(str(dataset), [sized(*size) for size in columns], rows))
    return found


def panels(
    tables: Mapping[str, pd.DataFrame], charts: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Gather what is known of each setting.

    Args:
        tables: All tables of the experiment by name; of what has none nothing is said.
        charts: The figures' specifications by name; ``examples`` has the pictures.

    Returns:
        What JSON can hold, for every setting in the order of the verdicts: ``id``, ``title``,
        ``dataset``, ``verdict``, ``sign``, ``procedure``, ``reason``, ``level``, ``images``;
        ``robust`` (clean accuracy, P, C and R, each ``value``, ``low``, ``high``) and the same of
        each of several ``networks``; ``masked`` and ``weak``; ``deciding``: the attacks with how
        many images each ``tried``, broke, and broke ``alone``; ``checks``; ``examples``: pictures
        as ``data:`` addresses; ``trajectory``: curves along t of every attack and network that was
        followed; ``shares`` of the parts of the dynamics; ``claims``: what the claims say of the
        setting; and ``files``, by their paths. Numbers that are not known are None.
    """
    known = {**tables, "pictures": _pictures(charts.get("examples", {}))}
    own = {name: _by_setting(known[name], of) for name, of in _OWN.items() if name in known}
    return [_panel(row, own) for row in records(tables["verdicts"])]


def setting_id(row: Mapping[str, Any]) -> str:
    """The id of the setting of a row."""
    tolerance = None if pd.isna(row["tolerance"]) else row["tolerance"]
    return "/".join(
        [
            *(row["dataset"], row["model"], f"tau-{spell('tolerance', tolerance)}"),
            *(row["norm"], spell("epsilon", row["epsilon"])),
        ]
    )


def _field(row: Mapping[str, Any]) -> Field:
    strongest = "–" if pd.isna(row["strongest"]) else f"{100 * row['strongest']:.0f} %"
    shown = row["verdict"] == BROKEN and row["procedure"] == SHOWS
    return Field(
        setting_id(row),
        row["verdict"],
        SIGNS[row["verdict"]],
        strongest,
        f"{_title(row)}: {row['verdict']}, {strongest} robust under the strongest attack",
        not shown and row["because"] not in _NOTHING_TO_SAY,
    )


def _title(row: Mapping[str, Any]) -> str:
    at = "" if row["tau"] == NO_ODE else f" at {tau_words(row['tau'])}"
    return f"{row['model']}{at}, {sized(row['norm'], row['epsilon'])}"


_SOLVED = ("dataset", "model", "tolerance")
_SETTING = (*_SOLVED, "norm", "epsilon")
_OWN = {
    **dict.fromkeys(["clean", "checks"], _SOLVED),
    **dict.fromkeys(["protocols", "attack_suite", "attacks", "trajectories", "shares"], _SETTING),
    **dict.fromkeys(["models", "tolerances", "dynamics", "pictures"], _SETTING),
}
"""The tables that a panel is made from, and by which columns."""

_Own = Mapping[str, Mapping[tuple[Any, ...], pd.DataFrame]]


def _by_setting(table: pd.DataFrame, columns: Sequence[str]) -> dict[tuple[Any, ...], pd.DataFrame]:
    """The rows of a table by their values in these columns, of those that have some."""
    if table.empty:
        return {}
    keys = records(table[list(columns)])
    rows: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(keys):
        rows.setdefault(setting_key(key, columns), []).append(place)
    return {key: table.iloc[places] for key, places in rows.items()}


def _panel(row: Mapping[str, Any], tables: _Own) -> dict[str, Any]:
    def own(name: str) -> pd.DataFrame:
        """The rows of a table in this setting."""
        return tables.get(name, {}).get(setting_key(row, _OWN[name]), pd.DataFrame())

    protocols = own("protocols")
    return {
        "id": setting_id(row),
        "title": _title(row),
        **{name: row[name] for name in ("dataset", "verdict", "procedure", "reason", "level")},
        "sign": SIGNS[row["verdict"]],
        "images": int(row["n"]),
        "robust": {name: _estimate(row, name) for name in ("clean", *PROTOCOLS)},
        "networks": [
            {"seed": int(one["seed"]), **{name: _estimate(one, name) for name in PROTOCOLS}}
            for one in records(protocols)
            if len(protocols) > 1
        ],
        "masked": _estimate(row, "masked"),
        "weak": _estimate(row, "weak"),
        "deciding": _deciding(own("attack_suite"), own("attacks")),
        "checks": _checks(own("checks"), row["norm"]),
        "examples": _examples(own("pictures")),
        "trajectory": _trajectory(own("trajectories")),
        "shares": _shares(own("shares")),
        "claims": _claims(own("models"), own("tolerances"), own("dynamics")),
        "files": _files(own("clean"), own("attacks"), own("trajectories")),
    }


def _estimate(row: Mapping[str, Any], name: str) -> dict[str, float | None]:
    parts = {"value": name, "low": f"{name}_low", "high": f"{name}_high"}
    return {part: _number(row.get(column)) for part, column in parts.items()}


def _number(value: Any) -> float | None:
    """A number to five digits, None where there is none."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{_DIGITS}g}")


def _deciding(suite: pd.DataFrame, attacks: pd.DataFrame) -> list[dict[str, Any]]:
    """The attacks by how many images each alone breaks, over networks; noise is the control.

    Images that an attack skipped, because a cheaper one had broken them, are not among its own.
    """
    if suite.empty:
        return []
    sums = suite.groupby("attack", sort=False)[["alone"]].sum()
    own = attacks.groupby("attack", sort=False)[["attacked", "successes"]].sum()
    ranked = sums.join(own).sort_values(["alone", "successes"], ascending=False, kind="stable")
    return [
        {
            "attack": row["attack"],
            "tried": _number(row["attacked"]),
            "broken": _number(row["successes"]),
            "alone": int(row["alone"]),
        }
        for row in records(ranked.reset_index())
    ]


def _checks(checks: pd.DataFrame, norm: str) -> list[dict[str, Any]]:
    """The checks of these networks in this norm, those that did not pass first."""
    if checks.empty:
        return []
    here = checks[checks.norm.isin(["", norm]) | checks.norm.isna()]
    passed = here.outcome == PASSED
    return [
        {
            "name": row["title"],
            "seed": int(row["seed"]),
            "outcome": row["outcome"],
            "value": _number(row["value"]),
            "passes_if": f"{row['bound']} {row['threshold']:g}",
            "needed": bool(row["supports"]),
            "failure": "" if row["outcome"] == PASSED else row["failure"],
        }
        for row in records(pd.concat([here[~passed], here[passed]]))
    ]


_PICTURED = {"attack", "row", "part", "url", "caption"}


def _pictures(chart: Mapping[str, Any]) -> pd.DataFrame:
    """The pictures of adversarial examples that a figure has inside, a row a picture."""
    tables = [
        pd.read_csv(io.StringIO(data), dtype={"dataset": str, "model": str, "caption": str})
        for data in chart.get("datasets", {}).values()
        if isinstance(data, str) and {*data.partition("\n")[0].split(",")} >= _PICTURED
    ]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _examples(own: pd.DataFrame) -> list[dict[str, Any]]:
    """Clean image, perturbation and adversarial example of a setting, a dictionary an image."""
    if own.empty:
        return []
    return [
        {
            "attack": image.attack.iloc[0],
            "pictures": [
                {"part": part, "url": url, "caption": caption}
                for part, url, caption in zip(image.part, image.url, image.caption, strict=True)
            ],
        }
        for _, image in own.groupby(["attack", "row"], sort=False)
    ]


_CURVES = {"distance": "relative_l2_median", "margin": "margin_head_median"}


def _trajectory(trajectories: pd.DataFrame) -> list[dict[str, Any]]:
    """Medians along t of adversarial examples and of noise, a dictionary a cell and group."""
    if trajectories.empty:
        return []
    known = trajectories[(trajectories.n > 0) & trajectories.group.isin(["success", "noise"])]
    return [
        {
            "attack": attack,
            "seed": int(own.seed.iloc[0]),
            "group": group,
            "images": int(own.n.max()),
            "t": [_number(t) for t in own.t],
            **{name: [_number(value) for value in own[col]] for name, col in _CURVES.items()},
        }
        for (attack, _, group), own in known.groupby(["attack", "seed", "group"], sort=False)
    ]


def _shares(shares: pd.DataFrame) -> list[dict[str, Any]]:
    """What each part of the dynamics adds to the loss of margin, as fractions of it."""
    return [
        {
            **{name: row[name] for name in ("attack", "perturbation", "player")},
            "seed": int(row["seed"]),
            "images": int(row["n"]),
            **{name: _number(row[name]) for name in ("start", "end")},
            **_estimate(row, "fraction"),
        }
        for row in records(shares)
    ]


def _claims(
    models: pd.DataFrame, tolerances: pd.DataFrame, dynamics: pd.DataFrame
) -> list[dict[str, str]]:
    """What the claims say of a setting: the claim, the verdict on it, and why."""
    found = [
        {
            "about": f"Against {row['reference_model']}",
            "claim": f"{row['paper_claim'] or '–'} → {row['strongest_claim']}",
            "reason": row["reason"],
        }
        for row in records(models)
    ]
    found += [
        {
            "about": f"Against {tau_words(tau_of(row['reference'], ode=True))}",
            "claim": row["claim"],
            "reason": row["reason"],
        }
        for row in records(tolerances)
    ]
    return found + [
        {"about": "The part to blame", "claim": row["claim"], "reason": row["reason"]}
        for row in records(dynamics)
    ]


def _files(clean: pd.DataFrame, attacks: pd.DataFrame, trajectories: pd.DataFrame) -> list[str]:
    """The paths of the files that the numbers of a setting come from."""
    cells = trajectories.drop_duplicates(["seed", "attack"]) if len(trajectories) else trajectories
    named = [(clean, SOLVED, "clean.h5"), (attacks, CELL, "attack.h5")]
    named.append((cells, CELL, "trajectory.h5"))
    return [
        fill(result(place, name), {**row, "tolerance": _none(row["tolerance"])})
        for table, place, name in named
        for row in records(table)
    ]


def _none(tolerance: float) -> float | None:
    return None if math.isnan(tolerance) else tolerance
