"""Linear probes of h(t): what can be read from the state at t by a reader made for that t.

The head was trained on h(1); at other times it reads a state that it has never seen. A probe is a
multinomial logistic regression on the features of the head (normalised, rectified, averaged over
the places) at one time, fitted to validation images, which no weight of the model was fitted to
(Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016), and
calibrated by a temperature (Guo et al., On Calibration of Modern Neural Networks, 2017). How they
are fitted is in `probe_fitting.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from node_robustness.files.hdf5 import open_hdf5, put, write_hdf5
from node_robustness.models.classifier import Classifier
from node_robustness.trajectories.runs import CLEAN, body_of, ends, follow

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Probes:
    """A linear reader for each of T times, of F features, to K classes; T = 0 where there is none.

    Attributes:
        times: float64 [T].
        weights: float32 [T, K, F], the temperature included.
        bias: float32 [T, K], likewise.
        temperature: by which the fitted logits were divided, float32 [T].
        accuracy: on images that it was neither fitted nor calibrated to, float32 [T].
        ece: expected calibration error on them, float32 [T].
        head_accuracy: of the head on the same images, float32 [T].
        head_ece: likewise.
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
        """No reader for any time."""
        shapes = {"weights": (0, classes, features), "bias": (0, classes)}
        return cls(*(np.zeros(shapes.get(item.name, 0), np.float32) for item in fields(cls)))

    def logits(self, features: Tensor) -> Tensor:
        """What they read from features [T, n, F]: [T, n, K]."""
        weights = torch.from_numpy(self.weights).to(features)
        bias = torch.from_numpy(self.bias).to(features)
        # Class by class: a matrix product rounds differently in batches of different sizes.
        read = [(features * own[:, None]).sum(2) for own in weights.unbind(1)]
        return torch.stack(read, dim=2) + bias[:, None]


@torch.no_grad()
def features_along(
    model: Classifier,
    images: Tensor,
    times: tuple[float, ...],
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> tuple[Array, Array, Array]:
    """The head's features and its logits along clean images.

    Args:
        model: in evaluation mode, its solver set to the tolerance in question.
        images: [n, C, H, W] in [0, 1], n >= 1.
        times: see `runs.follow`.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.

    Returns:
        The times looked at, float64 [T]; features [T, n, F]; logits [T, n, K].
    """
    # All of it at once: a small array of each batch, kept until the end, would hold on to the
    # batch's memory around it, megabytes an image.
    n, at = len(images), ends(body_of(model), times)
    features = torch.empty(len(at), n, model.head.linear.in_features)
    logits = torch.empty(len(at), n, model.head.linear.out_features)
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        states = follow(model, {CLEAN: images[rows]}, times).states[CLEAN]
        own = model.head.features(states.flatten(0, 1))
        for whole, part in ((features, own), (logits, model.head.classify(own))):
            whole[:, rows] = part.unflatten(0, states.shape[:2])
        if progress is not None:
            progress(states.shape[1])
    return np.array(at), features.numpy(), logits.numpy()


_LAYOUT = {
    "t": ("times", "place along the body, T"),
    "weights": ("weights", "of the head's features, the temperature included, T K F"),
    "bias": ("bias", "likewise, T K"),
    "temperature": ("temperature", "by which the fitted logits were divided, T"),
    "accuracy": ("accuracy", "on held-out images, T"),
    "ece": ("ece", "expected calibration error on them, T"),
    "head_accuracy": ("head_accuracy", "of the head on the same images, T"),
    "head_ece": ("head_ece", "likewise, T"),
}
assert {attribute for attribute, _ in _LAYOUT.values()} == {item.name for item in fields(Probes)}


def write(
    path: Path, settings: Mapping[str, Any], probes: Probes, *, seconds: float, device: str
) -> None:
    """Write a probe.h5."""
    with write_hdf5(path, "probe", settings, seconds=seconds, device=device) as file:
        for name, (attribute, description) in _LAYOUT.items():
            put(file, name, getattr(probes, attribute), units="1", description=description)


def read(path: Path) -> Probes:
    """Read a probe.h5.

    Raises:
        UserError: the file is not a usable probe.h5.
    """
    with open_hdf5(path, "probe") as file:
        return Probes(**{attribute: file[name][:] for name, (attribute, _) in _LAYOUT.items()})
