"""What a search has found so far, image by image."""

import torch
from torch import Tensor

from node_robustness.attacks.logits import margin
from node_robustness.attacks.method import Found, Pass
from node_robustness.models.predictions import NO_CLASS, classes
from node_robustness.perturbations.ball import is_inside
from node_robustness.perturbations.norms import Norm


class Best:
    """The best candidate of each of m images: the smallest adversarial example within epsilon.

    While an image has no adversarial example, its best candidate is, of those within epsilon that
    are classified correctly, the one with the largest `margin`.

    Attributes:
        success: whether an adversarial example within epsilon is known, bool [m].
    """

    def __init__(
        self, images: Tensor, labels: Tensor, norm: Norm, epsilon: float, confidence: float = 0.0
    ) -> None:
        """Start with the images themselves.

        Args:
            images: float [m, C, H, W] in [0, 1].
            labels: their classes, which the model predicts, int64 [m].
            norm: in which epsilon is measured.
            epsilon: largest norm of a perturbation.
            confidence: smallest `margin` of an adversarial example.
        """
        self.success = torch.zeros_like(labels, dtype=torch.bool)
        self._images, self._labels = images, labels
        self._norm, self._epsilon, self._confidence = norm, epsilon, confidence
        self._candidates = images.clone()
        self._predictions = labels.clone()
        self._sizes = images.new_full(labels.shape, torch.inf)
        self._margins = images.new_full(labels.shape, -torch.inf)
        self._steps = torch.zeros_like(labels)
        self._steps_to_best = torch.zeros_like(labels)
        self._nfe: Tensor | None = None

    def consider(self, rows: Tensor, passed: Pass, steps: int | Tensor) -> Tensor:
        """Whether candidates are misclassified, within epsilon or not, bool [k].

        Args:
            rows: which images the candidates belong to, int64 [k].
            passed: a pass over the k candidates, which are in [0, 1].
            steps: gradient steps (or queries) made since these images were last evaluated, of all
                or of each, [k].
        """
        logits, candidates = passed.logits.detach(), passed.images
        predictions = classes(logits)
        margins = margin(logits, self._labels[rows])
        margins = torch.where(predictions == NO_CLASS, torch.inf, margins)
        sizes = self._norm.size(candidates - self._images[rows])
        right = predictions == self._labels[rows]
        wrong = ~right & (margins >= self._confidence)
        inside = is_inside(sizes, self._epsilon)

        self._steps[rows] += steps
        better = inside & torch.where(
            wrong,
            sizes < self._sizes[rows],
            right & ~self.success[rows] & (margins > self._margins[rows]),
        )
        kept = rows[better]
        self.success[rows[inside & wrong]] = True
        self._candidates[kept] = candidates[better]
        self._predictions[kept] = predictions[better]
        self._sizes[kept] = torch.where(wrong, sizes, torch.inf)[better]
        self._margins[kept] = margins[better].to(self._margins.dtype)
        self._steps_to_best[kept] = self._steps[kept]
        self._keep_nfe(kept, better, passed.nfe)
        return wrong

    def going(self) -> Tensor:
        """The rows of the images that have no adversarial example yet, int64 [k]."""
        return (~self.success).nonzero().flatten()

    def found(self) -> Found:
        """The best candidates."""
        return Found(
            adversarials=self._candidates,
            success=self.success,
            iterations=torch.where(self.success, self._steps_to_best, self._steps),
            predictions=self._predictions,
            nfe=self._nfe,
        )

    def _keep_nfe(self, kept: Tensor, better: Tensor, nfe: Tensor | None) -> None:
        if nfe is None:
            return
        if self._nfe is None:
            self._nfe = nfe.new_zeros(len(self._labels))
        self._nfe[kept] = nfe[better]
