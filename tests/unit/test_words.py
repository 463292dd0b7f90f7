"""Rates, differences and lists in sentences."""

import pytest

from node_robustness.words import listed, percent, points, signed


def test_rates_and_differences_have_one_decimal_and_their_unit():
    assert percent(0.1249) == "12.5 %"
    assert points(0.05) == "5.0 points"
    assert signed(0.1) == "+10.0 points"
    assert signed(-0.1) == "−10.0 points"  # a minus, not a hyphen


@pytest.mark.parametrize(
    ("words", "sentence"), [(["a"], "a"), (["a", "b"], "a and b"), (list("abc"), "a, b and c")]
)
def test_the_last_of_a_list_follows_an_and(words, sentence):
    assert listed(words) == sentence
