"""The attack methods: every file of `config.attacks` is one, and is found by its name.

A method named `x` has its settings in `config/attacks/x.py`: one class, whose key `method` is `x`,
and `BUILT_IN`, the attacks that need no entry in a configuration. What it does is in
`attacks/x.py` (`attacks.make`), which is not imported here.
"""

import operator
from collections.abc import Iterator
from functools import reduce
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Tag

from node_robustness.config import attacks
from node_robustness.config.attack import AnyAttack

METHOD = "\0method "
"""Begins the part of an error's location that stands for the method; YAML cannot contain it."""


def _modules() -> Iterator[tuple[str, ModuleType]]:
    """The name and the module of each method, in alphabetical order."""
    for name in sorted(module.name for module in iter_modules(attacks.__path__)):
        yield name, import_module(f"{attacks.__name__}.{name}")


def _settings_in(module: ModuleType) -> type[AnyAttack]:
    """The one class of settings that a module defines."""
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, AnyAttack)
        and value.__module__ == module.__name__
    )
    return found


def _method(value: Any) -> str | None:
    """The tag of an attack; None if it is not a map or has no method."""
    given = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return None if given is None else f"{METHOD}{given}"


METHODS: dict[str, type[AnyAttack]] = {name: _settings_in(module) for name, module in _modules()}
BUILT_IN: dict[str, dict[str, Any]] = {
    attack: settings for _, module in _modules() for attack, settings in module.BUILT_IN.items()
}
"""Attacks that need no entry under `attacks`."""

if TYPE_CHECKING:
    Attack = AnyAttack
else:
    Attack = Annotated[
        reduce(
            operator.or_,
            (Annotated[settings, Tag(f"{METHOD}{name}")] for name, settings in METHODS.items()),
        ),
        Discriminator(_method),
    ]
