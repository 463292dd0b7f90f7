"""What is in the catalogue of figures is drawn, written and shown, and nothing else is."""

from importlib import import_module
from pathlib import Path

import pytest

from node_robustness.code import digest
from node_robustness.figures import catalogue, drawing, experiment
from node_robustness.figures.catalogue import DRAWN, EXAMPLE_PICTURES, FIGURES, IMAGE_PAGES
from node_robustness.tables import catalogue as tables
from node_robustness.tables.catalogue import Level

SHARED = {"__init__", "catalogue", "copies", "drawing", "experiment", "menus", "style"}
FOLDER = Path(drawing.__file__).parent


def test_every_module_of_the_folder_is_a_figure():
    assert {path.stem for path in FOLDER.glob("*.py")} - SHARED == set(FIGURES)


def test_the_digest_of_the_rule_has_every_module_that_draws():
    """Its jobs must run again when one of them changes."""
    known = digest.of_script(FOLDER.parents[1] / "figures.py")
    assert [name for name in DRAWN if f"node_robustness/figures/{name}.py" not in known] == []
    assert set(experiment._BY_NAME) == set(DRAWN)


@pytest.mark.parametrize("name", FIGURES)
def test_an_entry_names_what_there_is(name):
    entry = FIGURES[name]
    assert callable(import_module(f"node_robustness.figures.{name}").figure)
    known = {"costs"} if entry.rule == "report" else {*tables.TABLES, EXAMPLE_PICTURES, IMAGE_PAGES}
    assert {*entry.needs, *entry.filled_by} <= known
    assert entry.shows.endswith(".")
    assert "  " not in entry.caption
    assert isinstance(entry.level, Level)
    assert entry.caption.endswith(f". {entry.level.sentence}")


@pytest.mark.parametrize("name", catalogue.ON_PAGE)
def test_a_table_of_the_page_says_whether_a_figure_of_the_page_is_shown(name):
    assert {*(FIGURES[name].filled_by or FIGURES[name].needs)} & {*tables.ON_PAGE}


def test_a_figure_is_shown_where_the_tables_at_hand_have_rows():
    assert catalogue.has_rows("curves", {"curves": [1], "verdicts": [1]})
    assert catalogue.has_rows("curves", {"verdicts": [1]})
    assert not catalogue.has_rows("curves", {"curves": [], "verdicts": [1]})
    assert not catalogue.has_rows("verdicts", {"verdicts": []})
