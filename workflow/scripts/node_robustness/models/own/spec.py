"""What is known of an own model: how it is built, and what an inspection has found in it."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, field, fields
from typing import Any, Literal, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from node_robustness.errors import UserError
from node_robustness.ode.rows import Way

_STRICT = ConfigDict(extra="forbid")


@checked_dataclass(frozen=True, config=_STRICT)
class OwnSolve:
    """One ODE solve of a forward pass, as the author wrote it.

    Attributes:
        name: the module in whose `forward` it is, such as net.5; "" for the network itself.
        adjoint: whether it calls `odeint_adjoint`.
        method: torchdiffeq's name.
        rtol: relative tolerance.
        atol: absolute tolerance.
        start: the first time.
        end: the last time.
        outputs: number of output times, with the first.
        steps: number of steps that the author set; None for adaptive steps.
        shape: of the state of one image; of a tuple, the shapes of its parts.
        way: how images at different times share an evaluation.
        error: the largest relative difference between that way and a loop over images.
        backward: the author's settings of the backward solve that are not followed: its method
            and its options.
    """

    name: str
    adjoint: bool
    method: str
    rtol: float
    atol: float
    start: float
    end: float
    outputs: int
    steps: int | None
    shape: tuple[int, ...] | tuple[tuple[int, ...], ...]
    way: Way
    error: float
    backward: tuple[str, ...] = ()

    @property
    def tolerance(self) -> float:
        """The larger of both tolerances: the tau of the author."""
        return max(self.rtol, self.atol)


@checked_dataclass(frozen=True, config=_STRICT)
class Inspection:
    """What was found in a network by running it on real images.

    Attributes:
        channels: of an image.
        height: of an image, pixels.
        width: of an image, pixels.
        classes: number of logits.
        solves: the solves of a forward pass, in order.
        one_by_one: why torchdiffeq solves each image by itself; None if all images are solved as
            one batch in which each has its own steps.
        followed: which solve is the body; None if there is none.
        not_followed: why there is no body, although there is a solve.
        trained_jointly: why a batch is one equation in training; None if each image has its own
            steps there, too.
        double: whether the network runs in double precision.
        setter: whether the module sets its own tolerance, by `set_tolerance`.
    """

    channels: int
    height: int
    width: int
    classes: int
    solves: tuple[OwnSolve, ...] = ()
    one_by_one: str | None = None
    followed: int | None = None
    not_followed: str | None = None
    trained_jointly: str | None = None
    double: bool = True
    setter: bool = False

    @property
    def ode(self) -> Literal["adaptive", "fixed", "none"]:
        """Whether a tolerance has an effect, and whether there is an ODE at all."""
        if self.setter or any(solve.steps is None for solve in self.solves):
            return "adaptive"
        return "fixed" if self.solves else "none"

    @property
    def limits(self) -> tuple[str, ...]:
        """What cannot be measured and why, in sentences."""
        said = []
        if not self.solves and not self.setter:
            said.append(
                "No call of torchdiffeq was found: it is measured at own settings alone, and no "
                "evaluations are counted."
            )
        elif not self.solves:
            said.append("It has a solver that is not torchdiffeq, so that its steps are not known.")
        elif self.one_by_one is not None:
            said.append(
                f"torchdiffeq solves image by image, because {self.one_by_one.rstrip('.')}."
            )
        backward = sorted({setting for solve in self.solves for setting in solve.backward})
        if backward and self.one_by_one is None:
            said.append(
                "Gradients by the adjoint have the method of the forward solve, not the author's "
                f"{' and '.join(backward)}."
            )
        if self.not_followed is not None:
            said.append(f"Its solve is not followed, because {self.not_followed.rstrip('.')}.")
        if self.ode == "fixed":
            said.append("It takes fixed steps, on which a tolerance has no effect.")
        if not self.double:
            said.append("It does not run in double precision.")
        return tuple(said)

    @property
    def level(self) -> int:
        """0: images to logits; 1: its solves are intercepted; 2: it sets its own tolerance."""
        return 1 if self.solves else 2 if self.setter else 0


@checked_dataclass(frozen=True, config=_STRICT)
class OwnSpec:
    """An own model; `checkpoints` saves it next to its weights.

    Attributes:
        module: the Python file, relative to the working directory, or a dotted name; None for a
            module that exists already.
        build: the function or class in it.
        arguments: what it is called with.
        given: what it is called with where its signature has them.
        output: which element is the logits, if the module returns several.
        solve: the solve that is followed, by module or number; None for the first.
        max_steps: largest number of attempted steps of a solve.
        code: digests of the files that the module uses, and versions of libraries.
        found: by the last inspection.
        name: of the model, for messages.
    """

    found: Inspection
    name: str = "model"
    module: str | None = None
    build: str = "build"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, int] = field(default_factory=dict)
    output: int | str = 0
    solve: int | str | None = None
    max_steps: int = 1000
    code: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return the spec as indented JSON, with what follows from it for readers."""
        values = asdict(self)
        found, said = values.pop("found"), {name: getattr(self.found, name) for name in _FOLLOWS}
        return json.dumps(values | found | said, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the JSON text of a spec.

        Raises:
            ValueError: the text is not a spec.
        """
        values = {key: value for key, value in json.loads(text).items() if key not in _FOLLOWS}
        names = {item.name for item in fields(Inspection)}
        found = {name: values.pop(name) for name in names & values.keys()}
        try:
            return TypeAdapter(cls).validate_python({**values, "found": found})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg']}") from None


_FOLLOWS = ("ode", "level", "limits")


def is_own(text: str) -> bool:
    """Whether the JSON text of a spec is that of an own model."""
    values = json.loads(text)
    return isinstance(values, dict) and "module" in values


@contextmanager
def named(name: str) -> Iterator[None]:
    """Begin a message to the user with the model that it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"models.{name}: {error}") from error
