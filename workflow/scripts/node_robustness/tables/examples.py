"""A few adversarial images, ready to be shown: pictures as PNG inside data addresses."""

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.tables.frame import tau_of

_BLUE = np.array([33, 102, 172]) / 255
_RED = np.array([178, 24, 43]) / 255

SHOWN_AS_THEY_ARE = (1, 3)
"""Numbers of channels that are grey or red, green and blue."""

# Small images are enlarged here, because not every viewer enlarges pixels to squares.
_SMALLEST_PICTURE = 96

_COLUMNS = [
    *("dataset", "model", "seed", "tolerance", "tau", "attack", "norm", "epsilon", "row"),
    "index",
    *("clean", "perturbation", "adversarial"),
    *("clean_caption", "perturbation_caption", "adversarial_caption"),
    "channels",
]


def example_table(files: Iterable[tuple[Path | str, Path | str]], each: int = 4) -> pd.DataFrame:
    """Collect the first successes of attacks.

    Args:
        files: Pairs of a file of kind "attack" and the file of kind "data" that it was made from.
        each: How many successes to take of each attack, at most.

    Returns:
        One row a success, numbered by ``row`` within its file: the coordinates of the cell, with
        ``tau`` (`frame.tau_of`); ``index`` of the image in the test set; ``clean``,
        ``perturbation`` and ``adversarial``: PNG pictures as ``data:`` addresses; and what to write
        below each: the predicted class, and for the perturbation the intensity (of [0, 1]) that
        full colour stands for; the number of ``channels`` of the image.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    rows = []
    for attack_path, data_path in files:
        with open_hdf5(attack_path, "attack") as attack, open_hdf5(data_path, "data") as data:
            settings = read_settings(attack)
            where = {name: settings[name] for name in _COLUMNS if name in settings}
            where["tau"] = tau_of(settings["tolerance"], "nfe_clean" in attack)
            # A failed solve predicts -1, and so takes the last name.
            names = np.array([*data["class_names"].asstr()[:], "no prediction"], object)
            taken = np.flatnonzero(attack["success"][:])[:each]
            index = attack["index"][:][taken]
            clean = [as_shown(data["test/images"][i] / 255.0) for i in index]
            adversarial = [as_shown(image) for image in attack["adversarials"][:][taken]]
            before = names[attack["clean_predictions"][:][taken]]
            after = names[attack["adversarial_predictions"][:][taken]]
            pairs = list(zip(clean, adversarial, strict=True))
            scale = max((float(np.abs(a - c).max()) for c, a in pairs), default=0.0) or 1.0
            for row, (c, a) in enumerate(pairs):
                rows.append(
                    where
                    | {
                        "row": row,
                        "index": int(index[row]),
                        "clean": picture(c),
                        "perturbation": picture(diverging((a - c) / scale)),
                        "adversarial": picture(a),
                        "clean_caption": before[row],
                        "perturbation_caption": f"±{scale:.2g}",
                        "adversarial_caption": after[row],
                        "channels": data["test/images"].shape[1],
                    }
                )
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"tolerance": float})


def as_shown(image: NDArray[Any]) -> NDArray[np.float64]:
    """Lay out an image [C,H,W] as one that a screen can show.

    Returns:
        Grey [1,H,W] and colour [3,H,W] images as they are. No other number of channels has a
        meaning on a screen, the fourth is not transparency: these stand side by side, in rows, as
        one grey image, the last row filled up with zeros.
    """
    channels, height, width = image.shape
    if channels in SHOWN_AS_THEY_ARE:
        return image.astype(float)
    across = math.ceil(math.sqrt(channels))
    down = math.ceil(channels / across)
    tiles = np.zeros((down * across, height, width))
    tiles[:channels] = image
    rows = tiles.reshape(down, across, height, width).swapaxes(1, 2)
    return rows.reshape(1, down * height, across * width)


def layout_note(channels: Iterable[int]) -> list[str]:
    """What a figure says of images that are not shown as they are; nothing if all are."""
    others = sorted(set(channels) - set(SHOWN_AS_THEY_ARE))
    counts = " or ".join(map(str, others))
    return [f"Images of {counts} channels: each in grey, side by side."] if others else []


def diverging(change: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give changes [C,H,W] in [-1, 1] colours [3,H,W]: none is white, or grey in colour images."""
    if len(change) != 1:
        return 0.5 + change / 2
    amount, ends = np.abs(change), np.where(change > 0, _RED[:, None, None], _BLUE[:, None, None])
    colours: NDArray[np.float64] = 1 + amount * (ends - 1)
    return colours


def picture(image: NDArray[np.float64]) -> str:
    """Encode an image as a ``data:`` address of a PNG.

    Args:
        image: [1,H,W] or [3,H,W], in [0, 1].

    Returns:
        The address; the longer side of the picture has at least 96 pixels.
    """
    pixels = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    times = math.ceil(_SMALLEST_PICTURE / max(pixels.shape[1:]))
    pixels = pixels.repeat(times, axis=1).repeat(times, axis=2)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)).save(
        stream, "png", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
