"""The command line of a run: jobs inherit it by the environment, and the manifest records it."""

import os
import shlex
import sys

_VARIABLE = "NODE_ROBUSTNESS_COMMAND_LINE"


def remember() -> None:
    """Keep the command line of this Snakemake, unless it is itself a job of another one."""
    os.environ.setdefault(_VARIABLE, shlex.join(["snakemake", *sys.argv[1:]]))


def recall() -> str | None:
    """The command line of the run that a job belongs to; None where it was not kept."""
    return os.environ.get(_VARIABLE)
