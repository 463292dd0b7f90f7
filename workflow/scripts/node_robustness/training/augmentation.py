"""Data augmentation for batches of training images.

Each image of a batch has separate random numbers. They are drawn on the CPU from a given generator,
so that they are the same on every device and global state stays untouched. Colours change as in
torchvision's ColorJitter (`torchvision.transforms.v2.functional`): saturation blends an image with
its luma, hue rotates the hue in HSV.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.config.colours import check_colours
from node_robustness.config.models import Augmentation

_LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601, with the digits that torchvision uses


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Change each image at random: crop, then flip, then colours.

    The order of hue and saturation is drawn for each image.

    Args:
        images: [N, C, H, W], floating point in [0, 1].
        settings: the changes and their sizes.
        generator: on the CPU; it advances only for the changes in `settings`.

    Returns:
        New images of the same shape, in [0, 1].

    Raises:
        UserError: colours are to change, but the images do not have three channels.
    """
    check_colours("training.augmentation", "these", settings, images.shape[1])
    count, device = len(images), images.device
    if settings.crop_padding > 0:
        reach = 2 * settings.crop_padding + 1
        corner = torch.randint(reach, (2, count), generator=generator).to(device)
        images = crop(images, settings.crop_padding, corner[0], corner[1])
    if settings.horizontal_flip:
        images = flip(images, (torch.rand(count, generator=generator) < 0.5).to(device))
    if settings.hue > 0 or settings.saturation > 0:
        draws = torch.rand(3, count, generator=generator).to(device)
        turn = settings.hue * (2 * draws[0] - 1)
        factor = 1 + settings.saturation * (2 * draws[1] - 1)
        hue_first = draws[2] < 0.5
        # A factor of exactly 1 changes nothing, so that images need not be sorted by their order.
        images = scale_saturation(images, torch.where(hue_first, 1.0, factor))
        if settings.hue > 0:
            images = turn_hue(images, turn)
        images = scale_saturation(images, torch.where(hue_first, factor, 1.0))
    return images


def crop(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad each image with zeros on all sides and cut out a window of the old size.

    Args:
        images: [N, C, H, W].
        padding: pixels on each side.
        top: first row of each window in the padded image, int64 [N] in [0, 2 * padding].
        left: first column of each window, int64 [N] in the same range.

    Returns:
        [N, C, H, W].
    """
    count, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    return padded[
        torch.arange(count, device=device)[:, None, None, None],
        torch.arange(channels, device=device)[None, :, None, None],
        rows[:, None, :, None],
        columns[:, None, None, :],
    ]


def flip(images: Tensor, which: Tensor) -> Tensor:
    """Mirror the images [N, C, H, W] horizontally where `which`, bool [N], is true."""
    return torch.where(which[:, None, None, None], images.flip(3), images)


def scale_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its luma: factor 0 is grey, 1 the image, above 1 more colourful.

    Args:
        images: RGB in [0, 1], [N, 3, H, W].
        factor: [N], 0 or more.

    Returns:
        Images clipped to [0, 1].
    """
    weights = torch.tensor(_LUMA, dtype=images.dtype, device=images.device)
    luma = (images * weights[:, None, None]).sum(1, keepdim=True)
    share = factor.to(images.dtype)[:, None, None, None]
    return (share * images + (1 - share) * luma).clamp(0, 1)


def turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue of each image.

    Args:
        images: RGB in [0, 1], [N, 3, H, W].
        turn: [N], in turns of the colour circle: 0 and 1 change nothing, 1/3 maps red to green.

    Returns:
        Images in [0, 1], [N, 3, H, W].
    """
    hue, saturation, value = rgb_to_hsv(images).unbind(1)
    hue = (hue + turn.to(images.dtype)[:, None, None]).remainder(1)
    return hsv_to_rgb(torch.stack((hue, saturation, value), 1))


def rgb_to_hsv(images: Tensor) -> Tensor:
    """Convert RGB in [0, 1] to hue, saturation and value in [0, 1], [N, 3, H, W].

    Grey has hue 0 and black also saturation 0, as in Python's `colorsys`.
    """
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    grey = chroma == 0
    divisor = torch.where(grey, 1, chroma)
    sixths = torch.where(
        value == red,
        ((green - blue) / divisor).remainder(6),
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    # Grey has chroma 0 and so hue 0 already; only the division by the value needs care.
    saturation = chroma / torch.where(grey, 1, value)
    return torch.stack((sixths / 6, saturation, value), 1)


def hsv_to_rgb(images: Tensor) -> Tensor:
    """The inverse of `rgb_to_hsv`, for hues in [0, 1]."""
    hue, saturation, value = images.unbind(1)
    # Each channel is `value` minus up to saturation * value, piecewise linear in six parts of hue.
    offset = torch.tensor((5.0, 3.0, 1.0), dtype=images.dtype, device=images.device)
    place = (offset[:, None, None] + 6 * hue[:, None]).remainder(6)
    fall = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * fall)
