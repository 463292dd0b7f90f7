"""Copies of charts that share what nobody changes.

Altair copies whatever it puts into a layer, a concatenation or a facet, with all parts of all
parts, several times at each level, and lays the parts out once more with each copy. That is most of
the time that a chart takes. Neither Altair nor a figure changes a part in place: each changes
attributes of the copy that it has just made. So a copy needs separate attributes and no more.

Altair also compares many parts with the schema of Vega-Lite when they are made. The tests do that
once, with the whole of each figure.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import altair as alt
from altair.utils import schemapi


@contextmanager
def shared_parts() -> Iterator[None]:
    """Let the copies that Altair makes within the context share their parts, not validated."""
    before = alt.SchemaBase.copy
    alt.SchemaBase.copy = _copy  # type: ignore[method-assign, assignment]
    try:
        with schemapi.debug_mode(False):
            yield
    finally:
        alt.SchemaBase.copy = before  # type: ignore[method-assign]


def _copy(part: Any, deep: bool | Iterable[str] = True, ignore: object = None) -> Any:
    """A part with separate attributes, as `SchemaBase.copy`; those that are named are copied."""
    copy = object.__new__(type(part))
    object.__setattr__(copy, "_args", part._args)
    object.__setattr__(copy, "_kwds", dict(part._kwds))
    for name in () if isinstance(deep, bool) else deep:
        value = copy._get(name)
        copy[name] = value.copy() if isinstance(value, alt.SchemaBase | list | dict) else value
    return copy
