"""Two detectors of adversarial examples, and attacks that know more or less about them.

A detector that stops the attacks of those who do not know it says little: what counts is an attack
on classifier and detector together (Carlini and Wagner, Adversarial Examples Are Not Easily
Detected, 2017; Tramer, Carlini, Brendel and Madry, On Adaptive Attacks, 2020).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.attacks.bim import BasicIterativeMethod
from node_robustness.attacks.descent import Descent, Record
from node_robustness.attacks.engine import attack
from node_robustness.attacks.method import Pass
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images
from node_robustness.models.classifier import frozen
from node_robustness.models.differentiation import gradient
from node_robustness.models.network import Network
from node_robustness.models.predictions import classes

DETECTORS = ("disagreement", "confidence")
"""What is scored: how far tolerances disagree, and how unsure the classifier is."""

ATTACKERS = ("plain", "confident", "adaptive")
"""An attack that stops at its first success, one that goes on, and one that knows the detector."""

# Units of cross-entropy that the first search gives for one of the score, and by which factor that
# changes from search to search, as in Carlini and Wagner's attack.
_PENALTY, _FACTOR = 1.0, 10.0


def disagreement(probabilities: Tensor) -> Tensor:
    """How far the class probabilities at E tolerances lie apart, [n].

    The largest total variation distance between those at any two tolerances: by how much the
    probability of some event differs at most, in [0, 1]. It is bounded where a divergence of
    near-certain predictions is not, treats no tolerance as the true one, and needs only one of
    them to disagree. A solve that failed agrees with nothing: its score is 1.

    Args:
        probabilities: [n, E, K], E >= 2.
    """
    apart = (probabilities[:, :, None] - probabilities[:, None]).abs().sum(3) / 2
    return apart.flatten(1).amax(1).nan_to_num(nan=1.0)


def uncertainty(probabilities: Tensor) -> Tensor:
    """How unsure a classifier is, [n]: one minus the largest probability, the usual baseline.

    Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution Examples,
    2017. A solve that failed is as unsure as can be: its score is 1.

    Args:
        probabilities: [n, K].
    """
    return (1 - probabilities.amax(1)).nan_to_num(nan=1.0)


@dataclass(frozen=True)
class Search:
    """How the attack that knows the detector searches for its penalty.

    Attributes:
        searches: how many searches there are at most.
        iterations: gradient steps of each.
    """

    searches: int
    iterations: int


@dataclass(frozen=True)
class Detected:
    """Scores of n images and of the images that A attackers made of them, by D detectors.

    Attributes:
        correct: whether the clean prediction at tau is right; only those are attacked, bool [n].
        clean: scores of the images, float32 [n, D].
        scores: scores of what the attackers made, float32 [n, A, D].
        success: whether it fools the classifier at tau, bool [n, A].
        linf: largest change of a pixel, float32 [n, A].
        l2: Euclidean norm of the change, float32 [n, A].
    """

    correct: Tensor
    clean: Tensor
    scores: Tensor
    success: Tensor
    linf: Tensor
    l2: Tensor


def detect(
    model: Network,
    images: Tensor,
    labels: Tensor,
    method: BasicIterativeMethod,
    search: Search,
    *,
    tolerance: float,
    tolerances: Sequence[float],
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Detected:
    """Score images, and the images that attackers made of them.

    Args:
        model: with an ODE whose steps the tolerance bounds.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        method: the plain attack; the others have its norm, epsilon and step.
        search: of the adaptive attack.
        tolerance: tau, that of the classifier; one of the detector's.
        tolerances: of the detector, at least two.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    detector = _Detector(model.at(gradient="direct"), tolerances, tolerance)
    parts: list[tuple[Tensor, ...]] = []
    with frozen(model):
        for rows in torch.split(torch.arange(len(images)), max(1, batch_size // len(tolerances))):
            parts.append(_detect_batch(detector, images[rows], labels[rows], method, search))
            if progress is not None:
                progress(len(rows))
    return Detected(*map(torch.cat, zip(*parts, strict=True)))


def _detect_batch(
    detector: "_Detector",
    images: Tensor,
    labels: Tensor,
    method: BasicIterativeMethod,
    search: Search,
) -> tuple[Tensor, ...]:
    """The parts of a `Detected`, in its order."""
    classifier = detector.model.at(tolerance=detector.tolerance)
    plain = attack(classifier, images, labels, method, batch_size=len(images))
    attacked = plain.attacked.nonzero().flatten()
    confident = _confident(classifier, images, labels, attacked, plain.adversarials, method)
    with torch.no_grad():
        clean = detector.scores(detector.logits(images))
        made = [
            _Made(shown, success, detector.scores(detector.logits(shown)))
            for shown, success in ((plain.adversarials, plain.success), confident)
        ]
    known = _Made(images.clone(), torch.zeros_like(plain.success), clean.clone())
    everything = torch.arange(len(images), device=images.device)
    for one in made:
        known.consider(everything, one.images, one.success, one.scores)
    _evade(detector, known, images, labels, attacked, method, search)
    made.append(known)
    change = torch.stack([one.images - images for one in made], 1).flatten(2)
    return (
        plain.attacked,
        clean,
        torch.stack([one.scores for one in made], 1),
        torch.stack([one.success for one in made], 1),
        change.abs().amax(2),
        change.norm(dim=2),
    )


@dataclass(frozen=True)
class _Detector:
    """A model at all tolerances that a detector compares, and at tau, that of the classifier."""

    model: Network
    tolerances: Sequence[float]
    tolerance: float

    @property
    def classifier(self) -> int:
        """Where tau stands among the tolerances."""
        return list(self.tolerances).index(self.tolerance)

    def logits(self, images: Tensor) -> Tensor:
        """Logits at all tolerances, [n, E, K], by one solve."""
        each = torch.tensor(self.tolerances, dtype=torch.float64).repeat(len(images))
        logits = self.model.at(tolerance=each)(images.repeat_interleave(len(self.tolerances), 0))
        split: Tensor = logits.unflatten(0, (len(images), len(self.tolerances)))
        return split

    def scores(self, logits: Tensor) -> Tensor:
        """What the `DETECTORS` say of logits [n, E, K], [n, D]."""
        probabilities = logits.softmax(2)
        unsure = uncertainty(probabilities[:, self.classifier])
        return torch.stack([disagreement(probabilities), unsure], 1)


def _confident(
    classifier: Network,
    images: Tensor,
    labels: Tensor,
    attacked: Tensor,
    start: Tensor,
    method: BasicIterativeMethod,
) -> tuple[Tensor, Tensor]:
    """Adversarial examples with a margin as negative as can be found, and which were found.

    The plain attack stops where the decision changes, at predictions that are hardly sure. This one
    goes on from there.
    """
    record = Record(images, labels)
    descent = Descent(
        method.norm, method.epsilon, method.step, method.iterations, "margin", early_stop=False
    )
    if len(attacked):
        begun = Pass.over(classifier, start[attacked], differentiable=True)
        descent.follow(classifier, begun, record, attacked)
    found = record.found()
    return found.adversarials, found.success


@dataclass
class _Made:
    """What an attacker made of n images."""

    images: Tensor  # [n, C, H, W]
    success: Tensor  # whether they fool the classifier, bool [n]
    scores: Tensor  # [n, D]

    def consider(self, rows: Tensor, images: Tensor, fooled: Tensor, scores: Tensor) -> None:
        """Take, for the images at `rows`, those that fool first, or fool and disagree less."""
        better = fooled & (~self.success[rows] | (scores[:, 0] < self.scores[rows, 0]))
        kept = rows[better]
        self.images[kept], self.scores[kept] = images[better], scores[better]
        self.success[kept] = True


def _evade(
    detector: _Detector,
    known: _Made,
    images: Tensor,
    labels: Tensor,
    attacked: Tensor,
    method: BasicIterativeMethod,
    search: Search,
) -> None:
    """Attack classifier and detector together, and add to what is known.

    Each search begins at the best adversarial example that is known, or at the image; the images
    for which the first finds none are left out of the later ones. From search to search the step is
    halved, and each image's penalty is raised tenfold where an adversarial example was found, and
    lowered tenfold where none was.
    """
    rows, penalty = attacked, torch.full_like(known.scores[:, 0], _PENALTY)
    for number in range(search.searches):
        if not len(rows):
            return
        found = torch.zeros_like(known.success)
        iterates = _climb(
            detector,
            images[rows],
            labels[rows],
            known.images[rows],
            penalty[rows],
            replace(method, step=method.step / 2**number, iterations=search.iterations),
        )
        for current, logits in iterates:
            fooled = classes(logits[:, detector.classifier]) != labels[rows]
            known.consider(rows, current, fooled, detector.scores(logits))
            found[rows] |= fooled
        penalty = torch.where(found, penalty * _FACTOR, penalty / _FACTOR)
        rows = known.success.nonzero().flatten()


def _climb(
    detector: _Detector,
    images: Tensor,
    labels: Tensor,
    start: Tensor,
    penalty: Tensor,
    method: BasicIterativeMethod,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The iterates of one search, [m, C, H, W], with their logits, [m, E, K].

    It climbs the cross-entropy, averaged over all tolerances of the detector, less the penalty
    times the disagreement: an image that is misclassified alike everywhere raises no suspicion.
    """
    answers = labels.repeat_interleave(len(detector.tolerances))
    current = start
    for left in reversed(range(method.iterations + 1)):
        current = current.detach().requires_grad_(left > 0)
        with torch.set_grad_enabled(left > 0):
            logits = detector.logits(current)
        yield current.detach(), logits.detach()
        if left:
            losses = F.cross_entropy(logits.flatten(0, 1), answers, reduction="none")
            gain = losses.view(len(images), -1).mean(1) - penalty * disagreement(logits.softmax(2))
            uphill = method.norm.direction(gradient(gain, current))
            moved = current.detach() + method.step * uphill
            current = (images + method.norm.project(moved - images, method.epsilon)).clamp(0, 1)


def write_detection(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Detected,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a detection on the test images `index` with their labels, both [n]."""
    with write_hdf5(path, "detection", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        attackers, detectors = np.array(ATTACKERS), np.array(DETECTORS)
        put(file, "attackers", attackers, units="1", description="what is known to attacks, A")
        put(file, "detectors", detectors, units="1", description="what is scored, D")
        for name, values, units, description in (
            ("correct", found.correct, "1", "clean prediction is right; only those are attacked"),
            ("clean_scores", found.clean, "1", "of the images, n D; larger is more suspicious"),
            ("scores", found.scores, "1", "of what the attacks ended with, n A D"),
            ("success", found.success, "1", "it fools the classifier at tau, n A"),
            ("perturbation_linf", found.linf, "intensity", "largest change of a pixel, n A"),
            ("perturbation_l2", found.l2, "intensity", "Euclidean norm of the change, n A"),
        ):
            put(file, name, as_array(values), units=units, description=description)
