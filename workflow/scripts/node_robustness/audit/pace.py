"""How long the paper's own procedure takes: its attack as its authors run it.

One image at a time, solved and differentiated by torchdiffeq. It is a little faster than theirs:
the pass that tells whether an iterate is adversarial serves the next gradient too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from node_robustness.attacks.engine import attack
from node_robustness.attacks.method import Method
from node_robustness.files.hdf5 import put, write_hdf5

# Types alone: a change of one stage's code is none of the other stages' business.
if TYPE_CHECKING:
    pass
from node_robustness.files.records import Array, as_array, put_images


@dataclass(frozen=True)
class Pace:
    """What each of n images took.

    Attributes:
        seconds: wall time, the clean pass included, float64 [n].
        iterations: gradient steps, int64 [n]; 0 where the clean prediction is wrong.
    """

    seconds: Tensor
    iterations: Tensor


def measure(
    model: torch.nn.Module,
    images: Tensor,
    labels: Tensor,
    method: Method,
    *,
    index: Sequence[int],
    seed: int,
    progress: Callable[[int], object] | None = None,
) -> Pace:
    """Attack images one at a time and take the time.

    Args:
        model: what `attacks.gradients.with_gradient` makes of a classifier that torchdiffeq solves.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        labels: int64 [n].
        method: the attack.
        index: rows of the images in the test set, [n].
        seed: of what the attack draws.
        progress: called with 1 after each image.
    """
    seconds, iterations = [], []

    def one(row: int) -> int:
        found = attack(
            model,
            images[row : row + 1],
            labels[row : row + 1],
            method,
            index=index[row : row + 1],
            seed=seed,
            batch_size=1,
        )
        return int(found.iterations)  # which also waits for a GPU

    one(0)  # what is done once only, by libraries and the allocator, is not the procedure's
    for row in range(len(images)):
        started = time.perf_counter()
        iterations.append(one(row))
        seconds.append(time.perf_counter() - started)
        if progress is not None:
            progress(1)
    return Pace(torch.tensor(seconds, dtype=torch.float64), torch.tensor(iterations))


def write_pace(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Pace,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write what the paper's procedure took for the test images `index`, [n]."""
    with write_hdf5(path, "pace", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        put(
            file, "seconds", as_array(found.seconds), units="s", description="wall time of an image"
        )
        put(
            file,
            "iterations",
            as_array(found.iterations.int()),
            units="1",
            description="gradient steps it took; 0: the clean prediction is wrong",
        )
