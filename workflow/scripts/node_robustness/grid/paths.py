"""The grammar of paths: where each file of a run lies, and what a path says of the grid.

A pattern is a path with coordinates in braces, which are Snakemake's wildcards. A place is the part
of a pattern that says where in the grid a job is: results and logs share it.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from node_robustness.numbers import from_token, token

NO_TOLERANCE = "none"
"""How a path spells the tolerance of a model that takes no adaptive steps."""

_PERTURBED = "{norm}/eps-{epsilon}"

RECORD = "resources/{folder}/verified.json"
"""The record that the files of a source are there, with their checksums."""

PREPARED = "{dataset}"
TRAINED = "{dataset}/{model}/seed-{seed}"
SOLVED = f"{TRAINED}/tau-{{tolerance}}"
CELL = f"{SOLVED}/{{attack}}/{_PERTURBED}"
SHARD = f"{CELL}/{{shard}}"
SHARD_FILE = "attack-{shard}.h5"
"""The name of a shard's file, among the results of its cell."""
RANDOMISED = f"{TRAINED}/{_PERTURBED}"
DETECTED = f"{SOLVED}/{_PERTURBED}"
SWEPT = f"{SOLVED}/adjoint_sweep/{_PERTURBED}"
COST = f"{SOLVED}/cost/{_PERTURBED}"
CERTIFIED = f"{TRAINED}/certified/{_PERTURBED}"

_OF_MODELS = (TRAINED, SOLVED, SWEPT, COST, CERTIFIED, CELL, SHARD, RANDOMISED, DETECTED)
"""The places of jobs on a model. The first that a path has is its place: no attack is called like
another stage's folder, and all other places differ in their number of parts."""

# Where results of a place lie in another folder than that of its coordinates.
_FOLDERS = {
    RANDOMISED: f"{TRAINED}/randomised/{_PERTURBED}",
    DETECTED: f"{SOLVED}/detection/{_PERTURBED}",
}
_GROUPS = {"seed": r"\d+", "shard": r"\d+-\d+"}
_SPELL: dict[str, Callable[[Any], str]] = {
    "tolerance": lambda tolerance: NO_TOLERANCE if tolerance is None else token(tolerance),
    "epsilon": token,
}
_VALUE: dict[str, Callable[[str], Any]] = {
    "seed": int,
    "tolerance": lambda text: None if text == NO_TOLERANCE else from_token(text),
    "epsilon": from_token,
}


def folder(place: str) -> str:
    """The pattern of the folder, under `results/`, with the results of a place."""
    return f"{{experiment}}/{_FOLDERS.get(place, place)}"


def result(place: str, name: str) -> str:
    """The pattern of a file with results of a place."""
    return f"results/{folder(place)}/{name}"


def log(rule: str, place: str) -> str:
    """The pattern of the log of a rule's job."""
    return f"results/{{experiment}}/logs/{rule}/{place}.log"


def fill(pattern: str, coordinates: Mapping[Any, Any]) -> str:
    """The path at some coordinates.

    Args:
        pattern: a path with the names of coordinates in braces.
        coordinates: the value of each; there may be more than the pattern names.
    """
    return pattern.format(**{name: spell(name, value) for name, value in coordinates.items()})


def spell(name: str, value: object) -> str:
    """How a path spells the value of a coordinate."""
    return _SPELL.get(name, str)(value)


def values(spelled: Mapping[str, str]) -> dict[str, Any]:
    """Coordinates as values, from the texts by which a path spells them.

    Raises:
        ValueError: a text stands for no value.
    """
    return {name: _VALUE.get(name, str)(text) for name, text in spelled.items()}


def read(pattern: str, path: Path) -> dict[str, Any]:
    """The coordinates that a path says, whatever folder is above it.

    Raises:
        ValueError: it does not have this pattern.
    """
    found = _match(pattern, "/".join(path.parts[-len(pattern.split("/")) :]))
    if found is None:
        raise ValueError(f"{path} is not {pattern}")
    return found


def read_place(text: str) -> dict[str, Any] | None:
    """The coordinates of a job on a model, from its place; None of any other job."""
    found = (_match(place, text) for place in _OF_MODELS)
    return next((coordinates for coordinates in found if coordinates is not None), None)


def _match(pattern: str, text: str) -> dict[str, Any] | None:
    found = _expression(pattern).fullmatch(text)
    try:
        return None if found is None else values(found.groupdict())
    except ValueError:
        return None


@cache
def _expression(pattern: str) -> re.Pattern[str]:
    def group(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{_GROUPS.get(found[1], '[^/]+')})"

    return re.compile(re.sub(r"\\{(\w+)\\}", group, re.escape(pattern)))
