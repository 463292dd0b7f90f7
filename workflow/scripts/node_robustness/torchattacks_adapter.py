"""The attack engine as a torchattacks attack, to be used wherever one of theirs is."""

from torch import Tensor, nn
from torchattacks.attack import Attack

from node_robustness.attacks import BasicIterativeMethod, attack
from node_robustness.norms import Norm


class BasicIterative(Attack):  # type: ignore[misc]  # torchattacks has no types
    """The basic iterative method without random start; untargeted.

    Where torchattacks' own returns the last iterate, this returns an adversarial one wherever
    there was any, and leaves images that the model already gets wrong as they are. The model is
    always attacked in evaluation mode.

    Args:
        model: images [N, C, H, W] in [0, 1] to logits [N, K].
        norm: `linf`, `l2` or `l2_rms`.
        eps: largest norm of a perturbation.
        alpha: norm of one step.
        steps: gradient steps at most.
        early_stop: end an image at its first adversarial iterate; otherwise keep the adversarial
            iterate with the largest loss.
        batch_size: images at a time.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "linf",
        eps: float = 8 / 255,
        alpha: float = 2 / 255,
        steps: int = 10,
        early_stop: bool = True,
        batch_size: int = 128,
    ) -> None:
        super().__init__("BasicIterative", model)
        self.norm = norm
        self.eps = eps
        self.alpha = alpha
        self.steps = steps
        self.early_stop = early_stop
        self.batch_size = batch_size

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images [N, C, H, W] in [0, 1] for images and their labels, int64 [N]."""
        method = BasicIterativeMethod(
            Norm(self.norm), self.eps, self.alpha, self.steps, self.early_stop
        )
        found = attack(
            _Logits(self),
            images.detach().to(self.device),
            labels.detach().to(self.device),
            method,
            batch_size=self.batch_size,
        )
        return found.adversarials


class _Logits(nn.Module):
    """The attacked model with the normalisation that torchattacks was told of."""

    def __init__(self, owner: BasicIterative) -> None:
        super().__init__()
        self.model: nn.Module = owner.model
        self._logits = owner.get_logits

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self._logits(images)
        return logits
