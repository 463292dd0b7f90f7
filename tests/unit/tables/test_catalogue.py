"""The tables of a run are those of the catalogue."""

from pathlib import Path

from node_robustness.tables.catalogue import TABLES
from samples import tiny_tables

ROOT = Path(__file__).parents[3]


def test_every_table_is_made_and_no_other():
    assert set(tiny_tables()) == set(TABLES)


def test_every_table_is_described():
    described = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    assert [name for name in TABLES if f"`{name}`:" not in described] == []
