"""What is left of an image when the body of a model begins, and which images are too small.

GroupNorm normalises the values of a group by their mean and deviation. Of one value it makes a
constant, whatever the image, and of two little more than a sign, whose gradient is nearly zero:
such a network does not learn, and what it seems to withstand is no robustness. Like `config`, this
module must import quickly.
"""

from itertools import count, product
from math import prod

from node_robustness.errors import UserError

MAX_GROUPS = 32
"""Most groups of a group normalisation."""

FEWEST_VALUES = 3
"""Values in a group of GroupNorm without which a network does not learn."""

STEM = 64
"""Channels of the first layers of the residual downsampling."""


def groups(channels: int) -> int:
    """The groups of a group normalisation."""
    return min(MAX_GROUPS, channels)


def state_size(downsampling: str, height: int, width: int) -> tuple[int, int]:
    """Height and width of h(t), 0 where the layers find nothing to read."""
    if downsampling == "convolution":
        return height // 2, width // 2
    # A convolution without padding, then two that halve, rounding up.
    return _parts(height - 2, 4), _parts(width - 2, 4)


def fewest_values(downsampling: str, filters: int, height: int, width: int) -> int:
    """The values in the smallest group of any GroupNorm of a model, 0 if nothing is left."""
    fewest = filters // groups(filters) * prod(state_size(downsampling, height, width))
    if downsampling == "convolution":
        return fewest
    between = _parts(height - 2, 2) * _parts(width - 2, 2)
    return min(fewest, STEM // groups(STEM) * between)


def smallest_images(downsampling: str, filters: int, height: int, width: int) -> tuple[int, int]:
    """The smallest images that a model can learn from and that are no smaller on either side.

    Square ones if these are square.
    """
    square = next(side for side in count(1) if _learns(downsampling, filters, side, side))
    if height == width:
        return max(height, square), max(height, square)
    # A state of one row needs as many columns as a square one has values.
    more = FEWEST_VALUES * square
    larger = product(range(height, height + more), range(width, width + more))
    return min((size for size in larger if _learns(downsampling, filters, *size)), key=prod)


def check_images(
    where: str, images: str, downsampling: str, filters: int, height: int, width: int
) -> None:
    """Refuse images from which a model cannot learn.

    Args:
        where: the key of the model, for the message.
        images: whose images they are, for the message.
        downsampling: see `classifier.Spec`.
        filters: see `classifier.Spec`.
        height: of the images.
        width: of the images.

    Raises:
        UserError: with the smallest size that works, and what else would help.
    """
    values = fewest_values(downsampling, filters, height, width)
    if values >= FEWEST_VALUES:
        return
    least = _size(*smallest_images(downsampling, filters, height, width))
    remedies = [f"give it images of {least} or larger"]
    wider = (f for f in (64, 96) if f > filters and _learns(downsampling, f, height, width))
    remedies += [f"set filters to {more}" for more in wider][:1]
    others = (d for d in ("residual", "convolution") if _learns(d, filters, height, width))
    remedies += [f"set downsampling to {other}" for other in others]
    why = (
        f"GroupNorm has {values} of {FEWEST_VALUES} values in a group"
        if values
        else "its downsampling leaves nothing of them"
    )
    raise UserError(
        f"{where}: cannot learn from {images}, which are {_size(height, width)} (height x width): "
        f"{why}: {', or '.join(remedies)}"
    )


def _learns(downsampling: str, filters: int, height: int, width: int) -> bool:
    return fewest_values(downsampling, filters, height, width) >= FEWEST_VALUES


def _size(height: int, width: int) -> str:
    return f"{height}x{width}"


def _parts(length: int, size: int) -> int:
    """How many parts of a size a length has, the last one begun."""
    return -(-length // size)
