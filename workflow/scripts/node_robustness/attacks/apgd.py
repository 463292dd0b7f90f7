"""Auto-PGD: projected gradient ascent with momentum that sets its own step size.

Croce & Hein, Reliable evaluation of adversarial robustness with an ensemble of diverse
parameter-free attacks, ICML 2020: Algorithm 1 (the ascent), Section 3.1 (when the step is halved),
equations 6 and 7 (the losses DLR and targeted DLR).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from node_robustness.attacks.best import Best
from node_robustness.attacks.descent import cross_entropy
from node_robustness.attacks.logits import likely_targets, margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.ball import into_ball
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_MOMENTUM = 0.75  # the share of the new step, against the one before
_FIRST_SPELL, _SHORTER, _SHORTEST_SPELL = 22, 3, 6  # percent of the iterations
_TINY = 1e-12  # guards the division in DLR, as the authors do


@dataclass(frozen=True)
class AutoPGD:
    """Auto-PGD with the cross-entropy, the DLR or the targeted DLR loss.

    An image is done at its first adversarial. DLR needs three classes to be scaled and targeted
    DLR four; with fewer classes the logits that there are not are left out of the denominator,
    with two it is 1. The step's direction then is that of the plain margin.

    Attributes:
        norm: in which epsilon is measured.
        epsilon: largest norm of a perturbation.
        loss: `ce`, the cross-entropy, or `dlr`, the difference of logits ratio.
        iterations: gradient steps of a run.
        restarts: runs from a random start, per target where there are targets.
        targets: None, or how many classes the targeted DLR aims at, one run after the other, from
            the second most likely class of the image on; all the others at most.
        rho: the step is halved after a spell in which the loss rose in less than this share of
            the steps.

    Raises:
        ValueError: targets for the loss ce.
    """

    norm: Norm
    epsilon: float
    loss: Literal["ce", "dlr"]
    iterations: int = 100
    restarts: int = 1
    targets: int | None = None
    rho: float = 0.75

    def __post_init__(self) -> None:
        if self.targets is not None and self.loss != "dlr":
            raise ValueError("targets needs the loss dlr")

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        runs = self.restarts * (self.targets or 1)
        return runs * (self.iterations + 1) + (self.targets is not None)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method`."""
        best = Best(images, labels, self.norm, self.epsilon)
        for targets in self._targets(model, images, labels):
            objective = _Objective(model, labels, self.loss, targets, best)
            for _ in range(self.restarts):
                rows = best.going()
                if len(rows) == 0:
                    return best.found()
                self._run(objective, images, rows, streams[rows])
        return best.found()

    def _targets(
        self, model: nn.Module, images: Tensor, labels: Tensor
    ) -> Sequence[Tensor] | Sequence[None]:
        """The target classes, int64 [m], of each run."""
        if self.targets is None:
            return [None]
        return list(likely_targets(model, images, labels, self.targets))

    def _run(self, objective: "_Objective", images: Tensor, rows: Tensor, streams: Streams) -> None:
        """One run from a random start, until all images are done or the iterations are used up."""
        start = self._start(images[rows], streams)
        stay, losses, gradients = objective(rows, start, steps=0, ascends=True)
        ascent = _Ascent.begin(rows[stay], start[stay], losses, gradients, 2 * self.epsilon)
        checks = checkpoints(self.iterations)
        last_check = 0
        for iteration in range(1, self.iterations + 1):
            if len(ascent.rows) == 0:
                return
            share = 1.0 if iteration == 1 else _MOMENTUM
            following = self._step(images[ascent.rows], ascent, share)
            stay, losses, gradients = objective(
                ascent.rows, following, steps=1, ascends=iteration < self.iterations
            )
            ascent = ascent.only(stay)
            ascent.move(following[stay], losses, gradients)
            if iteration in checks:
                ascent.check(self.rho * (iteration - last_check))
                last_check = iteration

    def _start(self, images: Tensor, streams: Streams) -> Tensor:
        """Random points at the distance epsilon, [k, C, H, W]."""
        shape = images.shape[1:]
        if self.norm.name == "linf":
            noise = 2 * streams.uniform(shape, images) - 1
        else:
            noise = streams.normal(shape, images)
        scale = self.epsilon / self.norm.size(noise)
        return into_ball(images, images + column(scale) * noise, self.norm, self.epsilon)

    def _step(self, images: Tensor, ascent: "_Ascent", share: float) -> Tensor:
        """The next iterates: a projected step, then momentum, projected again (Algorithm 1)."""
        current = ascent.current
        step = column(ascent.step) * self.norm.direction(ascent.gradient)
        ahead = into_ball(images, current + step, self.norm, self.epsilon)
        moved = current + share * (ahead - current) + (1 - share) * (current - ascent.before)
        return into_ball(images, moved, self.norm, self.epsilon)


@dataclass(frozen=True)
class _Objective:
    """The loss to be raised, and a record of the points at which it is evaluated."""

    model: nn.Module
    labels: Tensor
    loss: str
    targets: Tensor | None
    best: Best

    def __call__(
        self, rows: Tensor, points: Tensor, steps: int, ascends: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate points; the loss and, if the ascent goes on, its gradient where it is not done.

        Args:
            rows: which images the points belong to, int64 [k].
            points: float [k, C, H, W].
            steps: gradient steps made since the images were last evaluated.
            ascends: whether gradients are needed; they are zero otherwise.

        Returns:
            Which images are not done, bool [k], and for those j the losses [j] and the gradients
            [j, C, H, W].
        """
        passed = Pass.over(self.model, points, differentiable=ascends)
        self.best.consider(rows, passed, steps)
        stay = ~self.best.success[rows]
        passed, rows = passed[stay], rows[stay]
        losses = self._losses(passed.logits, rows)
        if ascends and len(rows):
            return stay, losses.detach(), passed.gradient(losses)
        return stay, losses.detach(), torch.zeros_like(passed.images)

    def _losses(self, logits: Tensor, rows: Tensor) -> Tensor:
        labels = self.labels[rows]
        if self.loss == "ce":
            return cross_entropy(logits, labels)
        if self.targets is None:
            return dlr(logits, labels)
        return targeted_dlr(logits, labels, self.targets[rows])


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference of logits ratio (equation 6), [m]; with two classes the margin."""
    return margin(logits, labels) / _spread(logits, slice(2, 3))


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """The targeted difference of logits ratio (equation 7), [m]; with two classes the margin."""
    difference = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return difference.squeeze(1) / _spread(logits, slice(2, 4))


def _spread(logits: Tensor, ranks: slice) -> Tensor:
    """The largest logit minus the mean of those at `ranks`, [m]; 1 where there are none."""
    ranked = logits.sort(1, descending=True).values
    if ranked[:, ranks].shape[1] == 0:
        return torch.ones_like(ranked[:, 0])
    return ranked[:, 0] - ranked[:, ranks].mean(1) + _TINY


def checkpoints(iterations: int) -> set[int]:
    """After which iterations the step size is looked at (Section 3.1)."""
    percent, spell = 0, _FIRST_SPELL
    found = set()
    while percent + spell <= 100:
        percent += spell
        found.add(-(-percent * iterations // 100))
        spell = max(spell - _SHORTER, _SHORTEST_SPELL)
    return found


@dataclass
class _Ascent:
    """Where the ascents of k images stand; every field has one entry an image."""

    rows: Tensor
    current: Tensor
    before: Tensor
    loss: Tensor
    gradient: Tensor
    step: Tensor
    highest: Tensor
    highest_loss: Tensor
    highest_gradient: Tensor
    highest_loss_at_check: Tensor
    rises: Tensor
    halved: Tensor

    @classmethod
    def begin(
        cls, rows: Tensor, start: Tensor, loss: Tensor, gradient: Tensor, step: float
    ) -> "_Ascent":
        return cls(
            rows=rows,
            current=start,
            before=start,
            loss=loss,
            gradient=gradient,
            step=torch.full_like(loss, step),
            highest=start,
            highest_loss=loss,
            highest_gradient=gradient,
            highest_loss_at_check=loss,
            rises=torch.zeros_like(rows),
            halved=torch.zeros_like(rows, dtype=torch.bool),
        )

    def only(self, images: Tensor) -> "_Ascent":
        """The ascents of some of the images, by bool mask [k]."""
        return _Ascent(**{field.name: getattr(self, field.name)[images] for field in fields(self)})

    def move(self, following: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Go on to the next iterates."""
        self.rises += loss > self.loss
        self.before, self.current, self.loss, self.gradient = (
            self.current,
            following,
            loss,
            gradient,
        )
        higher = loss > self.highest_loss
        self.highest = torch.where(column(higher), following, self.highest)
        self.highest_gradient = torch.where(column(higher), gradient, self.highest_gradient)
        self.highest_loss = torch.where(higher, loss, self.highest_loss)

    def check(self, enough: float) -> None:
        """Halve the step, and go back to the highest iterate, where the ascent does not progress.

        Args:
            enough: how often the loss should have risen since the last check.
        """
        stuck = ~self.halved & (self.highest_loss <= self.highest_loss_at_check)
        self.halved = (self.rises < enough) | stuck
        self.step = torch.where(self.halved, self.step / 2, self.step)
        self.current = torch.where(column(self.halved), self.highest, self.current)
        self.gradient = torch.where(column(self.halved), self.highest_gradient, self.gradient)
        self.highest_loss_at_check = self.highest_loss
        self.rises = torch.zeros_like(self.rises)
