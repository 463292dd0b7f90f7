"""What the page of one followed image shows: pictures, curves along t, shares and patches."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.grid import paths
from node_robustness.tables.examples import as_shown, diverging, layout_note, picture
from node_robustness.tables.frame import CELL, tau_of

Array = NDArray[Any]

_IMAGES = [
    *(*CELL, "tau", "page", "name", "index", "group", "headline"),
    *("flip_head", "flip_probe", "undefined", "unpatched"),
    *("channels", "states", "most", "layout"),
]
_PICTURES = ["page", "part", "url", "caption"]
_CURVES = [
    *("page", "t", "l2_attack", "l2_noise", "tight"),
    *(f"{reader}_{run}" for reader in ("head", "probe") for run in ("clean", "attack", "noise")),
]
_NODES = ["page", "t", "l2"]
_CHANNELS = ["page", "channel", "share"]
_SHARES = ["page", "player", "strong", "noise", "swapped"]
_PATCHES = ["page", "start", "length", "part", "repaired", "inserted"]


PERTURBATIONS = {"strong": "adversarial", "noise": "noise", "swapped": "another image"}
"""The perturbations whose loss of margin is shared out, and their names for people."""


@dataclass(frozen=True)
class Pages:
    """Pages of images, numbered by `page` from 1.

    Attributes:
        images: one row a page: coordinates of its cell, ``tau`` (`frame.tau_of`), ``name`` (the
            cell's place and the image), ``index`` in the test set, ``group`` (``success`` or
            ``failed``), ``headline``; times from which the decision differs (NaN:
            none); ``undefined`` and ``unpatched``: in words, which shares are not defined and that
            no patch is determined, else empty; ``states``: a picture of how far the attacked state
            is from the clean one, the root mean square over places of ``channels`` channels
            downwards by t in [0, 1] to the right; full colour is ``most``; ``layout``: how the
            pictures show an image that is neither grey nor in colours, else empty.
        pictures: four rows a page: ``part``, ``url`` (PNG as ``data:`` address) and ``caption``.
        curves: one row a page and t: distances of the states by attack and noise, that by the
            attack at a ``tight`` tolerance, and margins of the clean decision by head and probe.
        nodes: one row a page and accepted node of the adversarial's solve, or end of a block: its
            ``t``, at most 1, and the distance there.
        channels: one row a page and channel: ``share`` of the margin that its repair restores.
        shares: one row a page and ``player``, h(0) or a part of t or a block: its share, in logits,
            in the loss of margin by the adversarial example of full strength (``strong``), by
            ``noise`` and by the difference of another image (``swapped``).
        patches: one row a page and interval: its ``start`` and ``length``, the length of a
            ``part``, and whether its repair restores the decision (``repaired``) and its insertion
            takes it away (``inserted``): 1 yes, 0 no, -1 undetermined.
    """

    images: pd.DataFrame
    pictures: pd.DataFrame
    curves: pd.DataFrame
    nodes: pd.DataFrame
    channels: pd.DataFrame
    shares: pd.DataFrame
    patches: pd.DataFrame

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
            where["tau"] = tau_of(settings["tolerance"], "nfe_clean" in attack)
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
            for name, columns in (
                ("curves", _CURVES),
                ("nodes", _NODES),
                ("channels", _CHANNELS),
                ("shares", _SHARES),
                ("patches", _PATCHES),
            )
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
        "headline": _headline(index, before, after, success, flips)
        + _at_full_strength(float(file["shares/margin"][i]), float(file["strong/margin"][i])),
        **flips,
        "undefined": _undefined(file, i),
        "unpatched": "" if (file["causal/repaired"][i] >= 0).any() else "no interval was patched",
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
            ("places", diverging(places[None] / (most or 1.0)), f"±{100 * most:.3g} %"),
        )
    ]


_READERS = ("head", "probe")


def _headline(index: int, before: str, after: str, success: bool, flips: dict[str, float]) -> str:
    headline = f"Test image {index}: {before}" + (f" taken for {after}" if success else " stays so")
    times = [
        f"{flips[f'flip_{reader}']:.2g} ({reader})"
        for reader in _READERS
        if not math.isnan(flips[f"flip_{reader}"])
    ]
    if times:
        headline += f" from t = {' or '.join(times)}"
    return headline


def _at_full_strength(clean: float, strong: float) -> str:
    if math.isnan(strong):
        return ". At full strength every solve failed"
    return f". Margin: {clean:.2g} clean, {strong:.2g} at full strength"


def _undefined(file: h5py.File, i: int) -> str:
    names = [
        name for key, name in PERTURBATIONS.items() if not np.isfinite(_shares(file, key, i)).all()
    ]
    return f"not defined: {', '.join(names)}" if names else ""


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
    channels = file["causal/channels"][kept]
    return [
        ("curves", pd.DataFrame(curves)),
        ("nodes", pd.DataFrame(nodes)),
        ("channels", pd.DataFrame({"channel": np.arange(len(channels)), "share": channels})),
        ("shares", _shares_of(file, i)),
        ("patches", _patches_of(file, i)),
    ]


def _shares(file: h5py.File, perturbation: str, i: int) -> Array:
    """The shares of h(0) and of all parts in the loss of margin by a perturbation, [1 + K]."""
    group = file[f"shares/{perturbation}"]
    return np.append(group["start"][i], group["parts"][i])


def _shares_of(file: h5py.File, i: int) -> pd.DataFrame:
    ends = file["shares/ends"][:]
    if file.attrs["axis"] == "depth":
        parts = [f"block {number}" for number in range(1, len(ends))]
    else:
        parts = [f"{start:.2g}–{end:.2g}" for start, end in pairwise(ends)]
    shares = {name: _shares(file, name, i) for name in PERTURBATIONS}
    return pd.DataFrame({"player": ["h(0)", *parts], **shares})


def _patches_of(file: h5py.File, i: int) -> pd.DataFrame:
    start, end = file["causal/intervals"][:].T
    return pd.DataFrame(
        {
            "start": start,
            "length": end - start,
            "part": (end - start).min(initial=1.0),
            "repaired": file["causal/repaired"][i],
            "inserted": file["causal/inserted"][i],
        }
    )
