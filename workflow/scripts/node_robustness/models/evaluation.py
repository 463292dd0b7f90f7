"""Clean evaluation: predictions, and the solver's cost for each image."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from node_robustness.data.prepared import Split, load_split
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import put, write_hdf5
from node_robustness.files.records import CLASS, STATUS, Array, as_array, put_images, put_optional
from node_robustness.models.network import Network
from node_robustness.models.predictions import classes

_COMPARED = 64  # images whose logits are compared
_SAME = 1e-6  # logits that differ by less than this share of the largest one count as the same


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a model for n images, and their cost.

    Attributes:
        logits: float32 [n, K].
        predictions: int64 [n]; `predictions.NO_CLASS` where the solve failed.
        nfe: function evaluations of each image, int32 [n]; None without an ODE.
        status: the `ode.solve.Status` of each image, int64 [n]; None without an ODE.
        nfe_by_solve: function evaluations of each solve, int32 [n, S]; None for a single one.
        own_tolerances: see `Network.own_tolerances`.
    """

    logits: Tensor
    predictions: Tensor
    nfe: Tensor | None
    status: Tensor | None
    nfe_by_solve: Tensor | None = None
    own_tolerances: tuple[float, float] | None = None


def test_images(
    data: Path, count: int | None, device: torch.device
) -> tuple[Split, Tensor, Tensor]:
    """The first test images of a prepared dataset; every cell uses the same ones.

    Args:
        data: a data.h5 file.
        count: number of images; None for all.
        device: of the returned tensors.

    Returns:
        The split, its images as float32 [n, C, H, W] in [0, 1], and its labels, int64 [n].

    Raises:
        UserError: the file is not usable, or has fewer images.
    """
    return _tensors(load_split(data, "test", count), device)


def measured_images(data: Path, most: int, device: torch.device) -> tuple[Split, Tensor, Tensor]:
    """The first `most` test images, or all where there are fewer; see `test_images`."""
    return _tensors(load_split(data, "test", most, or_fewer=True), device)


def _tensors(split: Split, device: torch.device) -> tuple[Split, Tensor, Tensor]:
    images = torch.from_numpy(split.images).to(device) / 255
    return split, images, torch.from_numpy(split.labels).to(device)


@torch.no_grad()
def evaluate(
    model: Network,
    images: Tensor,
    *,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Classify images; the solver treats each one separately.

    Args:
        model: in evaluation mode.
        images: float [n, C, H, W] in [0, 1], n >= 1.
        batch_size: images per batch; it bounds the memory and does not change the result.
        progress: called with the number of images of each finished batch.
    """
    logits, nfe, status, by_solve = [], [], [], []
    for batch in torch.split(images, batch_size):
        logits.append(model(batch))
        if model.nfe is not None and model.status is not None:
            nfe.append(model.nfe)
            status.append(model.status)
        if model.nfe_by_solve is not None:
            by_solve.append(model.nfe_by_solve)
        if progress is not None:
            progress(len(batch))
    everything = torch.cat(logits)
    return Evaluation(
        everything,
        classes(everything),
        torch.cat(nfe) if nfe else None,
        torch.cat(status) if status else None,
        torch.cat(by_solve) if by_solve else None,
        model.own_tolerances,
    )


def check_that_answers_differ(model: Network, images: Tensor, where: str, remedy: str) -> None:
    """Refuse a network that gives all images the same logits.

    No attack can change its predictions, so it would look robust.

    Args:
        model: in evaluation mode.
        images: uint8 [n, C, H, W]; if they are all equal, nothing is checked.
        where: names the network in the message.
        remedy: for the message.

    Raises:
        UserError: the logits of all images are the same.
    """
    some = images[:_COMPARED].to(model.device)
    if bool((some == some[:1]).all()):
        return
    logits = evaluate(model, some / 255, batch_size=_COMPARED).logits
    if bool((logits - logits[:1]).abs().max() <= _SAME * logits.abs().max()):
        raise UserError(
            f"{where}: the network gives {len(some)} different images the same logits, so that no "
            f"attack can change them: {remedy}"
        )


def write_clean(
    path: Path,
    settings: Mapping[str, Any],
    index: Array,
    labels: Array,
    found: Evaluation,
    *,
    seconds: float,
    device: str,
) -> None:
    """Write a clean.h5.

    Args:
        path: the file to write.
        settings: of the cell, for the file's attributes.
        index: rows of the images in the test set, int64 [n].
        labels: int64 [n].
        found: of these images.
        seconds: wall time.
        device: that computed it.
    """
    own = dict(zip(("own_rtol", "own_atol"), found.own_tolerances or (), strict=False))
    with write_hdf5(path, "clean", settings, seconds=seconds, device=device, **own) as file:
        put_images(file, index, labels)
        put(file, "predictions", as_array(found.predictions), units="1", description=CLASS)
        put(file, "logits", as_array(found.logits), units="1", description="logits, n K")
        put_optional(file, "nfe", found.nfe, "function evaluations of the forward solve")
        put_optional(file, "nfe_by_solve", found.nfe_by_solve, "the same of each of several solves")
        put_optional(file, "status", found.status, STATUS)
