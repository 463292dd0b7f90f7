"""The attack engine: the clean pass, the search for adversarial examples, and the result of both.

Only images that the model classifies correctly are attacked, and gradients reach the image alone:
parameters are frozen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from node_robustness.attacks.method import (
    BoundsBatches,
    MadeOnAnother,
    Method,
    Pass,
    StartsAtImages,
)
from node_robustness.attacks.progress import report_progress
from node_robustness.models.classifier import frozen
from node_robustness.models.predictions import classes
from node_robustness.perturbations.streams import Streams


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to each of n images.

    Attributes:
        clean_predictions: int64 [n].
        attacked: whether the clean prediction is right and the image not skipped; only those are
            attacked, bool [n].
        skipped: whether the clean prediction is right, but the image was to be left out, bool [n].
        success: whether an adversarial example was found, bool [n].
        adversarials: where found, an adversarial example; else the last or best iterate (the image
            itself where it was not attacked), float32 [n, C, H, W] in [0, 1].
        adversarial_predictions: the prediction for `adversarials`, int64 [n].
        iterations: gradient steps or queries, see `Found` (all of them where none was found, 0
            where not attacked), int64 [n].
        nfe_clean: function evaluations for the image, int32 [n]; None without an ODE.
        nfe_adversarial: the same for `adversarials`.
    """

    clean_predictions: Tensor
    attacked: Tensor
    skipped: Tensor
    success: Tensor
    adversarials: Tensor
    adversarial_predictions: Tensor
    iterations: Tensor
    nfe_clean: Tensor | None
    nfe_adversarial: Tensor | None


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: Method,
    *,
    index: Sequence[int] | None = None,
    seed: int = 0,
    skip: Tensor | None = None,
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
        index: rows of the images in the test set, [n]; 0 to n - 1 if None. With `seed`, they fix
            what is drawn at random for each image.
        seed: not negative.
        skip: images that are to be left out, bool [n]; none if None.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with numbers of images, in sum n: within a batch as many as the share of
            its search that is done is worth (`report_progress`).
    """
    rows = [int(row) for row in (range(len(images)) if index is None else index)]
    left_out = (
        torch.zeros_like(labels, dtype=torch.bool) if skip is None else skip.to(labels.device)
    )
    # A source of gradients is a view of the model and shares its hooks.
    asked = [model, method.source] if isinstance(method, MadeOnAnother) else [model]
    if isinstance(method, BoundsBatches):
        batch_size = min(batch_size, method.largest_batch)
    results = []
    with frozen(model):
        for first in range(0, len(images), batch_size):
            batch = slice(first, first + batch_size)
            streams = Streams.of(seed, rows[batch])
            with report_progress(asked, 1 + method.passes, len(streams), progress):
                results.append(
                    _attack_batch(
                        model, images[batch], labels[batch], left_out[batch], method, streams
                    )
                )
    return _concatenate(results)


def _attack_batch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    skip: Tensor,
    method: Method,
    streams: Streams,
) -> AttackResult:
    clean = Pass.over(model, images, differentiable=isinstance(method, StartsAtImages))
    predictions = classes(clean.logits.detach())
    result = AttackResult(
        clean_predictions=predictions,
        attacked=(predictions == labels) & ~skip,
        skipped=(predictions == labels) & skip,
        success=torch.zeros_like(labels, dtype=torch.bool),
        adversarials=images.clone(),
        adversarial_predictions=predictions.clone(),
        iterations=torch.zeros_like(labels),
        nfe_clean=clean.nfe,
        nfe_adversarial=None if clean.nfe is None else clean.nfe.clone(),
    )
    rows = result.attacked.nonzero().flatten()
    if not len(rows):
        return result
    if isinstance(method, StartsAtImages):
        found = method.search_from(model, clean[rows], labels[rows], streams[rows])
    else:
        found = method.search(model, images[rows], labels[rows], streams[rows])
    result.success[rows] = found.success
    result.adversarials[rows] = found.adversarials
    result.adversarial_predictions[rows] = found.predictions
    result.iterations[rows] = found.iterations
    if result.nfe_adversarial is not None and found.nfe is not None:
        result.nfe_adversarial[rows] = found.nfe
    return result


def _concatenate(results: list[AttackResult]) -> AttackResult:
    def joined(name: str) -> Tensor:
        return torch.cat([getattr(result, name) for result in results])

    has_nfe = results[0].nfe_clean is not None
    return AttackResult(
        clean_predictions=joined("clean_predictions"),
        attacked=joined("attacked"),
        skipped=joined("skipped"),
        success=joined("success"),
        adversarials=joined("adversarials"),
        adversarial_predictions=joined("adversarial_predictions"),
        iterations=joined("iterations"),
        nfe_clean=joined("nfe_clean") if has_nfe else None,
        nfe_adversarial=joined("nfe_adversarial") if has_nfe else None,
    )
