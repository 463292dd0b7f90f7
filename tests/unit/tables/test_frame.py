"""Tables as rows of Python's own values."""

import json

import pandas as pd
import pytest

from node_robustness.tables.frame import records
from samples import tiny_tables


@pytest.mark.parametrize("name", sorted(tiny_tables()))
def test_records_are_those_of_pandas(name):
    table = tiny_tables()[name].head(50)
    found = records(table)
    assert repr(found) == repr(table.to_dict("records"))
    json.dumps(found)  # no type of NumPy


def test_records_of_no_row():
    assert records(pd.DataFrame(columns=["a", "b"])) == []
