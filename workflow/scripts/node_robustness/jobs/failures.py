"""A part of a result that cannot be made does not take the other parts with it."""

import logging
import textwrap
from collections.abc import Callable
from typing import TypeVar

from node_robustness.errors import UserError, is_full

_LONGEST = 300

Part = TypeVar("Part")


def attempt(what: str, make: Callable[[], Part], instead: Callable[[str], Part]) -> Part:
    """Make a part of a result or, if that fails, what stands in its place.

    Only for what is shown: a table or a record that fails must end its job.

    Args:
        what: The part for people, as the subject of a sentence.
        make: Makes the part.
        instead: Makes what stands in its place, from one line that says why.

    Returns:
        The part, or its replacement; the traceback is then in the log.

    Raises:
        UserError: What is wrong can be put right by the user.
        OSError: The disk is full.
    """
    try:
        return make()
    except UserError:
        raise
    except Exception as error:
        if is_full(error):
            raise
        logging.exception("%s could not be made:", what)
        reason = textwrap.shorten(f"{type(error).__name__}: {error}", _LONGEST, placeholder=" ...")
        return instead(f"{what} could not be made ({reason}); the traceback is in the log.")


def sentences(what: str, make: Callable[[], list[str]]) -> list[str]:
    """Make sentences or, if that fails, one that says why; see `attempt`."""
    return attempt(what, make, lambda why: [why])
