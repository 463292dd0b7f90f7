"""The attack engine: gradient attacks on a batch from which finished images leave.

An image is done as soon as it has its adversarial. The forward pass that yields the gradient at an
iterate also judges that iterate, and the last one is judged without a gradient. Gradients reach
the image alone: parameters are frozen.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from node_robustness.norms import Norm

NO_CLASS = -1
"""The prediction for an image whose logits are not finite (its solve failed)."""


@dataclass(frozen=True)
class BasicIterativeMethod:
    """The basic iterative method as the paper used it (foolbox 2: no random start).

    Kurakin et al., Adversarial examples in the physical world, 2017; Carrara et al. 2019.

    Attributes:
        norm: in which epsilon and step are measured.
        epsilon: largest norm of a perturbation.
        step: norm of one step.
        iterations: gradient steps at most.
        early_stop: end an image at its first adversarial iterate. Otherwise all steps are taken
            and, of the adversarial iterates, the one with the largest loss is kept.
    """

    norm: Norm
    epsilon: float
    step: float
    iterations: int
    early_stop: bool = True


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to each of n images.

    Attributes:
        clean_predictions: int64 [n].
        attacked: whether the clean prediction is right; only those images are attacked, bool [n].
        success: whether an adversarial was found, bool [n].
        adversarials: where found, an adversarial; else the last iterate (the image itself where
            it was not attacked), float32 [n, C, H, W] in [0, 1].
        adversarial_predictions: the prediction for `adversarials`, int64 [n].
        iterations: gradient steps up to the first adversarial iterate (all of them where none
            was found, 0 where not attacked), int64 [n].
        nfe_clean: function evaluations for the image, int32 [n]; None without an ODE.
        nfe_adversarial: the same for `adversarials`.
    """

    clean_predictions: Tensor
    attacked: Tensor
    success: Tensor
    adversarials: Tensor
    adversarial_predictions: Tensor
    iterations: Tensor
    nfe_clean: Tensor | None
    nfe_adversarial: Tensor | None


def classes(logits: Tensor) -> Tensor:
    """The predicted class of each row of logits [n, K]; `NO_CLASS` where they are not finite."""
    return torch.where(torch.isfinite(logits).all(1), logits.argmax(1), NO_CLASS)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters, for a while."""
    modes = [(module, module.training) for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, required in zip(model.parameters(), asked, strict=True):
            parameter.requires_grad_(required)


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: BasicIterativeMethod,
    *,
    batch_size: int = 128,
    progress: Callable[[int], object] | None = None,
) -> AttackResult:
    """Attack every image that the model classifies correctly.

    Args:
        model: images to logits; its attribute `nfe`, where it has one, is read after a forward
            pass as the function evaluations of each image.
        images: float [n, C, H, W] in [0, 1].
        labels: int64 [n].
        method: the attack.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch.
    """
    results = []
    with frozen(model):
        for batch in torch.split(torch.arange(len(images), device=images.device), batch_size):
            results.append(_attack_batch(model, images[batch], labels[batch], method))
            if progress is not None:
                progress(len(batch))
    return _concatenate(results)


def _attack_batch(
    model: nn.Module, images: Tensor, labels: Tensor, method: BasicIterativeMethod
) -> AttackResult:
    record = _Record(images, labels)
    going = torch.arange(len(images), device=images.device)
    current = images
    for iteration in range(method.iterations + 1):
        last = iteration == method.iterations
        with torch.set_grad_enabled(not last):
            current = current.detach().requires_grad_(not last)
            logits = model(current)
            losses = F.cross_entropy(logits, labels[going], reduction="none")
        nfe = getattr(model, "nfe", None)
        record.judge(iteration, going, current.detach(), logits.detach(), losses.detach(), nfe)
        stay = record.goes_on(going, method.early_stop)
        if last or not bool(stay.any()):
            break
        (gradient,) = torch.autograd.grad(losses[stay].sum(), current)
        going, current, gradient = going[stay], current.detach()[stay], gradient[stay]
        current = _step(images[going], current, gradient, method)
    return record.result()


def _step(
    images: Tensor, current: Tensor, gradient: Tensor, method: BasicIterativeMethod
) -> Tensor:
    """One step up the loss, back into the ball around the image, back into [0, 1]."""
    moved = current + method.step * method.norm.direction(gradient)
    return (images + method.norm.project(moved - images, method.epsilon)).clamp(0, 1)


class _Record:
    """What is known of each image of a batch so far."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self.clean_predictions = torch.full_like(labels, NO_CLASS)
        self.success = torch.zeros_like(labels, dtype=torch.bool)
        self.adversarials = images.clone()
        self.adversarial_predictions = torch.full_like(labels, NO_CLASS)
        self.iterations = torch.zeros_like(labels)
        self.best_loss = torch.full(labels.shape, -torch.inf, device=images.device)
        self.nfe_clean: Tensor | None = None
        self.nfe_adversarial: Tensor | None = None

    def judge(
        self,
        iteration: int,
        rows: Tensor,
        current: Tensor,
        logits: Tensor,
        losses: Tensor,
        nfe: Tensor | None,
    ) -> None:
        """Take note of the predictions for the iterates of the images at `rows`."""
        predictions = classes(logits)
        if iteration == 0:
            self.clean_predictions, self.adversarial_predictions = predictions, predictions.clone()
            if nfe is not None:
                self.nfe_clean, self.nfe_adversarial = nfe, nfe.clone()
            return
        wrong = predictions != self.labels[rows]
        self.iterations[rows] = torch.where(self.success[rows], self.iterations[rows], iteration)
        # A failed solve has no loss; as an adversarial it counts as the worst there is.
        losses = losses.nan_to_num(nan=torch.inf).to(self.best_loss.dtype)
        better = torch.where(
            wrong, ~self.success[rows] | (losses > self.best_loss[rows]), ~self.success[rows]
        )
        kept = rows[better]
        self.adversarials[kept] = current[better]
        self.adversarial_predictions[kept] = predictions[better]
        self.best_loss[kept] = torch.where(wrong, losses, -torch.inf)[better]
        if nfe is not None and self.nfe_adversarial is not None:
            self.nfe_adversarial[kept] = nfe[better]
        self.success[rows[wrong]] = True

    def goes_on(self, rows: Tensor, early_stop: bool) -> Tensor:
        """Which of the images at `rows` need another step, bool."""
        attacked = self.clean_predictions[rows] == self.labels[rows]
        return attacked & ~self.success[rows] if early_stop else attacked

    def result(self) -> AttackResult:
        return AttackResult(
            clean_predictions=self.clean_predictions,
            attacked=self.clean_predictions == self.labels,
            success=self.success,
            adversarials=self.adversarials,
            adversarial_predictions=self.adversarial_predictions,
            iterations=self.iterations,
            nfe_clean=self.nfe_clean,
            nfe_adversarial=self.nfe_adversarial,
        )


def _concatenate(results: list[AttackResult]) -> AttackResult:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results])

    has_nfe = results[0].nfe_clean is not None
    return AttackResult(
        clean_predictions=joined("clean_predictions"),
        attacked=joined("attacked"),
        success=joined("success"),
        adversarials=joined("adversarials"),
        adversarial_predictions=joined("adversarial_predictions"),
        iterations=joined("iterations"),
        nfe_clean=joined("nfe_clean") if has_nfe else None,
        nfe_adversarial=joined("nfe_adversarial") if has_nfe else None,
    )
