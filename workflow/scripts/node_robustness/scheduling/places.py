"""The folders of the project and of a run: each works, or one line says why not.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

import os
import re
import shlex
import sys
from pathlib import Path

from node_robustness.errors import UserError

# Characters that have a meaning for a shell, or in a pattern with wildcards.
_ODD = re.compile(r"[^\w@%+=:,./-]")


class _Quoted(str):
    """A path that is quoted for a shell where it is put into a command line, and only there."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return format(shlex.quote(str(self)), spec)


def quote_python() -> None:
    """Let Snakemake start scripts with a Python whose path a shell would split.

    Snakemake 9.27 formats `sys.executable` into the command line of a script without quotes. In a
    list of arguments, or as a path, it is not changed.
    """
    sys.executable = _Quoted(sys.executable)


def check_plain(what: str, *paths: Path | str) -> None:
    """Refuse paths that Snakemake does not quote.

    Args:
        what: what it starts with them, for the message.
        *paths: those that it puts into a command line without quotes.

    Raises:
        UserError: one of them has a character with a meaning there.
    """
    for path in map(str, paths):
        odd = _ODD.search(path)
        if odd is not None:
            raise UserError(
                f"{path!r}: Snakemake cannot start {what} where a path has {odd[0]!r} in it: move "
                "the project, and what it uses, to a folder without"
            )


def check_docstrings(optimize: int) -> None:
    """Refuse a Python without docstrings: Altair cannot be imported without them.

    Args:
        optimize: `sys.flags.optimize`.

    Raises:
        UserError: it leaves them out.
    """
    if optimize > 1:
        raise UserError(
            "python leaves docstrings out (PYTHONOPTIMIZE=2 or -OO), without which Altair draws no "
            "figures: unset PYTHONOPTIMIZE"
        )


def check_folder(folder: Path) -> Path:
    """Refuse what cannot become a folder, whether or not it exists yet.

    Returns:
        The folder, or the innermost of those around it that exists.

    Raises:
        UserError: what is in the way.
    """
    found = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not found.exists():
        raise UserError(f"{found} is a link to {found.readlink()}, which is not there: make it")
    if not found.is_dir():
        raise UserError(f"{found} is a file, where a folder is needed: move it away")
    return found


def check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, whether or not it exists yet.

    Raises:
        UserError: what is in the way.
    """
    found = check_folder(folder)
    if not os.access(found, os.W_OK | os.X_OK):
        raise UserError(
            f"{found.absolute()} may not be written to: change that, or run elsewhere (--directory)"
        )
