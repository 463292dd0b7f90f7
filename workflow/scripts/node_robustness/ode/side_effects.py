"""What calls of a function leave behind in its modules, and how to undo it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn


def outer_modules_of(function: Callable[..., Any]) -> Iterator[nn.Module]:
    """The modules that a function calls, as far as they can be found.

    The function is a module, a method of one, or it holds modules: as arguments of a partial
    function, as attributes of the object whose method it is, as variables of its closure, as
    global names.
    """
    waiting: list[object] = [function]
    for value in waiting:
        if isinstance(value, nn.Module):
            yield value
        elif callable(value):
            waiting += [part for part in _held(value) if not any(part is one for one in waiting)]


def _held(function: Any) -> Iterator[object]:
    """What a function refers to."""
    if isinstance(function, partial):
        yield from (function.func, *function.args, *function.keywords.values())
    owner = getattr(function, "__self__", None)
    if isinstance(owner, nn.Module):
        yield owner
    elif not isinstance(owner, type | ModuleType):
        yield from getattr(owner, "__dict__", {}).values()
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # not assigned yet
            yield cell.cell_contents
    names = getattr(getattr(function, "__code__", None), "co_names", ())
    named = (function.__globals__.get(name) for name in names)
    yield from (value for value in named if isinstance(value, nn.Module))


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """The modules of `outer_modules_of`, and those inside them."""
    found = {id(module): module for top in outer_modules_of(function) for module in top.modules()}
    return list(found.values())


def parameters_of(function: Callable[..., Any]) -> list[nn.Parameter]:
    """The parameters of `modules_of` that require gradients."""
    own = (module.parameters(recurse=False) for module in modules_of(function))
    found = {id(parameter): parameter for parameters in own for parameter in parameters}
    return [parameter for parameter in found.values() if parameter.requires_grad]


def stop_dropout(function: Callable[..., Any]) -> None:
    """Put a function's modules in evaluation mode, but for batch normalisation.

    The rows of that one depend on each other in training, which must be noticed.
    """
    for module in modules_of(function):
        if not isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.training = False


@contextmanager
def undone(function: Callable[..., Any]) -> Iterator[None]:
    """Put back the attributes and the buffers of a function's modules, and the random state."""
    kept = [_Kept(module) for module in modules_of(function)]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            for each in kept:
                each.put_back()


class _Kept:
    """What a module is at one moment."""

    @torch.no_grad()
    def __init__(self, module: nn.Module) -> None:
        self._module, self._training = module, module.training
        self._attributes = dict(vars(module))
        self._buffers = dict(module._buffers.items())
        tensors = (*self._attributes.values(), *self._buffers.values())
        self._values = [(each, each.clone()) for each in tensors if isinstance(each, Tensor)]

    @torch.no_grad()
    def put_back(self) -> None:
        vars(self._module).clear()
        vars(self._module).update(self._attributes)
        self._module.training = self._training  # a script module has it elsewhere, and its buffers
        if isinstance(self._module, torch.jit.ScriptModule):
            for name, buffer in self._buffers.items():
                setattr(self._module, name, buffer)
        else:
            self._module._buffers.clear()
            self._module._buffers.update(self._buffers)
        for tensor, value in self._values:
            # A graph may have saved the tensor, and would complain of a write that changes nothing.
            if not torch.equal(tensor, value):
                tensor.copy_(value)
