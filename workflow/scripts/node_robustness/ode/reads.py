"""Which arguments of a function decide, as Python numbers, what it computes.

A function that branches on the value of a tensor (`if h.norm() > 1`, `int(t)`, `h.numpy()`) is
another function for other values. No comparison of results finds that if the values that were
tried take the same branch. So the operations are observed: whatever is computed from an argument
depends on it, and reading such a tensor as a number is noted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LEAVE_TORCH = {"tolist", "numpy", "__array__", "__dlpack__"}
"""Methods by which values leave PyTorch without an operation."""


@contextmanager
def noted_reads(arguments: Mapping[str, Iterable[Tensor]]) -> Iterator[set[str]]:
    """The names of the arguments whose values are read as numbers, complete at the end.

    Args:
        arguments: tensors by name. What is computed from them in the context depends on them.
    """
    origins = _Origins(arguments)
    with _Operations(origins), _Methods(origins):
        yield origins.read


class _Origins:
    """On which arguments tensors depend: those that share memory depend on the same ones."""

    def __init__(self, arguments: Mapping[str, Iterable[Tensor]]) -> None:
        self.read: set[str] = set()
        self._names: dict[int, set[str]] = {}
        self._alive: list[Tensor] = []  # so that no address is used twice
        for name, tensors in arguments.items():
            self.add(tensors, {name})

    def of(self, values: object) -> set[str]:
        found = (self._names.get(_address(tensor), set()) for tensor in _tensors(values))
        return set().union(*found)

    def add(self, values: object, names: set[str]) -> None:
        for tensor in _tensors(values):
            self._alive.append(tensor)
            self._names.setdefault(_address(tensor), set()).update(names)


class _Operations(TorchDispatchMode):
    def __init__(self, origins: _Origins) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._origins = origins

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        names = self._origins.of((args, kwargs))
        if names:
            self._origins.add(result, names)
            if torch.Tag.data_dependent_output in func.tags or _has_size_by_value(func, args):
                self._origins.read |= names
        return result


class _Methods(TorchFunctionMode):
    def __init__(self, origins: _Origins) -> None:
        super().__init__()
        self._origins = origins

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Any = None,
    ) -> Any:
        if getattr(func, "__name__", "") in _LEAVE_TORCH:
            self._origins.read |= self._origins.of(args)
        return func(*args, **(kwargs or {}))


def _has_size_by_value(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether the shape of the result depends on values."""
    if torch.Tag.dynamic_output_shape not in func.tags:
        return False
    # Of indexing, that is so with masks only.
    indexing = func is torch.ops.aten.index.Tensor
    return not indexing or any(index.dtype == torch.bool for index in _tensors(args[1]))


def _tensors(values: object) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        yield from _tensors(tuple(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
