"""Our attacks as torchattacks attacks, to be used wherever one of theirs is.

They are untargeted. Where most of torchattacks' own return the last iterate, these return an
adversarial one wherever there was any, and leave images that the model already gets wrong as they
are. The model is always attacked in evaluation mode. What is random depends on `seed` and on an
image's place among the images of a call, not on torch's global generator.

Every attack takes the model, images [N, C, H, W] in [0, 1] to logits [N, K]; `norm`, which is
`linf`, `l2` or `l2_rms`; `eps`, the largest norm of a perturbation; and `batch_size`, the images at
a time.
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor, nn
from torchattacks.attack import Attack

from node_robustness.attacks.apgd import AutoPGD
from node_robustness.attacks.bim import BasicIterativeMethod, FastGradientSign
from node_robustness.attacks.bisection import Bisection
from node_robustness.attacks.carlini_wagner import CarliniWagner
from node_robustness.attacks.engine import attack
from node_robustness.attacks.expectation import ExpectationOverTolerances, log_uniform
from node_robustness.attacks.fab import FAB
from node_robustness.attacks.method import Method
from node_robustness.attacks.noise import Noise
from node_robustness.attacks.pgd import ProjectedGradientDescent
from node_robustness.attacks.square import Square
from node_robustness.attacks.transfer import Transfer
from node_robustness.models.classifier import Classifier
from node_robustness.perturbations.norms import Norm

_EPS = 8 / 255


class _Engine(Attack, ABC):  # type: ignore[misc]  # torchattacks has no types
    """An attack of ours; subclasses say which."""

    def __init__(
        self, model: nn.Module, norm: str, eps: float, *, seed: int = 0, batch_size: int = 128
    ) -> None:
        super().__init__(type(self).__name__, model)
        self.norm = norm
        self.eps = eps
        self.seed = seed
        self.batch_size = batch_size

    @abstractmethod
    def method(self) -> Method:
        """The attack with its parameters as they are now."""

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images [N, C, H, W] in [0, 1] for images and their labels, int64 [N]."""
        found = attack(
            _Logits(self),
            images.detach().to(self.device),
            labels.detach().to(self.device),
            self.method(),
            seed=self.seed,
            batch_size=self.batch_size,
        )
        return found.adversarials


class _Logits(nn.Module):
    """The attacked model with the normalisation that torchattacks was told of."""

    def __init__(self, owner: Attack) -> None:
        super().__init__()
        self.model: nn.Module = owner.model
        self._logits = owner.get_logits

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self._logits(images)
        return logits


class FastGradient(_Engine):
    """FGSM: one step as long as `eps`."""

    def __init__(
        self, model: nn.Module, norm: str = "linf", eps: float = _EPS, batch_size: int = 128
    ) -> None:
        super().__init__(model, norm, eps, batch_size=batch_size)

    def method(self) -> Method:
        """See `attacks.FastGradientSign`."""
        return FastGradientSign(Norm(self.norm), self.eps)


class BasicIterative(_Engine):
    """The basic iterative method, without random start.

    Args:
        model: see the module, as for `norm`, `eps` and `batch_size`.
        norm: see the module.
        eps: see the module.
        alpha: norm of one step.
        steps: gradient steps at most.
        early_stop: end an image at its first adversarial iterate; otherwise keep the adversarial
            iterate with the largest loss.
        batch_size: see the module.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        alpha: float = 2 / 255,
        steps: int = 10,
        early_stop: bool = True,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, batch_size=batch_size)
        self.alpha = alpha
        self.steps = steps
        self.early_stop = early_stop

    def method(self) -> Method:
        """See `attacks.BasicIterativeMethod`."""
        norm = Norm(self.norm)
        return BasicIterativeMethod(norm, self.eps, self.alpha, self.steps, self.early_stop)


class ProjectedGradient(_Engine):
    """PGD from random starts; `loss` is `ce` or `margin`, the rest as in `BasicIterative`."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        alpha: float = 2 / 255,
        steps: int = 10,
        restarts: int = 1,
        loss: str = "ce",
        early_stop: bool = True,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, seed=seed, batch_size=batch_size)
        self.alpha = alpha
        self.steps = steps
        self.restarts = restarts
        self.loss = loss
        self.early_stop = early_stop

    def method(self) -> Method:
        """See `attacks.ProjectedGradientDescent`."""
        return ProjectedGradientDescent(
            Norm(self.norm),
            self.eps,
            self.alpha,
            self.steps,
            self.restarts,
            self.loss,
            self.early_stop,
        )


class ExpectationOverDrawnTolerances(_Engine):
    """PGD by the mean direct gradient over `draws` tolerances, log-uniform from `low` to `high`.

    The model, which must be a `classifier.Classifier` with an ODE, is judged at its own tolerance.
    The rest is as in `ProjectedGradient`.
    """

    def __init__(
        self,
        model: Classifier,
        low: float,
        high: float,
        norm: str = "linf",
        eps: float = _EPS,
        alpha: float = 2 / 255,
        steps: int = 10,
        restarts: int = 1,
        loss: str = "ce",
        draws: int = 5,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, seed=seed, batch_size=batch_size)
        self.low = low
        self.high = high
        self.alpha = alpha
        self.steps = steps
        self.restarts = restarts
        self.loss = loss
        self.draws = draws

    def method(self) -> Method:
        """See `attacks.ExpectationOverTolerances`."""
        return ExpectationOverTolerances(
            Norm(self.norm),
            self.eps,
            self.alpha,
            self.steps,
            self.restarts,
            self.loss,
            draws=self.draws,
            source=self.model.at(gradient="direct"),
            draw=log_uniform(self.low, self.high),
        )


class AutoProjectedGradient(_Engine):
    """Auto-PGD; `loss` is `ce` or `dlr`, and `targets` makes the latter the targeted DLR."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        steps: int = 100,
        restarts: int = 1,
        loss: Literal["ce", "dlr"] = "ce",
        targets: int | None = None,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, seed=seed, batch_size=batch_size)
        self.steps = steps
        self.restarts = restarts
        self.loss: Literal["ce", "dlr"] = loss
        self.targets = targets

    def method(self) -> Method:
        """See `attacks.AutoPGD`."""
        norm = Norm(self.norm)
        return AutoPGD(norm, self.eps, self.loss, self.steps, self.restarts, self.targets)


class SquareAttack(_Engine):
    """The Square attack with at most `n_queries` passes of an image."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        n_queries: int = 5000,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, seed=seed, batch_size=batch_size)
        self.n_queries = n_queries

    def method(self) -> Method:
        """See `attacks.Square`."""
        return Square(Norm(self.norm), self.eps, self.n_queries)


class FastAdaptiveBoundary(_Engine):
    """Targeted FAB: the smallest perturbation, up to `eps`."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        steps: int = 100,
        targets: int = 9,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, batch_size=batch_size)
        self.steps = steps
        self.targets = targets

    def method(self) -> Method:
        """See `attacks.FAB`."""
        return FAB(Norm(self.norm), self.eps, self.steps, self.targets)


class CarliniWagnerL2(_Engine):
    """Carlini and Wagner's attack, with their binary search; `norm` is `l2` or `l2_rms`."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "l2",
        eps: float = 1.0,
        steps: int = 200,
        search_steps: int = 6,
        lr: float = 0.01,
        kappa: float = 0.0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, batch_size=batch_size)
        self.steps = steps
        self.search_steps = search_steps
        self.lr = lr
        self.kappa = kappa

    def method(self) -> Method:
        """See `attacks.CarliniWagner`."""
        return CarliniWagner(
            Norm(self.norm), self.eps, self.steps, self.search_steps, self.lr, self.kappa
        )


class SmallestByBisection(_Engine):
    """BIM at an epsilon of every image's own: the smallest perturbation, up to `eps`."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        relative_alpha: float = 0.25,
        steps: int = 10,
        halvings: int = 8,
        loss: str = "ce",
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, batch_size=batch_size)
        self.relative_alpha = relative_alpha
        self.steps = steps
        self.halvings = halvings
        self.loss = loss

    def method(self) -> Method:
        """See `attacks.Bisection`."""
        return Bisection(
            Norm(self.norm), self.eps, self.relative_alpha, self.steps, self.halvings, self.loss
        )


class RandomNoise(_Engine):
    """At most `draws` random perturbations of size `eps`."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = _EPS,
        draws: int = 20,
        seed: int = 0,
        batch_size: int = 128,
    ) -> None:
        super().__init__(model, norm, eps, seed=seed, batch_size=batch_size)
        self.draws = draws

    def method(self) -> Method:
        """See `attacks.Noise`."""
        return Noise(Norm(self.norm), self.eps, self.draws)


class Transferred(_Engine):
    """Adversarials that another attack of this module makes on its own model."""

    def __init__(self, model: nn.Module, by: _Engine, batch_size: int = 128) -> None:
        super().__init__(model, by.norm, by.eps, seed=by.seed, batch_size=batch_size)
        self.by = by

    def method(self) -> Method:
        """See `attacks.Transfer`."""
        return Transfer(_Logits(self.by), self.by.method())
