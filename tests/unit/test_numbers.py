"""Numbers: every spelling of a value is one float and one token."""

import math
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from node_robustness.numbers import from_token, label, parse_number, parse_whole, token

positive = st.one_of(
    st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    st.integers(1, 10**9).map(float),
    st.builds(lambda a, b: a / b, st.integers(1, 1000), st.integers(1, 1000)),
    st.integers(1, 255).map(lambda intensity: intensity / 255),
    st.builds(
        lambda digits, power: float(f"{digits}e{power}"), st.integers(1, 999), st.integers(-12, 12)
    ),
)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1.0),
        (0.1, 0.1),
        ("1e-3", 0.001),
        ("0.001", 0.001),
        ("1/1000", 0.001),
        ("8/255", 8 / 255),
        (" 8 / 255 ", 8 / 255),
        ("-2", -2.0),
        ("1E2", 100.0),
    ],
)
def test_spellings(value, number):
    assert parse_number(value) == number


@pytest.mark.parametrize(
    "value",
    [True, None, [], {}, "", "a", "1/0", "1/2/3", "0.5/2", "10%", "1 2", "0x10", 10**400, b"1"],
)
def test_no_number(value):
    with pytest.raises(
        ValueError, match=r"is not a number \(write for example 0.1, 1e-3 or 8/255\)$"
    ):
        parse_number(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "nan", "inf", "1e999999999"])
def test_not_finite(value):
    with pytest.raises(ValueError, match="is not finite"):
        parse_number(value)


def test_long_values_are_shortened_in_messages():
    with pytest.raises(ValueError, match=r"^'1/9+\.\.\.9+' is not a number") as caught:
        parse_number("1/" + "9" * 5000)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("value", "number"), [(3, 3), ("3", 3), (3.0, 3), ("1e3", 1000), (2**63 + 1, 2**63 + 1)]
)
def test_whole_numbers(value, number):
    whole = parse_whole(value)
    assert whole == number
    assert type(whole) is int


@pytest.mark.parametrize("value", [True, None, 0.5, "1/2", "a", math.inf, math.nan, [1]])
def test_no_whole_number(value):
    with pytest.raises(ValueError, match=r"is not a whole number \(write for example 100\)$"):
        parse_whole(value)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.001, "0.001"),
        (1e-4, "0.0001"),
        (10.0, "10"),
        (1.0, "1"),
        (8 / 255, "8/255"),
        (1 / 3, "85/255"),
        (1 / 7, "1/7"),
        (0.2, "0.2"),
        (1e-7, "1e-7"),
        (1e7, "1e7"),
        (0.0, "0"),
        (1234567.0, "1234567.0"),
        (math.pi, "3.141592653589793"),
        (1.23456789e20, "1.23456789e20"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
    ],
)
def test_canonical_texts(number, text):
    assert label(number) == text
    assert token(number) == text.replace("/", "over")


@given(positive)
@example(5e-324)
@example(1.7976931348623157e308)
def test_token_is_safe_in_file_names(number):
    assert re.fullmatch(r"[A-Za-z0-9.-]+", token(number))


@given(positive)
@example(8 / 255)
def test_label_reads_back_as_the_same_number(number):
    assert parse_number(label(number)) == number


@given(positive)
@example(2 / 3)
def test_token_reads_back_as_the_same_number(number):
    """So that different numbers have different tokens."""
    assert from_token(token(number)) == number


@given(positive, positive)
def test_token_is_injective(one, other):
    assert (token(one) == token(other)) == (one == other)


@given(positive)
def test_token_depends_on_the_value_only(number):
    spellings = [repr(number), f"{number:.17g}", f"{number:.20e}", f"  {number!r} "]
    if number.is_integer() and number < 1e15:
        spellings += [f"{int(number)}/1", str(int(number)), f"{2 * int(number)}/2"]
    assert {token(parse_number(spelling)) for spelling in spellings} == {token(number)}


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 5))
def test_equal_fractions_have_one_token(numerator, denominator, factor):
    one = parse_number(f"{numerator}/{denominator}")
    other = parse_number(f"{numerator * factor}/{denominator * factor}")
    assert token(one) == token(other)
