"""Every figure is drawn from every table that an experiment may end with."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pytest

from node_robustness.figures.catalogue import FIGURES
from node_robustness.figures.drawing import still
from node_robustness.figures.experiment import of_experiment
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import image_pages
from samples import MODELS, collect, masked_tables
from vega_lite import spec_of

Tables = dict[str, pd.DataFrame]

KEYS = ["tolerance", "epsilon", "evaluated_at", "reference", "t", "start", "end", "threshold"]
LONG = "M" + 60 * "very_long_"
FOLLOWED = ["trajectories", "trajectory_images", "trajectory_summary", "trajectory_roc"]

SHARED = ["shares", "patches", "dynamics"]


@cache
def everything() -> Tables:
    """Tables in which everything was measured, with two seeds."""
    with TemporaryDirectory() as folder:
        own, _ = collect(Path(folder), (0, 1))
    cells = ("clean", "nfe", "attacks", *FOLLOWED, "probes", *SHARED)
    return masked_tables(8, seeds=(0, 1)) | {key: own[key] for key in cells}


def each(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Tables], Tables]:
    return lambda tables: {name: change(table) for name, table in tables.items()}


def where(column: str, keep: Callable[[pd.Series], pd.Series]) -> Callable[[Tables], Tables]:
    return each(lambda table: table[keep(table[column])] if column in table else table)


def without(*names: str) -> Callable[[Tables], Tables]:
    return lambda tables: tables | {name: tables[name].iloc[:0] for name in names}


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    numbers = [c for c in table.select_dtypes("float") if c not in KEYS]
    return table.assign(**dict.fromkeys(numbers, np.nan))


def called(names: dict[str, str]) -> Callable[[Tables], Tables]:
    columns = ["model", "reference_model", "dataset", "attack"]
    return each(
        lambda table: table.assign(**{c: table[c].replace(names) for c in columns if c in table})
    )


def other_norms(tables: Tables) -> Tables:
    """Each attack in its own norm: no facet has rows of all attacks."""
    norms = ["linf", "l2", "l2_rms"]

    def spread(table: pd.DataFrame) -> pd.DataFrame:
        if not {"attack", "norm"} <= set(table):
            return table
        known = sorted(set(table.attack))
        return table.assign(norm=[norms[known.index(a) % 3] for a in table.attack])

    found = each(spread)(tables)
    more = tables["attacks"].assign(attack="fgsm", norm="l2")
    return found | {"attacks": pd.concat([tables["attacks"], more])}


def half_measured(tables: Tables) -> Tables:
    """A second dataset of which only accuracy is known, a second norm of one model alone."""
    alone = {name: tables[name].assign(dataset="other") for name in ("clean", "nfe")}
    norms = ("verdicts", "attacks", "curves", "attack_suite", "protocols")
    l2 = {name: tables[name][tables[name].model == "OON"].assign(norm="l2") for name in norms}
    joined = dict(tables)
    for more in (alone, l2):
        joined |= {name: pd.concat([joined[name], table]) for name, table in more.items()}
    return joined


NAMES = {"OON": LONG, "RES": "nan", "toy": "null", "bim": "datum", "bim_adjoint": f"A{LONG}"}
of_first_seed = where("seed", lambda seed: seed == 0)

CASES: dict[str, Callable[[Tables], Tables]] = {
    "nothing": each(lambda table: table.iloc[:0]),
    "one row": each(lambda table: table.iloc[:1]),
    "the last row": each(lambda table: table.iloc[-1:]),
    "no ODE": where("model", lambda model: model == "RES"),
    "nothing without an ODE": where("model", lambda model: model == "OON"),
    "one tolerance": where("tolerance", lambda tau: tau == 1.0),
    "gaps only": each(gaps),
    "no trajectories": without(*FOLLOWED, "probes", *SHARED),
    "no probes": without("probes", *SHARED, "trajectory_roc"),
    "no audit": without(
        *("audit", "loss_curves", "held_steps"),
        *("matrix", "randomisation", "detection", "roc", "adjoint_sweep", "cost"),
    ),
    "no attacks": without(
        *("attacks", "attack_suite", "verdicts", "pairs", "models", "tolerances", "curves")
    ),
    "no success": where("group", lambda group: group.isin(["failed", "noise", "clean"])),
    "successes only": where("group", lambda group: group == "success"),
    "attacks in other norms": other_norms,
    "half measured": half_measured,
    "names of one network": lambda tables: called(NAMES)(of_first_seed(tables)),
}
DRAWN: set[tuple[str, ...]] = set()
"""What figures were drawn from: most tables of many cases are the same."""

FORMS: set[str] = set()
"""The forms of what was drawn: many figures differ in the rows of their data alone."""


def form(spec: dict[str, Any]) -> str:
    """A specification with the columns of its data, and whether there are rows, for the data."""
    text = json.dumps(spec | {"datasets": {}})
    for name, data in spec.get("datasets", {}).items():
        columns, _, rows = data.partition("\n") if isinstance(data, str) else (data, "", "")
        text = text.replace(name, f"{columns} {bool(rows)}")
    return text


@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_drawn(case):
    tables = CASES[case](everything())
    models = [NAMES[model] for model in MODELS] if case == "names of one network" else MODELS
    known = of_experiment(tables, lambda: example_table([]), lambda: image_pages([]), models)
    content = {name: f"{table.dtypes}{table.to_csv()}" for name, table in tables.items()}
    failed = []
    for name, make in known.items():
        needs = (content.get(need, "") for need in FIGURES[name].needs)
        drawn_from = (name, *models, *needs)
        if drawn_from in DRAWN:
            continue
        DRAWN.add(drawn_from)
        try:
            spec = spec_of(make())
            if form(spec) not in FORMS:
                FORMS.add(form(spec))
                still(spec)
        except Exception as error:
            failed.append(f"{name}: {error}")
    assert failed == []
