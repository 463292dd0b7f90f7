"""How many images there are, as far as that is known before they are read.

Read whenever Snakemake parses the workflow: like `config`, this module must import quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, isqrt(self.pixels), isqrt(self.pixels)


_SIZES = {
    "digits": Size(1438, 359, 1, 8 * 8),
    "mnist": Size(60_000, 10_000, 1, 28 * 28),
    "fashion_mnist": Size(60_000, 10_000, 1, 28 * 28),
    "cifar10": Size(50_000, 10_000, 3, 32 * 32),
    "cifar100": Size(50_000, 10_000, 3, 32 * 32),
}


def size_of(source: str) -> Size | None:
    """The size of a known dataset; None of your own data, which are counted when prepared."""
    return _SIZES.get(source)


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


def validation_images(validation: float, train: int) -> int:
    """How many of so many training images are validation images: a share (below 1) or a number."""
    return round(validation * train if validation < 1 else validation)


def held_out(validation: float, train: int, *, written: bool) -> int:
    """How many of so many training images are held out to choose a model.

    Args:
        validation: a share (below 1) or a number.
        train: how many training images there are.
        written: whether the configuration says so; at least one image if not.
    """
    count = validation_images(validation, train)
    return count if written else max(count, 1)
