"""The tables of a run are those of the catalogue."""

from pathlib import Path

from node_robustness.tables.catalogue import TABLES, Level
from samples import tiny_tables

ROOT = Path(__file__).parents[3]


def test_every_table_is_made_and_no_other():
    assert set(tiny_tables()) == set(TABLES)


def test_every_table_is_described():
    described = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    assert [name for name in TABLES if f"`{name}`:" not in described] == []


def test_every_table_names_what_it_speaks_of():
    """Each level is used, and told apart from the others by its words."""
    assert {entry.level for entry in TABLES.values()} == set(Level)
    for level in Level:
        assert level.sentence.startswith(f"Level: {level}; ")
    assert len({level.sentence for level in Level}) == len(Level)


def test_a_table_of_several_networks_has_no_seed():
    """And one of single networks has."""
    for name, table in tiny_tables().items():
        level = TABLES[name].level
        assert ("seed" in table) == (level in (Level.NETWORK, Level.RUN)), name
