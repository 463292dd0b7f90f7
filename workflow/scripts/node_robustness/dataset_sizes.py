"""How large the known datasets are, before any of their files is there.

Read whenever Snakemake parses the workflow: like `config`, this module must import quickly.
"""

from dataclasses import dataclass
from math import isqrt

from node_robustness.config import Dataset


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


def size_of(dataset: Dataset) -> Size | None:
    """The size of all its images; None of data of one's own, which are counted when prepared."""
    return _SIZES.get(dataset.source)


def image_size(dataset: Dataset) -> tuple[int, int] | None:
    """Height and width of its images; None of data of one's own that do not say."""
    if dataset.image_shape is not None:
        return dataset.image_shape[1:]
    size = size_of(dataset)
    return None if size is None else (isqrt(size.pixels), isqrt(size.pixels))


def images_to_test(dataset: Dataset) -> int | None:
    """How many test images are used; None where all are, and their number is not known yet."""
    if dataset.subset.test is not None:
        return dataset.subset.test
    size = size_of(dataset)
    return None if size is None else size.test
