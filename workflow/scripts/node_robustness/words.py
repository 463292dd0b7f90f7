"""Rates, differences and lists in sentences."""

from collections.abc import Sequence
from datetime import timedelta


def percent(rate: float) -> str:
    """A rate in [0, 1], such as `12.5 %`."""
    return f"{100 * rate:.1f} %"


def points(difference: float) -> str:
    """A difference of two rates, such as `12.5 points`."""
    return f"{100 * difference:.1f} points"


def signed(difference: float) -> str:
    """A change of a rate with its sign, such as `+12.5 points`."""
    return f"{100 * difference:+.1f} points".replace("-", "−")


def listed(words: Sequence[str], last: str = "and") -> str:
    """One or more, such as `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def duration(seconds: float | None) -> str:
    """Hours, minutes and seconds, such as `1:02:03`; a dash if unknown."""
    return "–" if seconds is None else str(timedelta(seconds=round(seconds)))


def about(seconds: float) -> str:
    """How long something may take, for people: `about 4 minutes`, `about 2 h 30 min`."""
    if seconds < 45:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    minutes = seconds / 60
    if minutes < 90:
        step = 1 if minutes < 20 else 5
        return f"about {step * round(minutes / step)} minutes"
    if minutes < 10 * 60:
        hours, rest = divmod(10 * round(minutes / 10), 60)
        return f"about {hours} h {rest} min" if rest else f"about {hours} hours"
    if minutes < 48 * 60:
        return f"about {round(minutes / 60)} hours"
    return f"about {round(minutes / 60 / 24)} days"
