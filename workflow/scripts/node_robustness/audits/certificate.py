"""Certificates: which images an own model itself proves to be robust.

A certificate is a lower bound of robust accuracy, and what attacks leave an upper bound. What the
proof rests on is the author's affair; here every certified image is held against every adversarial
example that is known of it (`verdict.certificates`).
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import Array, as_array, put_images
from node_robustness.models.own.modules import isolated, one_line


@torch.no_grad()
def certify(
    module: nn.Module,
    method: str,
    images: Tensor,
    labels: Tensor,
    norm: str,
    epsilon: float,
    key: str,
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """Ask a module which images it classifies correctly whatever the perturbation.

    Args:
        module: the user's, in evaluation mode.
        method: the name of its method, which is called with images, labels, `linf` or `l2`, and an
            epsilon in that norm.
        images: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n].
        norm: `linf`, `l2` or `l2_rms`, which the method gets as `l2`.
        epsilon: in units of the norm.
        key: of the configuration, for messages.
        batch_size: images at a time.
        progress: called with the number of images after each batch.

    Returns:
        bool [n].

    Raises:
        UserError: there is no such method, it fails, or what it returns is no truth value an image.
    """
    if not callable(getattr(module, method, None)):
        raise UserError(
            f"{key}: {type(module).__name__} has no method {method}: correct the key, or remove it"
        )
    if norm == "l2_rms":
        norm, epsilon = "l2", epsilon * math.sqrt(images[0].numel())
    found = []
    for first in range(0, len(images), batch_size):
        some = slice(first, first + batch_size)
        with isolated(), one_line(f"{key}: {method} failed"):
            proven = getattr(module, method)(images[some], labels[some], norm, epsilon)
        expected = images[some].shape[:1]
        if not isinstance(proven, Tensor) or proven.dtype != torch.bool or proven.shape != expected:
            what = (
                f"{proven.dtype} {list(proven.shape)}"
                if isinstance(proven, Tensor)
                else type(proven).__name__
            )
            raise UserError(
                f"{key}: {method} returns {what}: it must return torch.bool {list(expected)}, "
                "one truth value an image"
            )
        found.append(proven)
        if progress is not None:
            progress(len(proven))
    return torch.cat(found)


def write_certificate(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    certified: Tensor,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write which test images, rows `index`, [n], are certified.

    Args:
        path: see `files.hdf5.write_hdf5`.
        settings: see `files.hdf5.write_hdf5`.
        index: rows of the images in the test set.
        labels: [n].
        certified: bool [n].
        seconds: wall time.
        device: that computed it.
    """
    with write_hdf5(path, "certified", settings, seconds=seconds, device=device) as file:
        put_images(file, index, labels)
        put(
            file,
            "certified",
            as_array(certified),
            units="1",
            description="no perturbation within epsilon misleads the model, by its own proof",
        )
