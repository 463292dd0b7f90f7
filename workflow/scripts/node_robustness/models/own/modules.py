"""Import the Python file of an own model and build its module, without traces in the process.

The file is code and runs with the user's rights.
"""

import importlib
import importlib.util
import inspect
import logging
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from node_robustness.code.model_file import find
from node_robustness.errors import UserError

logger = logging.getLogger(__name__)

_PREFIX = "own_model_"


def build_module(
    module: str, build: str, arguments: Mapping[str, Any], given: Mapping[str, Any]
) -> nn.Module:
    """Build the module of an own model.

    Args:
        module: a Python file, relative to the working directory, or a dotted name.
        build: the function or class in it.
        arguments: passed to it.
        given: passed to it where its signature has them by name and `arguments` does not.

    Returns:
        The module on the CPU, in evaluation mode.

    Raises:
        UserError: the file cannot be imported, or what it builds is no module.
    """
    file = find(module)
    with isolated(file.path, file.root, named=file.package is not None):
        with one_line(f"{module}: cannot be imported", file.path):
            code = _by_path(file.path) if file.package is None else importlib.import_module(module)
        function = getattr(code, build, None)
        if not callable(function):
            raise UserError(f"{module}: has no function or class {build}: correct `build`")
        with one_line(f"{module}: {build} failed", file.path):
            takes = inspect.signature(function).parameters
            extra = {key: value for key, value in given.items() if key in takes}
            built = function(**{**extra, **arguments})
    if not isinstance(built, nn.Module):
        raise UserError(
            f"{module}: {build} returns an object of type {type(built).__name__}: it must return a "
            "torch.nn.Module"
        )
    with one_line(f"{module}: what {build} returns has no usable `eval`", file.path):
        return built.cpu().eval()


def _by_path(path: Path) -> ModuleType:
    """Import a file under a name that no other file has."""
    name = f"{_PREFIX}{sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    sys.modules[name] = code  # where dataclasses and pickle look for it
    spec.loader.exec_module(code)
    return code


def copied(module: nn.Module, *, shared: bool = False) -> nn.Module:
    """A copy of a module, in which results that it keeps as attributes have no graph.

    Args:
        module: a user's.
        shared: whether parameters and buffers are those of the module.
    """
    kept: dict[int, Any] = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    if shared:
        kept |= {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return deepcopy(module, kept)


@contextmanager
def one_line(what: str, file: Path | None = None) -> Iterator[None]:
    """Turn an exception of a user's code into one line.

    Args:
        what: happened, for the message.
        file: whose line is named, if the exception passed through it.

    Raises:
        UserError: the code in the block raised an exception, or tried to end the program.
    """
    try:
        yield
    except UserError:
        raise
    except SystemExit:
        raise UserError(
            f"{what}: it ends the program (argparse or sys.exit): put what is for the command line "
            'under `if __name__ == "__main__":`'
        ) from None
    except Exception as error:
        words = " ".join(str(error).split()) or "no message"
        line = _line(error, file)
        raise UserError(f"{what}: {type(error).__name__}: {words}{line}") from error


def _line(error: Exception, file: Path | None) -> str:
    found = ""
    trace = error.__traceback__
    while trace is not None:
        if file is not None and trace.tb_frame.f_code.co_filename == str(file):
            found = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


@contextmanager
def isolated(
    file: Path | None = None, root: Path | None = None, *, named: bool = False
) -> Iterator[None]:
    """Undo in the end what code in the block did to the process.

    Random states, defaults of PyTorch, the command line, the working directory, the environment,
    import paths, filters of warnings and functions of PyTorch, NumPy and torchdiffeq are as before.

    Args:
        file: in the block it is the only word of the command line.
        root: in the block, modules are first looked for in this folder.
        named: whether modules in it keep their names in the end. Else they are forgotten, so that
            another model may have modules of these names.
    """
    before = [(put, get()) for get, put in _STATE]
    if file is not None:
        sys.argv[:] = [str(file)]
    if root is not None:
        sys.path.insert(0, str(root))
    try:
        apart = nullcontext() if root is None or named else _separate(root)
        with warnings.catch_warnings(), _unpatched(), apart:
            yield
    finally:
        for put, value in before:
            put(value)


@contextmanager
def _unpatched() -> Iterator[None]:
    """Put back functions and classes of libraries in whose place the block puts others."""
    import torchdiffeq

    spaces = (torch, torch.Tensor, nn, nn.functional, torchdiffeq, np, np.random, random)
    before = [(space, {**vars(space)}) for space in spaces]
    try:
        yield
    finally:
        for space, names in before:
            for name, value in names.items():
                if callable(value) and not _is_same(vars(space).get(name), value):
                    logger.warning("%s.%s was replaced: it is put back", space.__name__, name)
                    setattr(space, name, value)


def _is_same(now: Any, before: Any) -> bool:
    """Whether a function is still there, or in a wrapper of PyTorch itself (its compiler's)."""
    if now is before:
        return True
    place = getattr(getattr(now, "__code__", None), "co_filename", "")
    by_torch = Path(place).is_relative_to(Path(torch.__file__).parent)
    return by_torch and inspect.unwrap(now) is inspect.unwrap(before)


@contextmanager
def _separate(root: Path) -> Iterator[None]:
    """Keep the modules of a folder apart from others of the same names."""
    local = {path.stem for path in root.iterdir() if path.suffix == ".py" or path.is_dir()}
    local -= sys.stdlib_module_names
    hidden = {
        name: sys.modules.pop(name)
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in local and _is_loose(module) and not _lies_in(module, root)
    }
    known = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - known:
            if _lies_in(sys.modules[name], root) and not name.startswith(_PREFIX):
                del sys.modules[name]
        sys.modules.update(hidden)


def _is_loose(module: ModuleType) -> bool:
    """Whether a module comes from a file that is not installed."""
    file = getattr(module, "__file__", None)
    return file is not None and "site-packages" not in file


def _lies_in(module: ModuleType, root: Path) -> bool:
    return _is_loose(module) and Path(str(module.__file__)).is_relative_to(root)


def _lists() -> list[tuple[str, list[str], list[str]]]:
    """Lists in `sys` that code may exchange or change: name, list, members."""
    return [(name, getattr(sys, name), [*getattr(sys, name)]) for name in ("argv", "path")]


def _put_lists(old: list[tuple[str, list[str], list[str]]]) -> None:
    for name, values, members in old:
        values[:] = members
        setattr(sys, name, values)


def _put_environment(old: dict[str, str]) -> None:
    if os.environ != old:
        os.environ.clear()
        os.environ.update(old)


def _put_threads(old: int) -> None:
    if torch.get_num_threads() != old:
        torch.set_num_threads(old)


def _put_device(old: torch.device) -> None:
    if torch.get_default_device() != old:
        torch.set_default_device(old)


def _deterministic() -> tuple[bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _cudnn() -> tuple[bool, bool]:
    return torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic


def _put_cudnn(old: tuple[bool, bool]) -> None:
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = old


_STATE: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda_states, torch.cuda.set_rng_state_all),
    (np.random.get_state, np.random.set_state),
    (random.getstate, random.setstate),
    (torch.get_default_dtype, torch.set_default_dtype),
    (torch.get_default_device, _put_device),
    (torch.get_num_threads, _put_threads),
    (_deterministic, lambda old: torch.use_deterministic_algorithms(old[0], warn_only=old[1])),
    (_cudnn, _put_cudnn),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    (torch.is_grad_enabled, torch.set_grad_enabled),
    (Path.cwd, os.chdir),
    (lambda: dict(os.environ), _put_environment),
    (_lists, _put_lists),
)
"""How to read and restore each part of the process's state."""
