"""The small figures of the first screen."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.figures import claim_dynamics, claim_models, claim_tolerances
from node_robustness.figures.drawing import still
from node_robustness.figures.style import SMALL_HEIGHT, SMALL_WIDTH, apart
from node_robustness.report import markdown
from samples import MODELS, masked_tables, shared_tables
from vega_lite import spec_of

MNIST = Path(__file__).parents[3] / "docs/results/mnist"
NAMES = ("verdicts", "models", "tolerances")


def mnist():
    return {name: markdown._read(MNIST / f"{name}.csv") for name in NAMES}


def figures(tables, models=MODELS):
    return {
        "claim_models": claim_models.figure(tables["verdicts"], tables["models"], models),
        "claim_tolerances": claim_tolerances.figure(
            tables["verdicts"], tables["tolerances"], models
        ),
    }


def of_dynamics(tables, models=("RES", "OON")):
    return claim_dynamics.figure(tables["shares"], tables["dynamics"], models)


def drawn(chart):
    return ET.fromstring(still(spec_of(chart)))


def words(chart):
    return words_in(drawn(chart))


def words_in(svg):
    texts = [e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")]
    return {text.replace("\u00a0", " ") for text in texts if text}


CASES = {
    "one network": masked_tables,
    "two networks": lambda: masked_tables(seeds=(0, 1)),
    "mnist": mnist,
}


@pytest.mark.parametrize("tables", CASES.values(), ids=CASES)
def test_they_have_the_size_of_the_first_screen(tables):
    for chart in figures(tables(), ["RES", "MIX", "OON"]).values():
        assert_small(drawn(chart))


def assert_small(svg):
    assert SMALL_WIDTH / 2 < float(svg.get("width")) <= SMALL_WIDTH
    assert SMALL_HEIGHT / 2 < float(svg.get("height")) <= SMALL_HEIGHT


def test_a_long_name_does_not_make_them_wider():
    tables = masked_tables()
    renamed = {name: tables[name].replace({"model": {"OON": "o" * 60}}) for name in NAMES}
    svg = drawn(figures(renamed, ["RES", "o" * 60])["claim_models"])
    assert float(svg.get("width")) <= SMALL_WIDTH


def test_long_names_of_datasets_do_not_make_them_wider():
    renamed = {
        name: table.replace({"dataset": {"toy": "d" * 60}})
        for name, table in (masked_tables() | shared_tables()).items()
    }
    for chart in (*figures(renamed).values(), of_dynamics(renamed)):
        assert float(drawn(chart).get("width")) <= SMALL_WIDTH


def test_lines_differ_without_colour():
    """By words at both ends, and by the shapes of their points."""
    charts = figures(mnist(), ["RES", "MIX", "OON"])
    chart = charts["claim_models"]
    assert {"OON 85 %", "MIX 83 %", "RES 77 %", "MIX 77 %", "RES 74 %", "OON 41 %"} <= words(chart)
    shapes = spec_of(chart)["vconcat"][0]["hconcat"][0]["layer"][2]["encoding"]["shape"]
    assert len(set(shapes["scale"]["range"])) == 3
    found = words(charts["claim_tolerances"])
    assert {"paper's attack", "corrected gradient", "strongest attack"} <= found
    assert {"masked gradient", "weak search"} <= found


def test_they_say_what_they_are_of():
    found = figures(masked_tables())
    assert "toy, L∞ ε = 0.1, ODE nets at τ = 1" in words(found["claim_models"])
    assert "OON on toy, L∞ ε = 0.1" in words(found["claim_tolerances"])


def test_an_unknown_cause_is_called_so():
    tables = masked_tables()
    verdicts = tables["verdicts"].assign(corrected=math.nan)
    found = words(figures(tables | {"verdicts": verdicts})["claim_tolerances"])
    assert "cause not known" in found
    assert "masked gradient" not in found


@pytest.mark.parametrize("column", ["paper", "gap"])
def test_they_are_drawn_without_the_papers_attack(column):
    tables = masked_tables()
    unknown = {name: tables[name].copy() for name in NAMES}
    for table in unknown.values():
        if column in table:
            table[column] = math.nan
    for chart in figures(unknown).values():
        assert len(words(chart)) > 5


def test_of_nothing_there_is_an_empty_figure():
    tables = masked_tables()
    for chart in figures({name: tables[name].iloc[:0] for name in NAMES}).values():
        assert words(chart) == set()


def test_the_dynamics_of_two_models_are_side_by_side():
    tables = shared_tables()
    svg = drawn(of_dynamics(tables))
    assert_small(svg)
    found = words_in(svg)
    assert "Share of lost margin: bars attack, ○ noise, △ other image" in found
    assert {"OON on toy, τ = 0.01", "RES on toy, no ODE", "before", "10%"} <= found


def test_a_model_whose_shares_are_not_known_is_left_out():
    tables = shared_tables()
    shares = tables["shares"]
    unknown = shares.assign(fraction=shares.fraction.where(shares.model != "OON"))
    found = words(of_dynamics(tables | {"shares": unknown}))
    assert "RES on toy, no ODE" in found
    assert not any("OON" in text for text in found)
    nothing = shares.assign(fraction=math.nan)
    assert words(of_dynamics(tables | {"shares": nothing})) == set()
    assert words(of_dynamics({name: table.iloc[:0] for name, table in tables.items()})) == set()


def test_fractions_of_a_small_loss_do_not_hide_the_others():
    """They can be any number, and negative where a part takes back what others lose."""
    tables = shared_tables()
    shares = tables["shares"].copy()
    odd = shares.perturbation == "noise"
    shares.loc[odd, ["fraction", "fraction_low", "fraction_high"]] = [40.0, -1e6, 1e6]
    svg = drawn(of_dynamics(tables | {"shares": shares}))
    assert float(svg.get("height")) <= SMALL_HEIGHT
    assert "1000%" not in words_in(svg)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_words_keep_their_order_and_their_distance(values):
    least = min(0.1, 1 / max(len(values) - 1, 1))
    moved = apart(values, 0.1)
    order = sorted(range(len(values)), key=values.__getitem__)
    places = [moved[index] for index in order]
    assert all(after - before > least - 1e-9 for before, after in pairwise(places))
    assert all(-1e-9 < place < 1 + 1e-9 for place in places)


def test_words_that_are_apart_stay():
    assert apart([0.5, 0.1, 0.9], 0.2) == pytest.approx([0.5, 0.1, 0.9])
    assert apart([0.5, 0.5], 0.2) == pytest.approx([0.4, 0.6])
    assert apart([0, 0, 1], 0.2) == pytest.approx([0, 0.2, 1])
