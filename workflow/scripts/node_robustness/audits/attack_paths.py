"""Attacks whose every iterate is recorded: the loss along the way, and the gradients there.

An attack can fail for reasons that have nothing to do with the model, and most show along its path
rather than at its end (Pintor et al., Indicators of Attack Failure: Debugging and Improving
Optimization of Adversarial Examples, 2022).
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from node_robustness.attacks.descent import cross_entropy
from node_robustness.attacks.method import Method
from node_robustness.models.classifier import frozen
from node_robustness.models.predictions import classes
from node_robustness.perturbations.sizes import MEASURED
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class AttackPaths:
    """The paths of an attack on n images, each up to its first adversarial iterate.

    Attributes:
        loss: cross-entropy at every iterate, float32 [n, iterates]; NaN after the path's end.
        success: whether the attack returns an adversarial example, bool [n].
        reached: whether an iterate within epsilon is misclassified, bool [n].
        no_gradient: whether the gradient that the attack follows is zero or not finite at an
            iterate, bool [n].
        adversarials: what the attack returns, [n, C, H, W].
        perturbation_linf: largest change of a pixel by it, float32 [n].
        perturbation_l2: Euclidean norm of the change, float32 [n].
        halfway: the iterate in the middle of the path, [n, C, H, W].
        halfway_gradient: of the loss there, [n, C, H, W]; zero at the end of a path.
    """

    loss: Tensor
    success: Tensor
    reached: Tensor
    no_gradient: Tensor
    adversarials: Tensor
    perturbation_linf: Tensor
    perturbation_l2: Tensor
    halfway: Tensor
    halfway_gradient: Tensor


def attack_paths(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: Method,
    streams: Streams,
    *,
    iterates: int,
    batch_size: int,
) -> AttackPaths:
    """Attack images and record every iterate.

    Args:
        model: images to logits, with the gradient that the attack follows.
        images: float [n, C, H, W] in [0, 1], all of them classified correctly.
        labels: int64 [n].
        method: evaluates one iterate of every image in each forward pass, and ends an image at its
            first adversarial iterate, as the basic iterative method and Auto-PGD do.
        streams: of the images.
        iterates: how many the attack evaluates at most.
        batch_size: images at a time; bounds the memory, does not change the result.
    """
    parts = [_empty(images, iterates)]
    with frozen(model):
        for rows in torch.arange(len(images)).split(batch_size) if len(images) else ():
            recorder = _Recorder(model, images[rows], labels[rows], method, iterates)
            found = method.search(recorder, images[rows], labels[rows], streams[rows])
            parts.append(recorder.paths(found.success, found.adversarials))
    return AttackPaths(
        **{
            item.name: torch.cat([getattr(part, item.name) for part in parts])
            for item in fields(AttackPaths)
        }
    )


def _empty(images: Tensor, iterates: int) -> AttackPaths:
    none, size, flag = images[:0], images.new_zeros(0), images.new_zeros(0, dtype=torch.bool)
    losses = images.new_zeros(0, iterates)
    return AttackPaths(losses, flag, flag, flag, none, size, size, none, none)


class _Recorder(nn.Module):
    """A model that records every forward pass of an attack on m images."""

    def __init__(
        self, model: nn.Module, images: Tensor, labels: Tensor, method: Method, iterates: int
    ) -> None:
        super().__init__()
        self.model, self.images, self.labels, self.method = model, images, labels, method
        self.rows = torch.arange(len(labels), device=labels.device)
        self.loss = images.new_full((len(labels), iterates), torch.nan)
        self.reached = torch.zeros_like(labels, dtype=torch.bool)
        self.no_gradient = self.reached.clone()
        self.made: list[tuple[Tensor, Tensor]] = []
        self.gradients: dict[int, Tensor] = {}

    @property
    def nfe(self) -> Tensor | None:
        """Function evaluations of the last pass, as of the model's."""
        return getattr(self.model, "nfe", None)

    def forward(self, images: Tensor) -> Tensor:
        """Images [k, C, H, W], those whose paths go on, to logits [k, K]."""
        if len(images) != len(self.rows):
            raise ValueError(
                f"{type(self.method).__name__} evaluates {len(images)} images where the paths of "
                f"{len(self.rows)} go on: it cannot be recorded"
            )
        logits: Tensor = self.model(images)
        rows, number = self.rows, len(self.made)
        answers = self.labels[rows]
        self.loss[rows, number] = cross_entropy(logits.detach(), answers).to(self.loss.dtype)
        self.made.append((rows, images.detach()))
        wrong = classes(logits.detach()) != answers
        sizes = self.method.norm.size(images.detach() - self.images[rows])
        near = sizes <= self.method.epsilon * (1 + MEASURED)
        self.reached[rows[wrong & near]] = True
        self.rows = rows[~wrong]
        if logits.requires_grad:
            images.register_hook(lambda gradient: self._note(number, rows, ~wrong, gradient))
        elif images.requires_grad:
            self._note(number, rows, ~wrong, torch.zeros_like(images))
        return logits

    def _note(self, number: int, rows: Tensor, goes_on: Tensor, gradient: Tensor) -> None:
        norms = gradient.flatten(1).norm(dim=1)
        self.no_gradient[rows[goes_on & ~(torch.isfinite(norms) & (norms > 0))]] = True
        self.gradients[number] = gradient.detach()

    def paths(self, success: Tensor, adversarials: Tensor) -> AttackPaths:
        """What was recorded, and what the attack returned."""
        halfway, gradient = self.images.clone(), torch.zeros_like(self.images)
        middle = ((~self.loss.isnan()).sum(1) - 1).clamp(min=0) // 2
        for number, (rows, images) in enumerate(self.made):
            here = middle[rows] == number
            halfway[rows[here]] = images[here]
            if number in self.gradients:
                gradient[rows[here]] = self.gradients[number][here].to(gradient.dtype)
        change = (adversarials - self.images).flatten(1)
        return AttackPaths(
            self.loss,
            success,
            self.reached,
            self.no_gradient,
            adversarials,
            change.abs().amax(1),
            change.norm(dim=1),
            halfway,
            gradient,
        )
