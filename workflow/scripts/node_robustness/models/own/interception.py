"""Intercept torchdiffeq inside a user's module, whatever name it was imported by.

Within `intercepting`, the code of torchdiffeq's functions, and of those in `ode.drop_in` that take
their place, is that of a function which passes the call to a handler. The functions themselves stay
the same objects, so that calls through any import, `functools.partial`, default argument or
attribute are found. Outside, torchdiffeq is itself.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Call:
    """One call of torchdiffeq.

    Attributes:
        name: of the function: odeint, odeint_adjoint or odeint_dense.
        arguments: all of them by name, with defaults.
    """

    name: str
    arguments: Mapping[str, Any]

    @property
    def times(self) -> Tensor:
        """The output times, [T], as the author gave them."""
        if self.name == "odeint_dense":
            return torch.stack([torch.as_tensor(self.arguments[name]) for name in ("t0", "t1")])
        times: Tensor = self.arguments["t"].detach()
        return times

    def by_torchdiffeq(self, name: str | None = None, **changes: Any) -> Any:
        """The result of torchdiffeq itself, of this function or another, with other arguments."""
        key = f"torchdiffeq.{name or self.name}"
        known, arguments = _signature(key).parameters, {**self.arguments, **changes}
        with _handled_by(None):
            return _original(_functions()[key])(
                **{key: value for key, value in arguments.items() if key in known}
            )


Handler = Callable[[Call], Any]
"""What a call of torchdiffeq returns instead."""

_handlers: list[Handler | None] = []


@contextmanager
def intercepting(handler: Handler) -> Iterator[None]:
    """Pass every call of torchdiffeq in the block to a handler; blocks may be nested."""
    if not _handlers:
        for key, function in _functions().items():
            function.__code__ = _passing_on(key)
    with _handled_by(handler):
        yield


@contextmanager
def _handled_by(handler: Handler | None) -> Iterator[None]:
    _handlers.append(handler)
    try:
        yield
    finally:
        _handlers.pop()
        if not _handlers:
            for function in _functions().values():
                function.__code__ = _original(function).__code__


def dispatch(key: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Answer a call of a function; without a handler by the function itself."""
    handler = _handlers[-1]
    if handler is None:
        return _original(_functions()[key])(*args, **kwargs)
    bound = _signature(key).bind(*args, **kwargs)
    bound.apply_defaults()
    return handler(Call(key.rpartition(".")[2], bound.arguments))


def _trampoline(*args: Any, **kwargs: Any) -> Any:
    # It runs with the global names of another module, and so imports what it needs.
    from node_robustness.models.own.interception import dispatch

    return dispatch("key", args, kwargs)


@cache
def _passing_on(key: str) -> CodeType:
    """The code of a function that passes its call on under a key."""
    code = _trampoline.__code__
    constants = tuple(key if value == "key" else value for value in code.co_consts)
    return code.replace(co_consts=constants)


@cache
def _functions() -> dict[str, FunctionType]:
    # Imported here because it takes half a second and few runs need it.
    import torchdiffeq

    from node_robustness.ode import drop_in

    # `odeint_event` calls `odeint`.
    theirs = {
        name: getattr(torchdiffeq, name) for name in ("odeint", "odeint_adjoint", "odeint_dense")
    }
    functions = {f"torchdiffeq.{name}": function for name, function in theirs.items()}
    for name in ("odeint", "odeint_adjoint"):
        functions[f"drop_in.{name}"] = getattr(drop_in, name)
    for function in functions.values():
        _original(function)  # before its code is ever replaced
    return functions


@cache
def _original(function: FunctionType) -> FunctionType:
    """A function with the code, names and defaults of another."""
    copied = FunctionType(function.__code__, function.__globals__, function.__name__)
    copied.__kwdefaults__ = function.__kwdefaults__
    copied.__defaults__ = function.__defaults__
    return copied


@cache
def _signature(key: str) -> inspect.Signature:
    return inspect.signature(_original(_functions()[key]))
