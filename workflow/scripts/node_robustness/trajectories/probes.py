"""Linear probes of h(t): what can be read from the state at t by a reader made for that t.

The head was trained on h(1); at other times it reads a state that it has never seen. A probe is a
multinomial logistic regression on the features of the head (normalised, rectified, averaged over
the places) at one time, fitted to validation images, which no weight of the model was fitted to
(Alain and Bengio, Understanding intermediate layers using linear classifier probes, 2016), and
calibrated by a temperature (Guo et al., On Calibration of Modern Neural Networks, 2017).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from node_robustness.errors import UserError
from node_robustness.models import Classifier
from node_robustness.storage import open_hdf5, put, write_hdf5
from node_robustness.trajectories.runs import CLEAN, follow

Array = npt.NDArray[Any]

FEWEST = 20
"""Validation images without which there is nothing to fit."""

_SHARES = (0.6, 0.8)  # fitted to the images before, calibrated between, tested behind
_BINS = 10
_NEVER = 50.0  # nats by which a class that has no image is less likely than all others


@dataclass(frozen=True)
class Probes:
    """A linear reader for each of T times, of F features, to K classes.

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
    features, logits = [], []
    for batch in images.split(batch_size):
        runs = follow(model, {CLEAN: batch}, times)
        own = model.head.features(runs.states[CLEAN].flatten(0, 1))
        logits.append(model.head.classify(own).unflatten(0, (len(runs.times), len(batch))).cpu())
        features.append(own.unflatten(0, (len(runs.times), len(batch))).cpu())
        if progress is not None:
            progress(len(batch))
    return runs.times.numpy(), torch.cat(features, 1).numpy(), torch.cat(logits, 1).numpy()


def fit(times: Array, features: Array, head: Array, labels: Array) -> Probes:
    """Fit, calibrate and test a probe at each time.

    Args:
        times: float64 [T].
        features: [T, n, F] of n images in a random order: the first 60 % are fitted, the next
            20 % calibrate, the last 20 % test.
        head: logits of the head on the same, [T, n, K]; images whose solve failed are not finite,
            and left out.
        labels: int64 [n].

    Raises:
        UserError: there are too few images, or all are of one class.
    """
    known = np.isfinite(head).all((0, 2))
    features, head, labels = features[:, known], head[:, known], labels[known]
    fitted, calibrated = (int(share * len(labels)) for share in _SHARES)
    if len(labels) < FEWEST or len(set(labels[:fitted].tolist())) == 1:
        raise UserError(
            f"trajectories.probe: {len(labels)} validation images are too few, or of one class: "
            f"hold out more ({FEWEST} at least: validation of the dataset), or set it to false"
        )
    test, classes = slice(calibrated, None), head.shape[2]
    rows = []
    for own, of_head in zip(features, head, strict=True):
        weights, bias = _regression(own[:fitted], labels[:fitted], classes)
        logits = own @ weights.T + bias
        between = slice(fitted, calibrated)
        temperature = _temperature(logits[between], labels[between])
        weights, bias = weights / temperature, bias / temperature
        quality = [
            *_quality(logits[test] / temperature, labels[test]),
            *_quality(of_head[test], labels[test]),
        ]
        rows.append((weights, bias, temperature, *quality))
    columns = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    return Probes(times, *columns)


def _regression(features: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    """Weights [K, F] and bias [K] of a multinomial logistic regression."""
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    model = LogisticRegression(max_iter=1000).fit((features - mean) / deviation, labels)
    found, intercept = model.coef_, model.intercept_
    if len(found) == 1:  # two classes: the logit of the second one over the first
        found, intercept = np.concatenate([-found, found]) / 2, np.array([-0.5, 0.5]) * intercept
    weights = np.zeros((classes, features.shape[1]))
    weights[model.classes_] = found / deviation
    bias = np.full(classes, intercept.min() - _NEVER)
    bias[model.classes_] = intercept - (found / deviation) @ mean
    return weights, bias


def _temperature(logits: Array, labels: Array) -> float:
    """By what to divide logits so that their likelihood is largest."""

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(logits / np.exp(logarithm), axis=1)
        return float(-likelihood[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def _quality(logits: Array, labels: Array) -> tuple[float, float]:
    """Accuracy, and expected calibration error in bins of equal width."""
    probability = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    right, confidence = probability.argmax(1) == labels, probability.max(1)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(_BINS)]
    return float(right.mean()), float(sum(gaps) / len(labels))


_LAYOUT = {
    "t": ("times", "where on the way, T"),
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
