"""Numbers of a configuration: every spelling of a value becomes one float and one token.

`1e-3`, `0.001` and `"1/1000"` are the same cell of the grid, so file names are made from the
value alone, never from its spelling.
"""

import math
import reprlib
from decimal import Decimal
from fractions import Fraction
from functools import cache

_EXAMPLES = "write for example 0.1, 1e-3 or 8/255"
_SHORT_DIGITS = 6
_LARGEST_DENOMINATOR = 1000


def parse_number(value: object) -> float:
    """Read a finite number from YAML: an int, a float, or text such as `1e-3` or `8/255`.

    Raises:
        ValueError: not a finite number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{reprlib.repr(value)} is not a number ({_EXAMPLES})")
    try:
        number = _quotient(value) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{reprlib.repr(value)} is not a number ({_EXAMPLES})") from None
    if not math.isfinite(number):
        raise ValueError(f"{reprlib.repr(value)} is not finite ({_EXAMPLES})")
    return number


def parse_whole(value: object) -> int:
    """Read a whole number from YAML: an int, a float such as `100.0`, or text such as `1e3`.

    Raises:
        ValueError: not a whole number.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        number = parse_number(value)
    except ValueError:
        number = math.nan
    if not number.is_integer():
        raise ValueError(f"{reprlib.repr(value)} is not a whole number (write for example 100)")
    return int(number)


def _quotient(text: str) -> float:
    """The value of `0.1` or of `8/255`, rounded once.

    Decimals go through `float`, because `Fraction("1e999999999")` would build all its digits.
    """
    numerator, bar, denominator = text.partition("/")
    return int(numerator) / int(denominator) if bar else float(text)


@cache
def token(number: float) -> str:
    """The canonical text of a positive number for file names: `0.001`, `10`, `8over255`.

    Values with at most six significant digits are written as decimals; others as a fraction when
    they are one with a small denominator (255 first, the unit of image intensities), else in full.
    """
    return _decimal(number) or _fraction(number, "over") or _full(number)


def from_token(text: str) -> float:
    """The number that a token stands for.

    Raises:
        ValueError: it stands for none.
    """
    return _quotient(text.replace("over", "/"))


def label(number: float) -> str:
    """The canonical text of a number for people: `0`, `0.001`, `10`, `8/255`."""
    return _decimal(number) or _fraction(number, "/") or _full(number)


def _decimal(number: float) -> str | None:
    decimal = Decimal(repr(number)).normalize()
    if len(decimal.as_tuple().digits) > _SHORT_DIGITS:
        return None
    if number == 0 or 1e-6 <= abs(number) < 1e6:
        return format(decimal, "f")
    return format(decimal, "e").replace("e+", "e")


def _full(number: float) -> str:
    return repr(number).replace("+", "")


def _fraction(number: float, bar: str) -> str | None:
    if number.is_integer():
        return None
    intensity = round(number * 255)
    if intensity / 255 == number:
        return f"{intensity}{bar}255"
    near = Fraction(number).limit_denominator(_LARGEST_DENOMINATOR)
    return f"{near.numerator}{bar}{near.denominator}" if float(near) == number else None
