"""How many images there are, as far as that is known before they are read.

Read whenever Snakemake parses the workflow: like `config`, this module must import quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_robustness.config.datasets import Dataset

# Grey, colours, colours with transparency; and a width at which these are no channels.
_CHANNELS, _NARROWEST = (1, 3, 4), 8

FEWEST_TO_PROBE = 20
"""Validation images without which there is nothing to fit a probe to."""


@dataclass(frozen=True)
class Size:
    """Images for training, images for testing; channels and pixels of a square one."""

    train: int
    test: int
    channels: int
    pixels: int


_SIZES = {
    "digits": Size(1438, 359, 1, 8 * 8),
    "mnist": Size(60_000, 10_000, 1, 28 * 28),
    "fashion_mnist": Size(60_000, 10_000, 1, 28 * 28),
    "cifar10": Size(50_000, 10_000, 3, 32 * 32),
    "cifar100": Size(50_000, 10_000, 3, 32 * 32),
}


def size_of(dataset: "Dataset") -> Size | None:
    """The size of all its images; None of your own data, which are counted when prepared."""
    return _SIZES.get(dataset.source)


def image_shape(dataset: "Dataset") -> tuple[int, int, int] | None:
    """Channels, height and width of its images; None of your own data that do not say."""
    if dataset.image_shape is not None:
        return dataset.image_shape
    size = size_of(dataset)
    return None if size is None else (size.channels, isqrt(size.pixels), isqrt(size.pixels))


def check_order(where: str, shape: Sequence[int]) -> None:
    """Refuse a shape of images whose channels come last: the values would be read across pixels.

    Args:
        where: the key or the file that says so.
        shape: channels, height and width, as they are written.

    Raises:
        ValueError: its first two numbers are those of a picture, its last one of channels.
    """
    *rest, last = shape
    if last in _CHANNELS and min(rest) >= _NARROWEST:
        raise ValueError(
            f"{where}: {list(shape)} has its channels last: give the channels first, then height "
            f"and width, {[last, *rest]}, in the file too"
        )


def images_to_test(dataset: "Dataset") -> int | None:
    """How many test images are used; None where all are, and their number is not known yet."""
    if dataset.subset.test is not None:
        return dataset.subset.test
    size = size_of(dataset)
    return None if size is None else size.test


def validation_images(validation: float, train: int) -> int:
    """How many of so many training images are validation images: a share (below 1) or a number."""
    return round(validation * train if validation < 1 else validation)


def held_out(dataset: "Dataset", train: int) -> int:
    """How many of so many training images a dataset holds out: one at least unless it says how."""
    count = validation_images(dataset.validation, train)
    return count if "validation" in dataset.model_fields_set else max(count, 1)
