"""Read the state dict of a checkpoint from another program, with this project's names.

The first bytes of a file, not its suffix, decide its format: safetensors, or a file of `torch.save`
(a zip archive, or the format before PyTorch 1.6). Only weights are unpickled, so that a file cannot
run code.
"""

import argparse
import re
import zipfile
from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.models.checkpoints import Remedies, fill
from node_robustness.models.classifier import Classifier
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.spec import named

_ZIP = b"PK\x03\x04"
_BEFORE_ZIP = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # PyTorch's magic number
_KEYS = ("model", "state_dict", "model_state_dict")
_OWN_KEYS = (*_KEYS, "net", "network", "weights")
_COPY = "copy it again from where it comes from"
_SAVE = "save its state dict alone: torch.save({'model': model.state_dict()}, file)"

_AUTHORS_NAMES = (
    (r"downsample\.module\.(\d)\.downsample\.", r"downsampling.\1.shortcut."),
    (r"downsample\.module\.", "downsampling."),
    (r"features\.", "body."),
    (r"odeblock\.odefunc\.(conv\d)\._layer\.", r"body.function.\1."),
    (r"odeblock\.odefunc\.", "body.function."),
    (r"classifier\.module\.0\.", "head.norm."),
    (r"classifier\.module\.[45]\.", "head.linear."),
)


def import_weights(
    model: Classifier | OwnNetwork, path: Path, key: str | None = None
) -> Classifier | OwnNetwork:
    """Give a network the weights of another program.

    Args:
        model: the network, on the CPU.
        path: the checkpoint.
        key: for a user's own network, where in the file the state dict is; see `fill_own`.

    Returns:
        The network, in evaluation mode.

    Raises:
        UserError: the file is missing or damaged, or does not fit the architecture.
    """
    if isinstance(model, Classifier):
        fill(model, read_state(path), path)
    else:
        with named(model.spec.name):
            fill_own(model.module, path, key)
    return model.eval()


def fill_own(module: nn.Module, path: Path, key: str | None) -> None:
    """Load a checkpoint of another program into a user's own module.

    Prefixes of names, such as `module.`, are removed or added as far as the module's names need it.

    Args:
        module: the user's.
        path: the checkpoint.
        key: where in the file the state dict is; None to look in the usual places.

    Raises:
        UserError: the file is missing or damaged, or does not fit the module.
    """
    # A namespace of command line arguments, which many programs save too, holds no code.
    with torch.serialization.safe_globals([argparse.Namespace]):
        contents = _contents(path)
    state = _at(contents, key, path) if key else _state_dict(contents, path, _OWN_KEYS)
    expected = module.state_dict()
    names = _as_expected([str(name) for name in state], expected.keys())
    renamed = dict(zip(names, state.values(), strict=True))
    # PyTorch before 0.4.1 did not save how many batches a normalisation had seen.
    counters = {n: v for n, v in expected.items() if n.endswith("num_batches_tracked")}
    fill(module, counters | renamed, path, _own_remedies(renamed, expected.keys()))


def _at(contents: Any, key: str, path: Path) -> Mapping[Any, Tensor]:
    """The state dict at a key, or at keys joined by dots."""
    found = contents
    for part in [key] if isinstance(contents, Mapping) and key in contents else key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            there = ", ".join(map(str, found)) if isinstance(found, Mapping) else "no keys"
            raise UserError(
                f"{path}: has no key {key} (there is: {there}): correct `weights_key` of the model"
            )
        found = found[part]
    return _state_dict(found, path, ())


def _as_expected(names: list[str], expected: Set[str]) -> list[str]:
    """Names without what wrappers of the saved network put before them, with what the module's do.

    A module that normalises its images before it calls the network that was saved is a wrapper.
    """
    versions = [names, [name.replace("_orig_mod.", "") for name in names]]
    while all("." in name for name in versions[-1]) and _firsts(versions[-1]) == 1:
        versions.append([name.partition(".")[2] for name in versions[-1]])
    wrappers = sorted({name.partition(".")[0] for name in expected if "." in name})
    versions += [[f"{first}.{n}" for n in names] for names in [*versions] for first in wrappers]
    return max(versions, key=lambda version: len({*version} & {*expected}))


def _firsts(names: list[str]) -> int:
    return len({name.partition(".")[0] for name in names})


def _own_remedies(state: Mapping[str, Tensor], expected: Set[str]) -> Remedies:
    missing, unknown = len(expected - state.keys()), len(state.keys() - expected)
    keys = f"{missing} names are missing, {unknown} unknown: check `build` and `arguments`"
    if not missing:
        keys = f"{unknown} names are unknown: check `arguments`, or save the weights without them"
    return replace(Remedies(), keys=keys, shapes="check `arguments` and `weights` of the model")


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict of this project, of the authors' code, or of a wrapped network.

    Prefixes of wrappers of the whole network, such as DataParallel (`module.`) or torch.compile
    (`_orig_mod.`), are removed.

    Args:
        path: the checkpoint.

    Returns:
        Tensors on the CPU by name of parameter.

    Raises:
        UserError: the file is missing or damaged, holds no state dict, or more than weights.
    """
    state = _state_dict(_contents(path), path, _KEYS)
    names = [".".join(part for part in str(n).split(".") if part != "_orig_mod") for n in state]
    while all("." in name for name in names) and len({n.split(".")[0] for n in names}) == 1:
        names = [name.partition(".")[2] for name in names]
    ours = dict(zip(map(_our_name, names), state.values(), strict=True))
    if len(ours) < len(state):
        raise UserError(f"{path}: holds two weights of the same name: {_SAVE}")
    return ours


def _contents(path: Path) -> Any:
    """The contents of a file, on the CPU."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; correct `weights` of the model")
    if not path.is_file():
        raise UserError(f"{path}: no such file; correct `weights` of the model")
    with path.open("rb") as stream:
        head = stream.read(32)
    if not head:
        raise UserError(f"{path}: is empty (0 bytes): {_COPY}")
    if head.startswith(_ZIP):
        _check_zip(path)
        return _unpickled(path)
    if _BEFORE_ZIP in head:
        return _unpickled(path)
    if head[8:9] == b"{":
        try:
            return load_file(path)
        except SafetensorError:
            raise UserError(f"{path}: a safetensors file, truncated or damaged: {_COPY}") from None
    raise UserError(
        f"{path}: cannot be read as a checkpoint: not a file of safetensors or torch.save; correct "
        "`weights` of the model"
    )


def _check_zip(path: Path) -> None:
    """Refuse a truncated or altered archive, which PyTorch may read without an error."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError):
        raise UserError(f"{path}: a zip archive, truncated or damaged: {_COPY}") from None
    if not any(name.endswith("/data.pkl") for name in names):
        raise UserError(
            f"{path}: cannot be read as a checkpoint: a zip archive that torch.save did not write; "
            "correct `weights` of the model"
        )
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{path}: a TorchScript archive, not a checkpoint of weights: {_SAVE}")
    if changed is not None:
        raise UserError(
            f"{path}: damaged, or saved without checksums ({changed} does not match): {_COPY}"
        )


def _unpickled(path: Path) -> Any:
    try:
        with path.open("rb") as stream:  # given a path, PyTorch looks at the suffix
            return torch.load(stream, map_location="cpu", weights_only=True)
    except Exception as error:
        # PyTorch raises many types of errors; their texts advise how to run the code in a file.
        found = re.search(r"GLOBAL (\S+) was not an allowed global", str(error))
        if found:
            raise UserError(
                f"{path}: cannot be read as a checkpoint of weights: it also holds {found[1]}, "
                f"and reading that could run any code: {_SAVE}"
            ) from None
        raise UserError(
            f"{path}: cannot be read as a checkpoint of weights: truncated or damaged, or it holds "
            f"more than weights: {_COPY}, or {_SAVE}"
        ) from None


def _state_dict(contents: Any, path: Path, among: tuple[str, ...]) -> Mapping[Any, Tensor]:
    """The state dict that a file holds: its contents, or what is at one of some keys."""
    if not isinstance(contents, Mapping):
        raise UserError(
            f"{path}: holds an object of type {type(contents).__name__}, not a state dict: {_SAVE}"
        )
    if contents and all(isinstance(value, Tensor) for value in contents.values()):
        return contents
    found = [key for key in among if isinstance(contents.get(key), Mapping) and contents[key]]
    if not found:
        keys = " or ".join(f"`{key}`" for key in among) or "given"
        there = ", ".join(map(str, contents)) or "nothing"
        raise UserError(
            f"{path}: has no state dict under the key {keys} (there is: {there}): {_SAVE}"
        )
    if len(found) > 1:
        raise UserError(f"{path}: has a state dict under {' and '.join(found)}: {_SAVE}")
    state: Mapping[Any, Tensor] = contents[found[0]]
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise UserError(
                f"{path}: {found[0]}.{name} is of type {type(value).__name__}, not a tensor: "
                f"{_SAVE}"
            )
    return state


def _our_name(name: str) -> str:
    for pattern, ours in _AUTHORS_NAMES:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name, count=1)
    return name
