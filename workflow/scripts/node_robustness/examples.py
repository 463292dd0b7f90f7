"""A few adversarial images, ready to be shown: pictures as PNG inside data addresses."""

import base64
import io
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from node_robustness.storage import open_hdf5, read_settings

_BLUE = np.array([33, 102, 172]) / 255
_RED = np.array([178, 24, 43]) / 255

# Small images are enlarged here, because not every viewer enlarges pixels to squares.
_SMALLEST_PICTURE = 96

_COLUMNS = [
    *("dataset", "model", "seed", "tolerance", "attack", "norm", "epsilon", "row", "index"),
    *("clean", "perturbation", "adversarial"),
    *("clean_caption", "perturbation_caption", "adversarial_caption"),
]


def example_table(files: Iterable[tuple[Path | str, Path | str]], each: int = 4) -> pd.DataFrame:
    """Collect the first successes of attacks.

    Args:
        files: Pairs of a file of kind "attack" and the file of kind "data" that it was made from.
        each: How many successes to take of each attack, at most.

    Returns:
        One row a success, numbered by ``row`` within its file: the coordinates of the cell;
        ``index`` of the image in the test set; ``clean``, ``perturbation`` and ``adversarial``:
        PNG pictures as ``data:`` addresses; and what to write below each: the predicted class,
        and for the perturbation the intensity (of [0, 1]) that full colour stands for.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    rows = []
    for attack_path, data_path in files:
        with open_hdf5(attack_path, "attack") as attack, open_hdf5(data_path, "data") as data:
            settings = read_settings(attack)
            where = {name: settings[name] for name in _COLUMNS if name in settings}
            # A failed solve predicts -1, and so takes the last name.
            names = np.array([*data["class_names"].asstr()[:], "no prediction"], object)
            taken = np.flatnonzero(attack["success"][:])[:each]
            index = attack["index"][:][taken]
            clean = [data["test/images"][i] / 255.0 for i in index]
            adversarial = attack["adversarials"][:][taken].astype(float)
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
                    }
                )
    return pd.DataFrame(rows, columns=_COLUMNS).astype({"tolerance": float})


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
        The address; the picture has at least 96 pixels a side.
    """
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    times = math.ceil(_SMALLEST_PICTURE / min(pixels.shape[1:]))
    pixels = pixels.repeat(times, axis=1).repeat(times, axis=2)
    stream = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)).save(
        stream, "png", optimize=True
    )
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
