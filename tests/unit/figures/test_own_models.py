"""Figures of models of the user: settings without a tolerance next to tolerances."""

import csv
import io
import json

import pytest

from node_robustness.figures import clean, images, menus, nfe, tolerances
from node_robustness.figures.style import tau_labels
from node_robustness.tables.examples import example_table
from samples import draw, own_tables
from vega_lite import spec_of

MODELS = ["RES", "theirs", "steps", "plain"]


def test_labels_end_with_own_settings_and_no_ode():
    assert tau_labels(own_tables()["verdicts"]) == ["0.001", "0.1", "own", "no ODE"]


@pytest.mark.parametrize("models", [MODELS, ["steps"], ["plain"]], ids=str)
def test_every_figure_is_drawn(models):
    charts = draw(own_tables(models=tuple(models)), example_table([]), None, models)
    for name, chart in charts.items():
        assert json.dumps(spec_of(chart)), name


def test_menus_have_the_tolerances_of_models_that_have_some():
    frame = own_tables()["clean"]
    assert menus.tau_menu(frame).values == ["0.001", "0.1", "own"]
    assert menus.tau_menu(frame[frame.model == "steps"]).values == ["own"]
    assert menus.tau_menu(frame[frame.model == "plain"]).values == ["no ODE"]
    filtered = menus.of_tau(frame)
    assert filtered == (
        '(datum.tau === tau || indexof(["RES", "plain", "steps"], datum.model) >= 0)'
    )
    words = menus.chosen_tau(menus.tau_menu(frame))
    assert words == (
        '{"0.001": "τ = 0.001", "0.1": "τ = 0.1", "own": "own settings"}[toString(tau)]'
    )


def rows_of(chart):
    """The data of a figure as lists of fields."""
    return [
        row
        for data in spec_of(chart)["datasets"].values()
        for row in csv.DictReader(io.StringIO(data))
    ]


def test_a_histogram_has_every_field():
    """A grid with fields left out has the others in wrong places."""
    rows = rows_of(nfe.figure(own_tables()["nfe"], MODELS))
    images_in = {(row["model"], row["panel"]): float(row["images"]) for row in rows}
    assert images_in == {
        **{("theirs", panel): 150 for panel in ("τ = 0.001", "τ = 0.1", "own settings")},
        **{("steps", panel): 0 for panel in ("τ = 0.001", "τ = 0.1")},
        ("steps", "own settings"): 150,
    }


def test_own_settings_are_horizontal_lines():
    tables = own_tables()
    chart = spec_of(clean.figure(tables["clean"], MODELS))
    assert (
        "Horizontal lines: own settings, and models without an ODE." in chart["title"]["subtitle"]
    )
    rows = rows_of(
        tolerances.figure(tables["protocols"], tables["verdicts"], tables["tolerances"], MODELS)
    )
    own = [row for row in rows if row["own"]]
    assert [(row["model"], round(float(row["own"]), 3)) for row in own] == [("theirs", 0.213)]


def test_only_models_without_tolerances_are_shown_at_any():
    table = own_tables()["clean"].assign(condition=0, index=0)
    table["page"] = range(len(table))
    assert '{"RES": "no ODE", "plain": "no ODE", "steps": "own"}[model]' in images._page_of(table)
