"""Detection of adversarial examples by the disagreement between tolerances, and an adaptive attack.

A detector that stops the attacks of those who do not know it says little: the attacker that counts
optimises against classifier and detector at once (Carlini and Wagner, Adversarial Examples Are Not
Easily Detected, 2017; Tramer, Carlini, Brendel and Madry, On Adaptive Attacks, 2020).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.engine import attack
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images
from node_robustness.models.classifier import Classifier, frozen
from node_robustness.models.predictions import classes


def disagreement(probabilities: Tensor) -> Tensor:
    """The detector's score: how far the class probabilities at E tolerances lie apart.

    The largest total variation distance between those at any two tolerances: by how much the
    probability of some event differs at most, in [0, 1]. It is bounded where a divergence of
    near-certain predictions is not, treats no tolerance as the true one, and needs only one of
    them to disagree. A solve that failed agrees with nothing: its score is 1.

    Args:
        probabilities: [n, E, K], E >= 2.

    Returns:
        The scores, [n].
    """
    apart = (probabilities[:, :, None] - probabilities[:, None]).abs().sum(3) / 2
    return apart.flatten(1).amax(1).nan_to_num(nan=1.0)


@dataclass(frozen=True)
class DetectorScores:
    """Scores of n images and of two kinds of adversarial examples of them.

    Attributes:
        correct: whether the clean prediction at tau is right; only those are attacked, bool [n].
        scores: of `clean`, `adversarial` (of the plain attack) and `adaptive`, float32 [n].
        success: whether `adversarial` and `adaptive` fool the classifier at tau, bool [n].
    """

    correct: Tensor
    scores: dict[str, Tensor]
    success: dict[str, Tensor]


def detect(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    method: BasicIterativeMethod,
    *,
    tolerance: float,
    tolerances: Sequence[float],
    penalty: float,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> DetectorScores:
    """Score images, their adversarial examples, and those of an attacker who knows the detector.

    Args:
        model: with an ODE whose steps the tolerance bounds.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        method: the plain attack; the adaptive one has its norm, epsilon, step and iterations.
        tolerance: tau, that of the classifier; one of the detector's.
        tolerances: of the detector, at least two.
        penalty: how many units of cross-entropy the adaptive attack gives for one of the score.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    classifier = list(tolerances).index(tolerance)
    parts: list[tuple[Tensor, ...]] = []
    model = model.at(gradient="direct")
    attacked = model.at(tolerance=tolerance)
    with frozen(model):
        for rows in torch.split(torch.arange(len(images)), max(1, batch_size // len(tolerances))):
            batch, answers = images[rows], labels[rows]
            plain = attack(attacked, batch, answers, method, batch_size=len(rows))
            with torch.no_grad():
                clean, adversarial = (
                    disagreement(_logits(model, x, tolerances).softmax(2))
                    for x in (batch, plain.adversarials)
                )
            evasion = _Evasion(plain.success.clone(), adversarial.clone())
            for logits in _evade(model, batch, answers, method, tolerances, penalty):
                evasion.consider(classes(logits[:, classifier]) != answers, logits.softmax(2))
            parts.append(
                (
                    plain.attacked,
                    clean,
                    adversarial,
                    evasion.score,
                    plain.success,
                    evasion.success & plain.attacked,
                )
            )
            if progress is not None:
                progress(len(rows))
    correct, clean, adversarial, adaptive, fooled, evaded = map(torch.cat, zip(*parts, strict=True))
    return DetectorScores(
        correct=correct,
        scores={"clean": clean, "adversarial": adversarial, "adaptive": adaptive},
        success={"adversarial": fooled, "adaptive": evaded},
    )


def _logits(model: Classifier, images: Tensor, tolerances: Sequence[float]) -> Tensor:
    """Logits at all tolerances, [n, E, K], by one solve."""
    each = torch.tensor(tolerances, dtype=torch.float64).repeat(len(images))
    logits = model.at(tolerance=each)(images.repeat_interleave(len(tolerances), 0))
    split: Tensor = logits.unflatten(0, (len(images), len(tolerances)))
    return split


def _evade(
    model: Classifier,
    images: Tensor,
    labels: Tensor,
    method: BasicIterativeMethod,
    tolerances: Sequence[float],
    penalty: float,
) -> Iterator[Tensor]:
    """The logits, [n, E, K], of the iterates of the adaptive attack.

    It climbs the cross-entropy, averaged over all tolerances of the detector, less the penalty
    times the score: an image that is misclassified alike everywhere raises no suspicion.
    """
    answers = labels.repeat_interleave(len(tolerances))
    current = images
    for iteration in range(method.iterations + 1):
        current = current.detach().requires_grad_()
        logits = _logits(model, current, tolerances)
        yield logits.detach()
        if iteration == method.iterations:
            return
        losses = F.cross_entropy(logits.flatten(0, 1), answers, reduction="none")
        gain = losses.view(len(images), -1).mean(1) - penalty * disagreement(logits.softmax(2))
        (gradient,) = torch.autograd.grad(gain.sum(), current)
        moved = current.detach() + method.step * method.norm.direction(gradient)
        current = (images + method.norm.project(moved - images, method.epsilon)).clamp(0, 1)


@dataclass
class _Evasion:
    """The best that the adaptive attack has for each of n images.

    It begins with the plain attack's image, so that knowledge of the detector never harms it.
    """

    success: Tensor  # whether it fools the classifier, bool [n]
    score: Tensor  # the detector's, [n]

    def consider(self, fooled: Tensor, probabilities: Tensor) -> None:
        """Take an iterate that fools and scores less, or is the first to fool."""
        score = disagreement(probabilities)
        better = fooled & (~self.success | (score < self.score))
        self.score = torch.where(better, score, self.score)
        self.success = self.success | fooled


def write_detection(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: DetectorScores,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a detector's scores of test images, rows `index`, [n], and of attacks on them."""
    with write_hdf5(path, "detection", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        attacked = "clean prediction is right; only those are attacked"
        put(file, "correct", as_array(found.correct), units="1", description=attacked)
        for name, values in found.scores.items():
            description = "largest total variation distance between two tolerances"
            put(file, f"score/{name}", as_array(values), units="1", description=description)
        for name, values in found.success.items():
            description = "fools the classifier at tau"
            put(file, f"success/{name}", as_array(values), units="1", description=description)
