"""Charts whose copies share parts: the same charts, sooner."""

import json

import altair as alt
import pytest
from altair.utils import schemapi

from node_robustness.figures.copies import shared_parts
from node_robustness.figures.experiment import of_experiment
from node_robustness.tables.examples import example_table
from samples import MODELS, collect, pages_in, write_data
from vega_lite import spec_of


@pytest.fixture(scope="module", autouse=True)
def as_in_a_run():
    """These tests compare with charts as Altair makes them."""


def specs(tables, examples, pages, spec_of):
    charts = of_experiment(tables, lambda: examples, lambda: pages, MODELS)
    return {name: json.dumps(spec_of(make())) for name, make in charts.items()}


def test_every_figure_is_the_same(tmp_path):
    tables, shown = collect(tmp_path)
    data = example_table([(path, write_data(tmp_path)) for path in shown[:1]]), pages_in(tmp_path)
    with shared_parts():
        found = specs(tables, *data, spec_of)
    assert found == specs(tables, *data, lambda chart: chart.to_dict(validate=False))
    assert len(found) > 20


@pytest.mark.parametrize("change", ["mark_bar", "encode", "transform_filter", "properties"])
def test_a_change_of_a_copy_leaves_the_original_as_it_is(change):
    arguments = {"encode": {"x": "b:Q"}, "properties": {"title": "other"}}.get(change, {})
    with shared_parts():
        chart = alt.Chart(alt.InlineData(values=[{}])).mark_point().encode(y="a:Q")
        chart = chart.transform_filter("datum.a > 0")
        before = chart.to_dict()
        other = getattr(chart, change)(
            *(["datum.a < 1"] if change == "transform_filter" else []), **arguments
        )
        assert other.to_dict() != before == chart.to_dict()


def test_altair_is_as_it_was_afterwards():
    copy = alt.SchemaBase.copy
    with shared_parts():
        assert not schemapi.DEBUG_MODE
    with pytest.raises(KeyError), shared_parts():
        raise KeyError
    assert alt.SchemaBase.copy is copy
    assert schemapi.DEBUG_MODE
