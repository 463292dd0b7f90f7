"""Rates, differences and lists in sentences."""

import pytest

from node_robustness.words import about, listed, percent, points, signed


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "less than a minute"),
        (44, "less than a minute"),
        (60, "about a minute"),
        (100, "about 2 minutes"),
        (12.4 * 60, "about 12 minutes"),
        (33 * 60, "about 35 minutes"),
        (89 * 60, "about 90 minutes"),
        (90 * 60, "about 1 h 30 min"),
        (2.52 * 3600, "about 2 h 30 min"),
        (2.95 * 3600, "about 3 hours"),
        (13.7 * 3600, "about 14 hours"),
        (60 * 3600, "about 2 days"),
        (130 * 3600, "about 5 days"),
    ],
)
def test_a_time_that_is_not_known_exactly_has_few_digits(seconds, text):
    assert about(seconds) == text
