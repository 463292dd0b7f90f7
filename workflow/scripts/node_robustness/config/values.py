"""The values that configuration keys take: numbers, names, norms, and lists of them."""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from node_robustness.numbers import label, parse_number, parse_whole, token

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
MIRROR = r"^(https?://[^/]|file://(localhost)?/)"
FILE_NAME = r"^[^/\\]+$"
WEIGHTS = r"\.(pth|safetensors)$"
SHA256 = r"^[0-9a-f]{64}$"
CHECKPOINT = r"[^/\\\s]$"
MODULE = r"^[^\s].*[^/\s]$"
FUNCTION = r"^[^\W\d]\w*$"
PATTERNS = {
    NAME: "letters, digits and underscores, beginning with a letter",
    MIRROR: "https://..., http://... or file:///folder",
    FILE_NAME: "a plain file name, without folders",
    WEIGHTS: "the path of a .pth or .safetensors file",
    SHA256: "64 hexadecimal digits in lower case",
    CHECKPOINT: "the path of a file",
    MODULE: "the path of a .py file, or the dotted name of a module",
    FUNCTION: "the name of a function or class",
}

FIXED = ("euler", "midpoint", "rk4", "heun2", "heun3", "explicit_adams", "implicit_adams")
"""Methods of torchdiffeq that take equal steps."""

# They become file names, two of them in one with more around it, of which 255 bytes are the limit.
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
Mirror = Annotated[str, Field(pattern=MIRROR)]
# The bounds come first: behind a BeforeValidator they would not reach the JSON schema.
Positive = Annotated[float, Field(gt=0), BeforeValidator(parse_number)]
# Two epsilons lead from one side of the ball to the other.
Share = Annotated[float, Field(gt=0, le=2), BeforeValidator(parse_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(parse_number)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(parse_number)]
Natural = Annotated[int, Field(ge=0), BeforeValidator(parse_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(parse_whole)]
Norm = Literal["linf", "l2", "l2_rms"]


def _a_seed(number: int) -> int:
    # PyTorch and the tables hold no more.
    if number >= 2**63:
        raise ValueError(f"{number} is too large for a seed: write a whole number below 2**63")
    return number


Seed = Annotated[Natural, AfterValidator(_a_seed)]


_FARTHEST = {"linf": 1.0, "l2_rms": 1.0}
"""How far apart images in [0, 1] can be; in l2 it depends on their size."""


_SMALLEST_DISTANCE = 1e-9
"""Well below the rounding of images in [0, 1]."""


def check_distance(where: str, value: float, norm: str, farthest: float | None = None) -> None:
    """Refuse an epsilon or a step that leads from any image to any other, or nowhere.

    Args:
        where: its key.
        value: it.
        norm: its norm.
        farthest: how far apart images can be in it; what holds of images of any size if None.

    Raises:
        ValueError: it is larger than that, or lost in rounding.
    """
    if value < _SMALLEST_DISTANCE:
        raise ValueError(
            f"{where}: {label(value)} is no change of an image that a model in single precision "
            f"sees: write {_SMALLEST_DISTANCE:g} at least (8/255 for 8 of 255 levels)"
        )
    limit = _FARTHEST.get(norm) if farthest is None else farthest
    if limit is not None and value > limit * (1 + 1e-9):
        levels = f"{value:g}" if value.is_integer() and value <= 255 else "8"
        raise ValueError(
            f"{where}: {label(value)} in {norm} is more than {limit:g}, the largest distance of "
            f"images in [0, 1]: lower it (write {levels}/255 for {levels} of 255 levels)"
        )


_SMALLEST_TOLERANCE, _LARGEST_TOLERANCE = 1e-9, 1e3


def _can_be_met(tolerance: float) -> float:
    if not _SMALLEST_TOLERANCE <= tolerance < _LARGEST_TOLERANCE:
        raise ValueError(
            f"{label(tolerance)} is no tolerance that bounds a solve in single precision: write a "
            f"number from {_SMALLEST_TOLERANCE:g} to less than {_LARGEST_TOLERANCE:g}, such as 1e-3"
        )
    return tolerance


Tolerance = Annotated[Positive, AfterValidator(_can_be_met)]


def _spelt_once(values: object) -> object:
    """Refuse a list that names one number twice: the grid would hold the same cell twice."""
    if isinstance(values, list):
        seen: dict[str, object] = {}
        for value in values:
            number = parse_number(value)
            if number <= 0:
                raise ValueError(f"{value!r} must be greater than 0")
            if token(number) in seen:
                first = seen[token(number)]
                raise ValueError(
                    f"{label(number)} is listed twice (as {first} and as {value}): remove one"
                )
            seen[token(number)] = value
    return values


def _unique(values: list[Any]) -> list[Any]:
    for position, value in enumerate(values):
        if value in values[:position]:
            raise ValueError(f"{value!r} is listed twice: remove one")
    return values


# Parts of an error's location that YAML cannot contain.
ONE, MAP = "\0one", "\0map"


def _form(value: object) -> str:
    """Which form of a key was written."""
    return MAP if isinstance(value, dict) else ONE


def _one_or_many(value: object) -> str:
    """Whether one number was written or a list of them."""
    return MAP if isinstance(value, list) else ONE


Numbers = Annotated[list[Positive], Field(min_length=1), BeforeValidator(_spelt_once)]
Tolerances = Annotated[list[Tolerance], Field(min_length=1), BeforeValidator(_spelt_once)]
NumbersByNorm = Annotated[
    Annotated[Numbers, Tag(ONE)] | Annotated[dict[Norm, Numbers], Tag(MAP)],
    Discriminator(_form),
]
NumberByNorm = Annotated[
    Annotated[Positive, Tag(ONE)] | Annotated[dict[Norm, Positive], Tag(MAP)],
    Discriminator(_form),
]


def _a_grid(times: list[float]) -> list[float]:
    rising = all(early < late for early, late in pairwise(times))
    if not rising or times[0] != 0 or times[-1] != 1:
        raise ValueError(f"must rise from 0 to 1, both included (given: {times})")
    return times


_Moment = Annotated[float, Field(ge=0, le=1), BeforeValidator(parse_number)]
Times = Annotated[
    Annotated[Annotated[int, Field(ge=2, le=10_000), BeforeValidator(parse_whole)], Tag(ONE)]
    | Annotated[Annotated[list[_Moment], Field(min_length=2), AfterValidator(_a_grid)], Tag(MAP)],
    Discriminator(_one_or_many),
]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
Norms = Annotated[list[Norm], Field(min_length=1), AfterValidator(_unique)]
Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_unique)]


_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def plain_values(value: object) -> object:
    """Values that JSON has, with numbers such as 1e-3 as numbers: YAML 1.1 reads them as text."""
    match value:
        case dict():
            return {key: plain_values(item) for key, item in value.items()}
        case list():
            return [plain_values(item) for item in value]
        case str() if _EXPONENT.fullmatch(value):
            return float(value)
        case str() | bool() | int() | float() | None:
            return value
    raise ValueError(f"{value!r} is no number, text, list or map: put it in quotes")


def with_nulls(value: object) -> object:
    """Values with `null` for "null": in `snakemake --config` every value is text."""
    if isinstance(value, Mapping):
        return {key: with_nulls(item) for key, item in value.items()}
    return None if value == "null" else value


def _number_or_name(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"must be a whole number or a name (given: {value!r})")
    return value


NumberOrName = Annotated[int | str, BeforeValidator(_number_or_name)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
