"""What calls of a function leave behind in its modules, and how to undo it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def outer_modules_of(value: object) -> Iterator[nn.Module]:
    """The modules that a function calls, as far as they can be found.

    The function is a module, a method of one, or it holds modules: as arguments of a partial
    function, as attributes of the object whose method it is, as variables of its closure.
    """
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, partial):
        for part in (value.func, *value.args, *value.keywords.values()):
            yield from outer_modules_of(part)
    elif callable(value):
        owner = getattr(value, "__self__", None)
        if isinstance(owner, nn.Module):
            yield owner
        else:
            attributes = getattr(owner, "__dict__", {}).values()
            yield from (part for part in attributes if isinstance(part, nn.Module))
        for cell in getattr(value, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
            yield from outer_modules_of(content)


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
    kept = [
        (
            module,
            dict(vars(module)),
            dict(module._buffers),
            {name: b.clone() for name, b in module._buffers.items() if b is not None},
        )
        for module in modules_of(function)
    ]
    with torch.random.fork_rng():
        try:
            yield
        finally:
            for module, attributes, buffers, values in kept:
                vars(module).clear()
                vars(module).update(attributes)
                module._buffers.clear()
                module._buffers.update(buffers)
                for name, value in values.items():
                    _write(module._buffers[name], value)


def _write(buffer: Tensor | None, value: Tensor) -> None:
    # A graph may have saved the buffer, and would complain of a write that changes nothing.
    if buffer is not None and not torch.equal(buffer, value):
        with torch.no_grad():
            buffer.copy_(value)
