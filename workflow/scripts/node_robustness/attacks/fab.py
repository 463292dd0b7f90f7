"""The fast adaptive boundary attack: the smallest adversarial, by steps along the boundary.

Croce & Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack,
ICML 2020: Algorithm 1, in its targeted version (Croce & Hein, Reliable evaluation of adversarial
robustness with an ensemble of diverse parameter-free attacks, ICML 2020, Section 4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.best import Best
from node_robustness.attacks.logits import likely_targets
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_BACKWARD = 0.9  # beta: how much of the change an adversarial iterate keeps
_OVERSHOOT = 1.05  # eta: how far beyond the boundary a step goes
_LARGEST_BIAS = 0.1  # alpha_max: largest share of the step that starts at the image
_TINY = 1e-8  # guards the ratio of two steps of length zero
_NO_WEIGHT = 1e-12  # relative to the largest: a pixel that a hyperplane does not depend on


@dataclass(frozen=True)
class FAB:
    """Targeted FAB without random starts; it looks for the smallest adversarial.

    Where neither the iterate nor the boundary moves any more, an image leaves a run early. Every
    point at which the model is evaluated counts, also those from which a step starts.

    Attributes:
        norm: what is minimised.
        epsilon: an adversarial further away than this does not count.
        iterations: gradient steps of a run.
        targets: how many classes are aimed at, one run each, from the second most likely class of
            the image on; all the others at most.
    """

    norm: Norm
    epsilon: float
    iterations: int = 100
    targets: int = 9

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return 1 + self.targets * 2 * self.iterations

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method`. Nothing is random."""
        best = Best(images, labels, self.norm, self.epsilon)
        for targets in likely_targets(model, images, labels, self.targets):
            self._run(model, images, labels, targets, best)
        return best.found()

    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, targets: Tensor, best: Best
    ) -> None:
        """One run towards the targets, int64 [m], from the images themselves."""
        rows = torch.arange(len(images), device=images.device)
        current = images
        for _ in range(self.iterations):
            passed = Pass.over(model, current, differentiable=True)
            best.consider(rows, passed, steps=0)
            lead, gradient = _lead(passed, labels[rows], targets[rows])
            following = self._step(images[rows], current, lead, gradient)
            moves = (following != current).flatten(1).any(1)
            rows, following = rows[moves], following[moves]
            if len(rows) == 0:
                return
            passed = Pass.over(model, following, differentiable=False)
            wrong = best.consider(rows, passed, steps=1)
            back = images[rows] + _BACKWARD * (following - images[rows])
            current = torch.where(column(wrong), back, following)

    def _step(self, images: Tensor, current: Tensor, lead: Tensor, gradient: Tensor) -> Tensor:
        """Across the linearised boundary, from the iterate and, for a part, from the image."""
        from_current = _to_boundary(self.norm, current, current, lead, gradient)
        from_image = _to_boundary(self.norm, images, current, lead, gradient)
        ahead = self.norm.size(from_current).clamp(min=_TINY)
        bias = ahead / (ahead + self.norm.size(from_image).clamp(min=_TINY))
        bias = column(bias.clamp(max=_LARGEST_BIAS))
        moved = current + (1 - bias) * _OVERSHOOT * from_current
        return (moved + bias * (images - current + _OVERSHOOT * from_image)).clamp(0, 1)


def _lead(passed: Pass, labels: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """By how much the label's logit is above the target's, [k], and the gradient, [k, C, H, W].

    Where the solve failed nothing is known of the boundary: both are 0 there.
    """
    logits = passed.logits
    lead = (logits.gather(1, labels[:, None]) - logits.gather(1, targets[:, None])).squeeze(1)
    gradient, lead = passed.gradient(lead), lead.detach()
    known = torch.isfinite(lead) & torch.isfinite(gradient).flatten(1).all(1)
    return torch.where(known, lead, 0), torch.where(column(known), gradient, 0)


def _to_boundary(
    norm: Norm, starts: Tensor, current: Tensor, lead: Tensor, gradient: Tensor
) -> Tensor:
    """The smallest changes that bring `starts` to the boundary that is linearised at `current`."""
    value = lead + (gradient * (starts - current)).flatten(1).sum(1)
    return project_onto_hyperplane(norm, starts, gradient, value)


def project_onto_hyperplane(norm: Norm, points: Tensor, normals: Tensor, values: Tensor) -> Tensor:
    """The smallest change of points in [0, 1] that brings a linear function to 0 within [0, 1].

    Along the path that lowers the function fastest, per unit of norm, pixel after pixel arrives at
    0 or 1 and stays there. So the function is piecewise linear along the path, and the piece with
    its zero is found in the sorted arrivals. Where it has no zero in the box, the path is followed
    to the corner at its end.

    Args:
        norm: of which the change is the smallest.
        points: float [k, C, H, W] in [0, 1].
        normals: the gradients of the linear functions, [k, C, H, W].
        values: the functions' values at the points, [k].

    Returns:
        The changes, [k, C, H, W].
    """
    flat, weights = points.flatten(1), normals.flatten(1)
    # Only their ratio to the values counts; with a largest weight of 1 squares stay in range.
    scale = weights.abs().amax(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    needed = values.abs()[:, None] / scale
    downhill = -values.sign()[:, None] * weights / scale
    downhill = torch.where(downhill.abs() > _NO_WEIGHT, downhill, 0)
    velocity = downhill.sign() if norm.name == "linf" else downhill
    room = torch.where(velocity > 0, 1 - flat, flat)
    arrivals, order = torch.where(velocity != 0, room / velocity.abs(), 0).sort(dim=1)
    rates = (velocity * downhill).gather(1, order)
    descents = (room * downhill.abs()).gather(1, order)
    rates_left = rates.flip(1).cumsum(1).flip(1)
    descents_before = descents.cumsum(1) - descents
    reached = descents_before + rates_left * arrivals
    piece = torch.searchsorted(reached, needed).clamp(max=flat.shape[1] - 1)
    left = needed - descents_before.gather(1, piece)
    time = left / rates_left.gather(1, piece).clamp(min=torch.finfo(weights.dtype).tiny)
    time = torch.minimum(time, arrivals[:, -1:])
    change = (flat + time * velocity).clamp(0, 1) - flat
    return change.view_as(points)
