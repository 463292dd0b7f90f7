"""What attacks read from logits."""

import torch
from torch import Tensor, nn

from node_robustness.attacks.method import Pass


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The largest logit of another class minus the label's, [m]: positive where misclassified.

    Unlike cross-entropy, it does not flatten out where the model is confident (Carlini and Wagner,
    Towards evaluating the robustness of neural networks, 2017, f6 without the bound).
    """
    return _others(logits, labels).amax(1) - logits.gather(1, labels[:, None]).squeeze(1)


def likely_targets(model: nn.Module, images: Tensor, labels: Tensor, count: int) -> Tensor:
    """The classes other than the label, most likely first, int64 [min(count, K - 1), m].

    Args:
        model: images to logits [m, K].
        images: float [m, C, H, W].
        labels: int64 [m].
        count: how many classes at most.
    """
    logits = Pass.over(model, images, differentiable=False).logits
    ranked = _others(logits, labels).sort(dim=1, descending=True, stable=True).indices
    return ranked[:, : min(count, logits.shape[1] - 1)].T


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits of the classes other than the label; the label's is minus infinity."""
    return logits.scatter(1, labels[:, None], -torch.inf)
