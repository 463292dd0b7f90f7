"""Save and load the weights of a network."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from node_robustness.code.model_file import find
from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.own.modules import build_module
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.spec import OwnSpec, is_own

_AGAIN = "delete it and run again"


def save(model: Classifier | OwnNetwork, weights: Path, spec: Path) -> None:
    """Write a model's weights as safetensors and its spec as JSON.

    Args:
        model: the network.
        weights: the safetensors file to write.
        spec: the JSON file to write.
    """
    with atomic_path(weights) as path:
        # Copies, because weights may share memory (tied layers).
        save_file({key: value.clone() for key, value in model.state_dict().items()}, path)
    with atomic_path(spec) as path:
        path.write_text(model.spec.to_json())


def load(weights: Path, spec: Path) -> Classifier | OwnNetwork:
    """Read a saved model.

    Args:
        weights: a safetensors file of `save`.
        spec: the JSON file of `save`.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: a file is missing, damaged, or of another model, or the code of an own model has
            changed since.
    """
    try:
        text = spec.read_text()
        model = _own(OwnSpec.from_json(text)) if is_own(text) else Classifier(Spec.from_json(text))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{spec}: not a model spec ({reason}): {_AGAIN}") from None
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read ({error}): {_AGAIN}") from None
    fill(model, state, weights, Remedies(_AGAIN, _AGAIN, _AGAIN, _AGAIN))
    return model.eval()


def _own(spec: OwnSpec) -> OwnNetwork:
    """The network of a spec, with the weights that its code gives it."""
    if spec.module is None:
        raise ValueError("it names no module")
    code = find(spec.module).code()
    changed = [name for name, digest in spec.code.items() if code.get(name) != digest]
    files = [name for name in changed if name.endswith(".py")]
    if files:
        raise UserError(
            f"{spec.module}: {files[0]} has changed since the weights were made: {_AGAIN}"
        )
    return OwnNetwork(build_module(spec.module, spec.build, spec.arguments, spec.given), spec)


@dataclass(frozen=True)
class Remedies:
    """What to do about weights that do not fit.

    Attributes:
        keys: where names are missing or unknown.
        shapes: where a shape differs.
        kind: where a tensor is not what a weight is made of.
        values: where values are not finite.
    """

    keys: str = "check downsampling, body and blocks of the model"
    shapes: str = "check filters and the dataset of the model"
    kind: str = "save weights that are not quantised, sparse or without values"
    values: str = "take a checkpoint from before its training diverged"


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    remedies: Remedies = Remedies(),
) -> None:
    """Load a state dict into a model.

    Args:
        model: the network, or a module.
        state: its new weights.
        path: their file, for messages.
        remedies: for messages; by default those of an imported checkpoint of a built-in model.

    Raises:
        UserError: names or shapes do not fit the model, or values are not finite.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has an unknown {unknown[0]}"
        raise UserError(
            f"{path}: holds the weights of another architecture ({what}): {remedies.keys}"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(tensor.shape)} where the model has "
                f"{list(expected[name].shape)}: {remedies.shapes}"
            )
        real = expected[name].is_floating_point()
        if (
            tensor.is_floating_point() != real
            or tensor.layout is not torch.strided
            or tensor.is_meta
        ):
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
            raise UserError(
                f"{path}: {name} is not a dense tensor of {'real' if real else 'whole'} numbers "
                f"({kind}): {remedies.kind}"
            )
        if real and not bool(tensor.to(expected[name].dtype).isfinite().all()):
            raise UserError(
                f"{path}: {name} holds values that are not finite (in float32): {remedies.values}"
            )
    model.load_state_dict(state)
