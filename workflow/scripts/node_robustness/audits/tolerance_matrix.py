"""Adversarial examples that were made at one tolerance, evaluated at others.

If an image fools the model only at the tolerance at which it was attacked, the tolerance moved the
adversarial, and an attacker who does not know it needs another; if those that an attack failed to
find at a loose tolerance are found at a tight one and hold at the loose one, the attack failed and
not the model (transfer as a sign of masking: Athalye, Carlini and Wagner, 2018, section 3).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_robustness.attacks.files import Adversarials
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import CLASS, as_array, put_images
from node_robustness.models.evaluation import evaluate
from node_robustness.models.network import Network


@dataclass(frozen=True)
class Reevaluated:
    """What a model says of n images at E tolerances.

    Attributes:
        predictions: int64 [n, E]; `predictions.NO_CLASS` where the solve failed.
        logits: float32 [n, E, K].
        nfe: function evaluations, int32 [n, E]; None where they are not known.
    """

    predictions: Tensor
    logits: Tensor
    nfe: Tensor | None


def reevaluate(
    model: Network,
    images: Tensor,
    tolerances: Sequence[float],
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Reevaluated:
    """Classify images at several tolerances.

    Args:
        model: in evaluation mode, with an ODE whose steps the tolerance bounds.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        tolerances: at least one.
        batch_size: images at a time; bounds the memory, does not change the result.
        progress: called with the number of images of each finished batch at each tolerance.
    """
    found = [
        evaluate(model.at(tolerance=tau), images, batch_size=batch_size, progress=progress)
        for tau in tolerances
    ]
    counts = [one.nfe for one in found if one.nfe is not None]
    return Reevaluated(
        predictions=torch.stack([one.predictions for one in found], dim=1),
        logits=torch.stack([one.logits for one in found], dim=1),
        nfe=torch.stack(counts, dim=1) if counts else None,
    )


def write_reevaluated(
    path: Path,
    settings: Mapping[str, Any],
    attacked: Adversarials,
    tolerances: Sequence[float],
    clean: Reevaluated,
    adversarial: Reevaluated,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what a model says of clean and adversarial images at E tolerances."""
    with write_hdf5(path, "reevaluated", settings, seconds=seconds, device=device) as file:
        put_images(file, attacked.index, attacked.labels)
        put(
            file,
            "success",
            attacked.success,
            units="1",
            description="an adversarial example was found",
        )
        put(file, "tolerances", np.array(tolerances), units="1", description="tau, E")
        for side, found in (("clean", clean), ("adversarial", adversarial)):
            predictions, logits = as_array(found.predictions), as_array(found.logits)
            put(file, f"{side}_predictions", predictions, units="1", description=f"{CLASS}; n E")
            put(file, f"{side}_logits", logits, units="1", description="logits, n E K")
        if adversarial.nfe is not None:
            nfe = "function evaluations of `adversarials`, n E"
            put(file, "nfe", as_array(adversarial.nfe), units="1", description=nfe)
