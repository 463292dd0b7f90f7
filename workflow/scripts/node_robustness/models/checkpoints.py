"""Save and load the weights of a classifier."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path
from node_robustness.models.classifier import Classifier, Spec

_AGAIN = "delete it and run again"


def save(model: Classifier, weights: Path, spec: Path) -> None:
    """Write a model's weights as safetensors and its spec as JSON.

    Args:
        model: the classifier.
        weights: the safetensors file to write.
        spec: the JSON file to write.
    """
    with atomic_path(weights) as path:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    with atomic_path(spec) as path:
        path.write_text(model.spec.to_json())


def load(weights: Path, spec: Path) -> Classifier:
    """Read a saved model.

    Args:
        weights: a safetensors file of `save`.
        spec: the JSON file of `save`.

    Returns:
        The classifier on the CPU, in evaluation mode.

    Raises:
        UserError: a file is missing, damaged, or of another model.
    """
    try:
        model = Classifier(Spec.from_json(spec.read_text()))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{spec}: not a model spec ({reason}): {_AGAIN}") from None
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read ({error}): {_AGAIN}") from None
    fill(model, state, weights, _AGAIN)
    return model.eval()


def fill(
    model: Classifier, state: Mapping[str, Tensor], path: Path, remedy: str | None = None
) -> None:
    """Load a state dict into a model.

    Args:
        model: the classifier.
        state: its new weights.
        path: their file, for messages.
        remedy: for messages; None for the remedies of an imported checkpoint.

    Raises:
        UserError: names or shapes do not fit the model, or values are not finite.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has an unknown {unknown[0]}"
        raise UserError(
            f"{path}: holds the weights of another architecture ({what}): "
            f"{remedy or 'check downsampling, body and blocks of the model'}"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(tensor.shape)} where the model has "
                f"{list(expected[name].shape)}: "
                f"{remedy or 'check filters and the dataset of the model'}"
            )
        if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
            raise UserError(
                f"{path}: {name} is not a dense tensor of real numbers ({kind}): "
                f"{remedy or 'save weights that are not quantised, sparse or without values'}"
            )
        if not bool(tensor.to(expected[name].dtype).isfinite().all()):
            raise UserError(
                f"{path}: {name} holds values that are not finite (in float32): "
                f"{remedy or 'take a checkpoint from before its training diverged'}"
            )
    model.load_state_dict(state)
