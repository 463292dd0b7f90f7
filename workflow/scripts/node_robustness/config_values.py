"""The values that configuration keys take: numbers, names, norms, and lists of them."""

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
MIRROR = r"^(https?|file)://"
FILE_NAME = r"^[^/\\]+$"
WEIGHTS = r"\.(pth|safetensors)$"
SHA256 = r"^[0-9a-f]{64}$"
PATTERNS = {
    NAME: "letters, digits and underscores, beginning with a letter",
    MIRROR: "https://..., http://... or file:///folder",
    FILE_NAME: "a plain file name, without folders",
    WEIGHTS: "the path of a .pth or .safetensors file",
    SHA256: "64 hexadecimal digits in lower case",
}

# They become file names, two of them in one with more around it, of which 255 bytes are the limit.
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
Mirror = Annotated[str, Field(pattern=MIRROR)]
# The bounds come first: behind a BeforeValidator they would not reach the JSON schema.
Positive = Annotated[float, Field(gt=0), BeforeValidator(parse_number)]
NonNegative = Annotated[float, Field(ge=0), BeforeValidator(parse_number)]
Natural = Annotated[int, Field(ge=0), BeforeValidator(parse_whole)]
Count = Annotated[int, Field(ge=1), BeforeValidator(parse_whole)]
Norm = Literal["linf", "l2", "l2_rms"]


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
    Annotated[Annotated[int, Field(ge=2), BeforeValidator(parse_whole)], Tag(ONE)]
    | Annotated[Annotated[list[_Moment], Field(min_length=2), AfterValidator(_a_grid)], Tag(MAP)],
    Discriminator(_one_or_many),
]
Names = Annotated[list[Name], Field(min_length=1), AfterValidator(_unique)]
Norms = Annotated[list[Norm], Field(min_length=1), AfterValidator(_unique)]
Seeds = Annotated[list[Natural], Field(min_length=1), AfterValidator(_unique)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
