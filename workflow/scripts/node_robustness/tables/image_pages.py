"""What the page of one followed image shows: pictures, curves along t, and what is responsible."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.grid import paths
from node_robustness.tables.examples import as_shown, diverging, layout_note, picture
from node_robustness.tables.frame import CELL

Array = NDArray[Any]

_IMAGES = [
    *(*CELL, "page", "name", "index", "group", "headline"),
    *("responsible_start", "responsible_end", "flip_head", "flip_probe"),
    *("channels", "states", "most", "layout"),
]
_PICTURES = ["page", "part", "url", "caption"]
_CURVES = [
    *("page", "t", "l2_attack", "l2_noise", "tight"),
    *(f"{reader}_{run}" for reader in ("head", "probe") for run in ("clean", "attack", "noise")),
]
_NODES = ["page", "t", "l2"]
_CHANNELS = ["page", "channel", "share"]


@dataclass(frozen=True)
class Pages:
    """Pages of images, numbered by `page` from 1.

    Attributes:
        images: one row a page: coordinates of its cell, ``name`` (the cell's place and the image),
            ``index`` in the test set, ``group``
            (``success`` or ``failed``), ``headline``; times from which the decision differs and the
            responsible interval (NaN: none); ``states``: a picture of how far the adversarial state
            is from the clean one, the root mean square over places of ``channels`` channels
            downwards by t in [0, 1] to the right; full colour is ``most``; ``layout``: how the
            pictures show an image that is neither grey nor in colours, else empty.
        pictures: four rows a page: ``part``, ``url`` (PNG as ``data:`` address) and ``caption``.
        curves: one row a page and t: distances of the states by attack and noise, that by the
            attack at a ``tight`` tolerance, and margins of the clean decision by head and probe.
        nodes: one row a page and accepted node of the adversarial's solve, or end of a block: its
            ``t``, at most 1, and the distance there.
        channels: one row a page and channel: ``share`` of the margin that its repair restores.
    """

    images: pd.DataFrame
    pictures: pd.DataFrame
    curves: pd.DataFrame
    nodes: pd.DataFrame
    channels: pd.DataFrame

    def only(self, pages: Iterable[int]) -> "Pages":
        """Return some of the pages, with their numbers."""
        chosen = list(pages)
        return Pages(*(part[part.page.isin(chosen)] for part in self._parts()))

    def _parts(self) -> list[pd.DataFrame]:
        return [getattr(self, field.name) for field in fields(self)]


def image_pages(files: Iterable[tuple[Path | str, Path | str, Path | str]]) -> Pages:
    """Read the pages of the images whose states were kept.

    Args:
        files: Files of kind "trajectory", "attack" and "data" of every cell.

    Returns:
        The pages, in the order of the files.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    images: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    parts: list[dict[str, pd.DataFrame]] = []
    for trajectory_path, attack_path, data_path in files:
        with (
            open_hdf5(trajectory_path, "trajectory") as file,
            open_hdf5(attack_path, "attack") as attack,
            open_hdf5(data_path, "data") as data,
        ):
            settings = read_settings(file)
            where = {name: settings[name] for name in CELL}
            place = paths.fill(paths.CELL, settings)
            for kept, i in enumerate(file["kept"][:]):
                page = len(images) + 1
                image, own = _image(file, attack, data, kept, i)
                name = f"{place}/image-{image['index']}"
                images.append(where | {"page": page, "name": name} | image)
                pictures += [{"page": page} | row for row in own]
                parts.append(
                    {name: frame.assign(page=page) for name, frame in _along(file, kept, i)}
                )
    return Pages(
        pd.DataFrame(images, columns=_IMAGES).astype({"tolerance": float}),
        pd.DataFrame(pictures, columns=_PICTURES),
        *(
            pd.concat([pd.DataFrame(columns=columns, dtype=float), *(own[name] for own in parts)])
            for name, columns in (("curves", _CURVES), ("nodes", _NODES), ("channels", _CHANNELS))
        ),
    )


def _image(
    file: h5py.File, attack: h5py.File, data: h5py.File, kept: int, i: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of image i, the kept one of that number, and its pictures."""
    index, success = int(file["index"][i]), bool(file["success"][i])
    # A failed solve predicts -1, and so takes the last name.
    names = [*data["class_names"].asstr()[:], "no prediction"]
    row = int(np.flatnonzero(attack["index"][:] == index)[0])
    before = names[attack["clean_predictions"][row]]
    after = names[attack["adversarial_predictions"][row]]
    start, end = (float(bound) for bound in file["causal/responsible"][i])
    flips = {f"flip_{reader}": float(file[f"attack/flip_time/{reader}"][i]) for reader in _READERS}
    clean = as_shown(data["test/images"][index] / 255.0)
    adversarial = as_shown(attack["adversarials"][row])
    change = adversarial - clean
    size = float(np.abs(change).max())
    moved = _moved(file, kept)
    places = np.nan_to_num(file["causal/places"][kept].astype(float))
    most = float(np.abs(places).max())
    image = {
        "index": index,
        "group": "success" if success else "failed",
        "headline": _headline(index, before, after, success, (start, end), flips),
        "responsible_start": start,
        "responsible_end": end,
        **flips,
        "channels": len(moved),
        "most": float(moved.max()),
        "layout": "".join(layout_note(data["test/images"].shape[1:2])),
        "states": picture(diverging(_along_t(moved, file["t"][:])[None] / (moved.max() or 1.0))),
    }
    return image, [
        {"part": part, "url": picture(pixels), "caption": caption}
        for part, pixels, caption in (
            ("clean", clean, before),
            ("perturbation", diverging(change / (size or 1.0)), f"±{size:.2g}"),
            ("adversarial" if success else "attack failed", adversarial, after),
            ("places", diverging(places[None] / (most or 1.0)), f"±{100 * most:.2g} %"),
        )
    ]


_READERS = ("head", "probe")


def _headline(
    index: int,
    before: str,
    after: str,
    success: bool,
    interval: tuple[float, float],
    flips: dict[str, float],
) -> str:
    headline = f"Test image {index}: {before}" + (f" taken for {after}" if success else " stays so")
    times = [
        f"{flips[f'flip_{reader}']:.2g} ({reader})"
        for reader in _READERS
        if not math.isnan(flips[f"flip_{reader}"])
    ]
    if times:
        headline += f" from t = {' or '.join(times)}"
    if not math.isnan(interval[0]):
        headline += f"; responsible: t = {interval[0]:.2g} to {interval[1]:.2g}"
    return headline


def _moved(file: h5py.File, kept: int) -> Array:
    """Root mean square over the places of what the attack moved in each channel, [C, T]."""
    moved = file["states/attack"][kept].astype(float) - file["states/clean"][kept].astype(float)
    # Of a solve that failed nothing is known.
    return np.asarray(np.nan_to_num(np.sqrt((moved**2).mean(axis=(2, 3))).T))


def _along_t(values: Array, times: Array) -> Array:
    """Values [C, T] as columns of equal width over t in [0, 1]: each that of the nearest time."""
    columns = 2 * max(len(times) - 1, 1)
    middles = (np.arange(columns) + 0.5) / columns
    return values[:, np.abs(middles[:, None] - times).argmin(axis=1)]


def _along(file: h5py.File, kept: int, i: int) -> list[tuple[str, pd.DataFrame]]:
    """The curves, nodes and channels of image i, the kept one of that number."""
    curves = {"t": file["t"][:]}
    curves |= {f"l2_{pair}": file[f"{pair}/distance/l2"][i] for pair in ("attack", "noise")}
    if "attack/tight" in file:
        curves["tight"] = file["attack/tight/l2"][i]
    for reader in _READERS:
        for run in ("clean", "attack", "noise"):
            curves[f"{reader}_{run}"] = file[f"{run}/margin/{reader}"][i]
    # The steps of a residual body are its blocks.
    nodes = {"t": curves["t"], "l2": curves["l2_attack"]}
    if "attack/nodes" in file:
        own = slice(*file["attack/nodes/offsets"][i : i + 2])
        # The last step may end beyond 1, where the solution is then interpolated.
        nodes = {"t": file["attack/nodes/t"][own].clip(max=1.0), "l2": file["attack/nodes/l2"][own]}
    shares = file["causal/channels"][kept]
    return [
        ("curves", pd.DataFrame(curves)),
        ("nodes", pd.DataFrame(nodes)),
        ("channels", pd.DataFrame({"channel": np.arange(len(shares)), "share": shares})),
    ]
