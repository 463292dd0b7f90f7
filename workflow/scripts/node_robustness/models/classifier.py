"""The paper's classifiers: downsampling, a residual or ODE body, and a linear head.

RES, MIX and OON of Carrara et al. (2019) are values of `Spec`. `checkpoints` saves weights as
safetensors with a readable JSON spec, and imports the authors' checkpoints.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.models.network import Network
from node_robustness.models.ode_body import FAILURES, ODEBody, SolverSettings
from node_robustness.models.ode_function import ODEFunction, group_norm
from node_robustness.ode.small_batches import at_least_some_rows
from node_robustness.shapes.networks import STEM, check_images

# Specs of earlier versions lack these keys; the defaults describe such a model.
_LATER_KEYS = {"backend", "batch_size"}


@dataclass(frozen=True)
class Spec:
    """The architecture of a classifier.

    Attributes:
        channels: number of image channels.
        classes: number of classes K.
        mean: mean of each channel; the model subtracts it.
        std: standard deviation of each channel; the model divides by it.
        downsampling: `residual` (to about a quarter of the image side) or `convolution` (to half).
        body: `residual` or `ode`.
        filters: number of channels C of the body.
        blocks: number of residual blocks of a residual body.
        dropout: probability before the last layer, in training.
        method: solver of an ODE body.
        tolerance: tau in training.
        max_steps: largest number of attempted solver steps.
        steps: number of equal steps; None for adaptive steps.
        backend: see `SolverSettings`; training may use another.
        batch_size: number of images that torchdiffeq solves as one equation, except in training.
    """

    channels: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    downsampling: Literal["residual", "convolution"]
    body: Literal["residual", "ode"]
    filters: int = 64
    blocks: int = 6
    dropout: float = 0.5
    method: str = "dopri5"
    tolerance: float = 1e-3
    max_steps: int = 1000
    steps: int | None = None
    backend: Literal["batched", "torchdiffeq"] = "batched"
    batch_size: int = 1

    def to_json(self) -> str:
        """Return the spec as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """Parse the JSON text of a spec.

        Raises:
            ValueError: the text is not a spec.
        """
        values = json.loads(text)
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or not names - _LATER_KEYS <= set(values) <= names:
            raise ValueError(f"a model spec has exactly the keys {', '.join(sorted(names))}")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None


def spec_for(name: str, architecture: Mapping[str, Any], data: Path) -> Spec:
    """The spec of a configured model for the images of a prepared dataset.

    Args:
        name: of the model.
        architecture: the keys of `config.models.Model` that define the architecture.
        data: a data.h5 file.

    Raises:
        UserError: the images are too small for the architecture.
    """
    with open_hdf5(data, "data") as file:
        _, channels, height, width = file["train/images"].shape
        classes, settings = len(file["class_names"]), read_settings(file)
    check_images(
        f"models.{name}",
        f"the images of {data}",
        architecture["downsampling"],
        architecture["filters"],
        height,
        width,
    )

    def of_channels(values: list[float]) -> tuple[float, ...]:
        return tuple(values * channels if len(values) == 1 else values)

    return Spec(
        channels=channels,
        classes=classes,
        mean=of_channels(settings["mean"]),
        std=of_channels(settings["std"]),
        **{key: value for key, value in architecture.items() if key != "solver"},
        **architecture.get("solver", {}),
    )


class ResidualBlock(nn.Module):
    """GN, ReLU, conv3x3, GN, ReLU, conv3x3, plus shortcut (pre-activation, no biases)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] to [n, outputs, H / stride, W / stride]."""
        # In place: nothing, including autograd, needs a normalised state before its ReLU.
        active = F.relu_(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu_(self.norm2(self.conv1(active)))) + shortcut
        return out


class ResidualBody(nn.Sequential):
    """Residual blocks of one width."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*(ResidualBlock(channels, channels) for _ in range(blocks)))

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C, H, W]."""
        return at_least_some_rows(super().forward, h)

    def block(self, number: int, h: Tensor) -> Tensor:
        """Apply block `number`, [n, C, H, W] to [n, C, H, W]."""
        return at_least_some_rows(self[number], h)


class Head(nn.Module):
    """GN, ReLU, global average pooling, dropout, linear."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def features(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to the inputs of the last layer, [n, C]."""
        features: Tensor = self.dropout(F.relu_(self.norm(h)).mean((2, 3)))
        return features

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to logits [n, K]."""
        return self.classify(self.features(h))

    def classify(self, features: Tensor) -> Tensor:
        """Features [n, C] to logits [n, K]."""
        # Not a matrix product, whose rounding depends on the batch size.
        return (features[:, None] * self.linear.weight).sum(2) + self.linear.bias


class Classifier(Network):
    """A classifier of the paper; it normalises the images itself.

    Args:
        spec: the architecture.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self.downsampling: nn.Module = (
            nn.Sequential(
                nn.Conv2d(spec.channels, STEM, 3),
                ResidualBlock(STEM, STEM, stride=2),
                ResidualBlock(STEM, spec.filters, stride=2),
            )
            if spec.downsampling == "residual"
            else nn.Conv2d(spec.channels, spec.filters, 4, 2, padding=1)
        )
        settings = SolverSettings(
            spec.method,
            spec.tolerance,
            spec.max_steps,
            spec.steps,
            backend=spec.backend,
            batch_size=spec.batch_size if spec.backend == "torchdiffeq" else None,
        )
        self.body: nn.Module = (
            ODEBody(ODEFunction(spec.filters), settings)
            if spec.body == "ode"
            else ResidualBody(spec.filters, spec.blocks)
        )
        self.head: Head = Head(spec.filters, spec.classes, spec.dropout)

    def at(self, **changes: Any) -> Self:
        """See `Network.at`."""
        view = copy(self)
        # A shallow copy shares the table of submodules, too.
        if self.ode is not None:
            view._modules = {**self._modules, "body": self.ode.at(**changes)}
        return view

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, channels, H, W] in [0, 1] to logits [n, K]."""
        logits: Tensor = self.head(self.body(self.embed(images)))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """Images [n, channels, H, W] to the initial state h(0) of the body, [n, C, H', W']."""
        return at_least_some_rows(self.downsampling, (images - self.mean) / self.std)

    def features(self, h: Tensor) -> Tensor:
        """The inputs of the last layer, [n, C]."""
        return self.head.features(h)


@contextmanager
def backward_solves() -> Iterator[None]:
    """Turn a failed backward solve of torchdiffeq into an error that names the remedies.

    Raises:
        UserError: a backward solve in the block failed.
    """
    try:
        yield
    except AssertionError as error:
        failed = [status.name.lower() for words, status in FAILURES.items() if words in str(error)]
        if not failed:
            raise
        raise UserError(
            f"the backward solve of torchdiffeq failed for a batch ({failed[0]}): raise "
            "solver.max_steps of the model or adjoint_tolerance of the attack, or set gradient of "
            "the attack to direct"
        ) from error


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode, without gradients for parameters, during the block."""
    modes = [(module, module.training) for module in model.modules()]
    required = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, before in zip(model.parameters(), required, strict=True):
            parameter.requires_grad_(before)
