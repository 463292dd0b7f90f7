"""The comparison with the schema of Vega-Lite that the tests of figures make."""

import altair as alt
import pytest
from jsonschema import ValidationError

from vega_lite import spec_of


def chart(**mark):
    points = alt.Chart(alt.InlineData(values=[{}])).mark_point(**mark)
    return alt.vconcat(alt.hconcat(points.encode(x="a:Q")))


@pytest.mark.parametrize("mark", [{"opacity": 3}, {"nothing": 1}, {"size": "large"}], ids=str)
def test_what_is_not_valid_is_found_each_time(mark):
    assert spec_of(chart()) == chart().to_dict()
    for _ in range(2):
        with pytest.raises(ValidationError):
            spec_of(chart(**mark))
