"""The JavaScript that draws the charts of a report in a browser: Vega and all that it needs.

It depends on the installed vl-convert alone and takes a second, so that a run makes it once.
"""

import hashlib
from functools import cache
from pathlib import Path

import vl_convert

from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path

_HEAD = "// SHA-256 of the other lines: {}\n"


@cache
def bundle() -> str:
    """Return the code, the same in every report."""
    code: str = vl_convert.javascript_bundle("Object.assign(window, { vegaEmbed });")
    return code


def write(code: str, path: Path | str) -> None:
    """Write the code, with a checksum."""
    with atomic_path(path) as temporary:
        temporary.write_text(_head(code) + code, encoding="utf-8", newline="")


def read(path: Path | str) -> str:
    """Return the code that `write` wrote.

    Raises:
        UserError: The file is not as it was written.
    """
    head, end, code = Path(path).read_bytes().decode(errors="replace").partition("\n")
    if head + end != _head(code):
        raise UserError(f"{path} is damaged: delete it, the next run writes it again")
    return code


def _head(code: str) -> str:
    return _HEAD.format(hashlib.sha256(code.encode()).hexdigest())
