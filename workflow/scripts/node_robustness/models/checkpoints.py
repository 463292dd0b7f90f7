"""Weights on disk: saved and loaded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from node_robustness.errors import UserError
from node_robustness.files.atomic import atomic_path
from node_robustness.models.classifier import _AGAIN, Classifier, Spec


def save(model: Classifier, weights: Path, spec: Path) -> None:
    """Write a model as safetensors and its spec as JSON."""
    with atomic_path(weights) as path:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    with atomic_path(spec) as path:
        path.write_text(model.spec.to_json())


def load(weights: Path, spec: Path) -> Classifier:
    """Read a saved model, in evaluation mode.

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
    """Give a model its weights; a remedy stands for those of weights made elsewhere.

    Raises:
        UserError: they are not those of such a model, or are not numbers.
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
                f"{path}: {name} is no plain tensor of real numbers ({kind}): "
                f"{remedy or 'save weights that are not quantised, sparse or without values'}"
            )
        if not bool(tensor.to(expected[name].dtype).isfinite().all()):
            raise UserError(
                f"{path}: {name} holds values that are not finite (in float32): "
                f"{remedy or 'take a checkpoint of before its training diverged'}"
            )
    model.load_state_dict(state)
