"""Linear probes of h(t): a classifier for the state at each time.

The head was trained on h(1) and has not seen the states at other times. A probe is a multinomial
logistic regression on the head's features at one time (normalised, rectified, averaged over the
places). It is fitted to validation images, which no weight of the model was fitted to (Alain and
Bengio, Understanding intermediate layers using linear classifier probes, 2016), and calibrated by a
temperature (Guo et al., On Calibration of Modern Neural Networks, 2017). `probe_fitting` fits them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from node_robustness.files.hdf5 import open_hdf5, put, write_hdf5
from node_robustness.files.records import say_not_measured
from node_robustness.models.network import Network
from node_robustness.trajectories.runs import CLEAN, body_of, ends, follow

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Probes:
    """A linear probe for each of T times, from F features to K classes; T = 0 if there are none.

    Attributes:
        times: float64 [T].
        weights: divided by the temperature, float32 [T, K, F].
        bias: divided by the temperature, float32 [T, K].
        temperature: float32 [T].
        accuracy: on held-out images, float32 [T].
        ece: expected calibration error on held-out images, float32 [T].
        head_accuracy: of the head on the same images, float32 [T].
        head_ece: of the head on the same images, float32 [T].
    """

    times: Array
    weights: Array
    bias: Array
    temperature: Array
    accuracy: Array
    ece: Array
    head_accuracy: Array
    head_ece: Array

    @classmethod
    def none(cls, features: int, classes: int) -> "Probes":
        """Without a probe, T = 0."""
        shapes = {"weights": (0, classes, features), "bias": (0, classes)}
        return cls(*(np.zeros(shapes.get(item.name, 0), np.float32) for item in fields(cls)))

    def logits(self, features: Tensor) -> Tensor:
        """Logits [T, n, K] of features [T, n, F]."""
        weights = torch.from_numpy(self.weights).to(features)
        bias = torch.from_numpy(self.bias).to(features)
        # Not a matrix product, whose rounding depends on the batch size.
        read = [(features * own[:, None]).sum(2) for own in weights.unbind(1)]
        return torch.stack(read, dim=2) + bias[:, None]


@torch.no_grad()
def features_along(
    model: Network,
    images: Tensor,
    times: tuple[float, ...],
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> tuple[Array, Array, Array]:
    """The head's features and logits along the trajectories of clean images.

    Args:
        model: in evaluation mode, at the tolerance in question.
        images: [n, C, H, W] in [0, 1], n >= 1.
        times: see `runs.follow`.
        batch_size: images per batch; it bounds the memory and does not change the result.
        progress: called with the number of images of each finished batch.

    Returns:
        Times, float64 [T]; features, float32 [T, n, F]; logits, float32 [T, n, K].
    """
    n, at = len(images), ends(body_of(model), times)
    # Allocated at once: small arrays of each batch, kept until the end, would keep the memory of
    # the batch allocated, megabytes for each image.
    features, logits = torch.empty(0), torch.empty(0)
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        states = follow(model, {CLEAN: images[rows]}, times).states[CLEAN]
        own = model.features(states.flatten(0, 1)), model.head(states.flatten(0, 1))
        if start == 0:
            features, logits = (torch.empty(len(at), n, part.shape[1]) for part in own)
        for whole, part in zip((features, logits), own, strict=True):
            whole[:, rows] = part.unflatten(0, states.shape[:2])
        if progress is not None:
            progress(states.shape[1])
    return np.array(at), features.numpy(), logits.numpy()


_LAYOUT = {
    "t": ("times", "place along the body, T"),
    "weights": ("weights", "of the head's features, divided by the temperature, T K F"),
    "bias": ("bias", "divided by the temperature, T K"),
    "temperature": ("temperature", "divisor of the fitted logits, T"),
    "accuracy": ("accuracy", "on held-out images, T"),
    "ece": ("ece", "expected calibration error on held-out images, T"),
    "head_accuracy": ("head_accuracy", "of the head on the same images, T"),
    "head_ece": ("head_ece", "expected calibration error of the head on the same images, T"),
}
assert {attribute for attribute, _ in _LAYOUT.values()} == {item.name for item in fields(Probes)}


def write(
    path: Path,
    settings: Mapping[str, Any],
    probes: Probes,
    lacks: Iterable[str] = (),
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a probe.h5, with the reasons for which there are no probes, in sentences."""
    with write_hdf5(path, "probe", settings, seconds=seconds, device=device) as file:
        say_not_measured(file, lacks)
        for name, (attribute, description) in _LAYOUT.items():
            put(file, name, getattr(probes, attribute), units="1", description=description)


def read(path: Path) -> Probes:
    """Read a probe.h5.

    Raises:
        UserError: the file is not a usable probe.h5.
    """
    with open_hdf5(path, "probe") as file:
        return Probes(**{attribute: file[name][:] for name, (attribute, _) in _LAYOUT.items()})
