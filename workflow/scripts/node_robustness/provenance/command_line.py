"""The command line of a run: jobs inherit it through the environment, and the manifest tells it."""

import os
import shlex
import sys

_VARIABLE = "NODE_ROBUSTNESS_COMMAND_LINE"


def remember() -> None:
    """Keep the command line of this Snakemake, unless it is itself a job of another one."""
    os.environ.setdefault(_VARIABLE, shlex.join(["snakemake", *sys.argv[1:]]))


def recall() -> str | None:
    """The command line of the run that a job belongs to; None where nobody has kept it."""
    return os.environ.get(_VARIABLE)
