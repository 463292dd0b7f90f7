"""Intercept torchdiffeq inside a user's module, whatever name it was imported by.

Within `intercepting`, the code of torchdiffeq's functions is that of a function which passes the
call to a handler. The functions themselves stay the same objects, so that calls through any import,
`functools.partial`, default argument or attribute are found. Outside, torchdiffeq is itself.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FunctionType
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
        function = _functions()[name or self.name]
        arguments = {**self.arguments, **changes}
        if name is not None:
            known = _signature(name).parameters
            arguments = {key: value for key, value in arguments.items() if key in known}
        with _suspended():
            return _original(function)(**arguments)


Handler = Callable[[Call], Any]
"""What a call of torchdiffeq returns instead."""

_handlers: list[Handler | None] = []


@contextmanager
def intercepting(handler: Handler) -> Iterator[None]:
    """Pass every call of torchdiffeq in the block to a handler; blocks may be nested."""
    if not _handlers:
        for name, function in _functions().items():
            function.__code__ = _TRAMPOLINES[name].__code__
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


def _suspended() -> Any:
    """Let torchdiffeq's functions, which call each other, be themselves in a block."""
    return _handled_by(None)


def dispatch(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Answer a call of a function of torchdiffeq."""
    handler = _handlers[-1]
    if handler is None:
        return _original(_functions()[name])(*args, **kwargs)
    bound = _signature(name).bind(*args, **kwargs)
    bound.apply_defaults()
    return handler(Call(name, bound.arguments))


# Each runs with the global names of torchdiffeq, and so imports what it needs.


def _odeint(*args: Any, **kwargs: Any) -> Any:
    from node_robustness.models.own.interception import dispatch

    return dispatch("odeint", args, kwargs)


def _odeint_adjoint(*args: Any, **kwargs: Any) -> Any:
    from node_robustness.models.own.interception import dispatch

    return dispatch("odeint_adjoint", args, kwargs)


def _odeint_dense(*args: Any, **kwargs: Any) -> Any:
    from node_robustness.models.own.interception import dispatch

    return dispatch("odeint_dense", args, kwargs)


_TRAMPOLINES = {
    "odeint": _odeint,
    "odeint_adjoint": _odeint_adjoint,
    "odeint_dense": _odeint_dense,  # odeint_event calls odeint
}


@cache
def _functions() -> dict[str, FunctionType]:
    # Imported here because it takes half a second and few runs need it.
    import torchdiffeq

    functions = {name: getattr(torchdiffeq, name) for name in _TRAMPOLINES}
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
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(_original(_functions()[name]))
