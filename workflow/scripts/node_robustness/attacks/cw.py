"""The attack of Carlini and Wagner in L2: Adam on the size of the change and a loss of the logits.

Carlini & Wagner, Towards evaluating the robustness of neural networks, IEEE S&P 2017: Section V
(the loss f_6 with its confidence, the change of variables, the search for the constant c) and
Section VI.A (the L2 attack).
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from node_robustness.attacks.best import Best
from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.perturbations.norms import Norm, column
from node_robustness.perturbations.streams import Streams

_KEPT_OF_MEAN, _KEPT_OF_SQUARES, _ADAM_EPSILON = 0.9, 0.999, 1e-8  # Kingma & Ba 2015
_FIRST_C, _C_GROWTH, _LARGEST_C = 1e-3, 10.0, 1e10
_LOOKS = 10  # how often in a run an image may be found to stagnate
_STAGNANT = 0.9999
_OFF_THE_EDGE = 1e-6


@dataclass(frozen=True)
class CarliniWagner:
    """The attack of Carlini and Wagner in L2, untargeted, with the binary search for c.

    The paper writes pixels as (tanh w + 1) / 2, which has no finite w for 0 and 1 and next to them
    hardly moves; here they are (sin w + 1) / 2, which moves all pixels at once.
    An image ends a run of Adam where its objective stagnates, as in the authors' program.

    Attributes:
        norm: `l2` or `l2_rms`; what is minimised.
        epsilon: an adversarial further away than this does not count.
        iterations: gradient steps for each value of c.
        search_steps: values of c.
        learning_rate: of Adam.
        confidence: smallest lead of another class's logit in an adversarial (kappa).

    Raises:
        ValueError: the norm is linf.
    """

    norm: Norm
    epsilon: float
    iterations: int
    search_steps: int
    learning_rate: float
    confidence: float = 0.0

    def __post_init__(self) -> None:
        if self.norm.name == "linf":
            raise ValueError("the attack of Carlini and Wagner minimises l2 or l2_rms, not linf")

    @property
    def passes(self) -> int:
        """See `Method.passes`."""
        return self.search_steps * (self.iterations + 1)

    def search(self, model: nn.Module, images: Tensor, labels: Tensor, streams: Streams) -> Found:
        """See `Method`. Nothing is random."""
        best = Best(images, labels, self.norm, self.epsilon, self.confidence)
        c = images.new_full(labels.shape, _FIRST_C)
        lower, upper = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _ in range(self.search_steps):
            broken = self._run(model, images, labels, c, best)
            upper = torch.where(broken, c, upper)
            lower = torch.where(broken, lower, c)
            grown = (_C_GROWTH * c).clamp(max=_LARGEST_C)
            c = torch.where(upper.isinf(), grown, (lower + upper) / 2)
        return best.found()

    def _run(
        self, model: nn.Module, images: Tensor, labels: Tensor, c: Tensor, best: Best
    ) -> Tensor:
        """Minimise from the images on; which of them had an adversarial, near or far, bool [m]."""
        broken = torch.zeros_like(labels, dtype=torch.bool)
        descent = _Descent.begin(images)
        for iteration in range(self.iterations + 1):
            last = iteration == self.iterations
            rows, points = descent.rows, descent.points()
            passed = Pass.over(model, points, differentiable=not last)
            broken[rows] |= best.consider(rows, passed, steps=min(iteration, 1))
            if last:
                break
            lacks = (self.confidence - margin(passed.logits, labels[rows])).clamp(min=0)
            gradient = passed.gradient(lacks)
            change = points - images[rows]
            objective = change.square().flatten(1).sum(1) + c[rows] * lacks.detach()
            gradient = 2 * change + column(c[rows]) * _finite(gradient)
            descent.move(gradient, self.learning_rate, iteration + 1)
            if iteration % max(self.iterations // _LOOKS, 1) == 0:
                descent = descent.only(~descent.stagnates(objective))
                if len(descent.rows) == 0:
                    break
        return broken


@dataclass
class _Descent:
    """Adam on the angles w of the pixels of k images; every field has one entry an image."""

    rows: Tensor
    images: Tensor
    start: Tensor
    angle: Tensor
    mean: Tensor
    squares: Tensor
    objective: Tensor

    @classmethod
    def begin(cls, images: Tensor) -> "_Descent":
        start = ((2 * images - 1) * (1 - _OFF_THE_EDGE)).asin()
        return cls(
            rows=torch.arange(len(images), device=images.device),
            images=images,
            start=start,
            angle=start,
            mean=torch.zeros_like(start),
            squares=torch.zeros_like(start),
            objective=images.new_full(images.shape[:1], torch.inf),
        )

    def points(self) -> Tensor:
        """The pixels; where they have not moved, exactly those of the image."""
        return torch.where(self.angle == self.start, self.images, (self.angle.sin() + 1) / 2)

    def move(self, gradient: Tensor, learning_rate: float, step: int) -> None:
        """Adam's step number `step`, from 1, for the gradient with respect to the pixels."""
        gradient = gradient * self.angle.cos() / 2
        self.mean = torch.lerp(gradient, self.mean, _KEPT_OF_MEAN)
        self.squares = torch.lerp(gradient.square(), self.squares, _KEPT_OF_SQUARES)
        mean = self.mean / (1 - _KEPT_OF_MEAN**step)
        squares = self.squares / (1 - _KEPT_OF_SQUARES**step)
        self.angle = self.angle - learning_rate * mean / (squares.sqrt() + _ADAM_EPSILON)

    def stagnates(self, objective: Tensor) -> Tensor:
        """Whether the objective has hardly fallen since this was last asked, bool [k]."""
        before, self.objective = self.objective, objective
        return objective > _STAGNANT * before

    def only(self, images: Tensor) -> "_Descent":
        """The descents of some of the images, by bool mask [k]."""
        return _Descent(**{field.name: getattr(self, field.name)[images] for field in fields(self)})


def _finite(gradient: Tensor) -> Tensor:
    """The gradient, 0 for an image where it is not finite because its solve failed."""
    finite = torch.isfinite(gradient).flatten(1).all(1)
    return torch.where(column(finite), gradient, 0)
