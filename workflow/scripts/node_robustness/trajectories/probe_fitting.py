"""Fit, calibrate and test the linear probes of `probes`."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from node_robustness.errors import UserError
from node_robustness.shapes.datasets import FEWEST_TO_PROBE
from node_robustness.trajectories.probes import Probes

Array = npt.NDArray[Any]

_SHARES = (0.6, 0.8)  # images before the first fit, between them calibrate, after the second test
_BINS = 10
_NEVER = 50.0  # nats by which a class without images is less likely than all others

_HOLD_OUT = "hold out more (validation and subset.validation of the dataset), or set it to false"


class TooFewError(UserError):
    """There are too few images or classes to fit a probe."""


def fit(times: Array, features: Array, head: Array, labels: Array) -> Probes:
    """Fit, calibrate and test a probe at each time.

    Args:
        times: float64 [T].
        features: of n images in random order, [T, n, F]: the first 60 % fit, the next 20 %
            calibrate, the last 20 % test.
        head: logits of the head for the same images, [T, n, K]; images whose solve failed are not
            finite and left out.
        labels: int64 [n].

    Raises:
        TooFewError: there are too few images, or they have only one class.
    """
    images, known = head.shape[1], np.isfinite(head).all((0, 2))
    features, head, labels = features[:, known], head[:, known], labels[known]
    fitted, calibrated = (int(share * len(labels)) for share in _SHARES)
    if len(labels) < FEWEST_TO_PROBE:
        raise TooFewError(_too_few_message(images, len(labels)))
    if len(set(labels[:fitted].tolist())) == 1:
        raise TooFewError(
            f"trajectories.probe: the first {fitted} of {len(labels)} validation images have the "
            f"same class: {_HOLD_OUT}"
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
            *_accuracy_and_ece(logits[test] / temperature, labels[test]),
            *_accuracy_and_ece(of_head[test], labels[test]),
        ]
        rows.append((weights, bias, temperature, *quality))
    columns = (np.array(column, np.float32) for column in zip(*rows, strict=True))
    return Probes(times, *columns)


def _too_few_message(images: int, solved: int) -> str:
    """The message if too few validation images were solved."""
    if images < FEWEST_TO_PROBE:
        return (
            f"trajectories.probe: {images} validation images are too few, {FEWEST_TO_PROBE} are "
            f"needed: {_HOLD_OUT}"
        )
    return (
        f"trajectories.probe: the solver failed for {images - solved} of {images} validation "
        f"images, and {FEWEST_TO_PROBE} others are needed: leave this tolerance out, raise "
        "solver.max_steps of the model, or set it to false"
    )


def _regression(features: Array, labels: Array, classes: int) -> tuple[Array, Array]:
    """Weights [K, F] and bias [K] of a multinomial logistic regression."""
    mean, deviation = features.mean(0), features.std(0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    model = LogisticRegression(max_iter=1000).fit((features - mean) / deviation, labels)
    found, intercept = model.coef_, model.intercept_
    if len(found) == 1:  # two classes: the logit of the second minus that of the first
        found, intercept = np.concatenate([-found, found]) / 2, np.array([-0.5, 0.5]) * intercept
    weights = np.zeros((classes, features.shape[1]))
    weights[model.classes_] = found / deviation
    bias = np.full(classes, intercept.min() - _NEVER)
    bias[model.classes_] = intercept - (found / deviation) @ mean
    return weights, bias


def _temperature(logits: Array, labels: Array) -> float:
    """The divisor of logits that maximises their likelihood."""

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(logits / np.exp(logarithm), axis=1)
        return float(-likelihood[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def _accuracy_and_ece(logits: Array, labels: Array) -> tuple[float, float]:
    """Accuracy, and expected calibration error in bins of equal width."""
    probability = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    right, confidence = probability.argmax(1) == labels, probability.max(1)
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = [abs((right[bins == b] - confidence[bins == b]).sum()) for b in range(_BINS)]
    return float(right.mean()), float(sum(gaps) / len(labels))
