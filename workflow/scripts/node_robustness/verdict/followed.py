"""What was measured of the dynamics of one network in one setting, and windows of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from node_robustness.perturbations.sizes import Bools, Floats
from node_robustness.tables.frame import CELL, place, with_results
from node_robustness.tables.shares import even_positions
from node_robustness.trajectories.layout import SHARED

STRONG, CONTROLS = SHARED[0], SHARED[1:]
"""The perturbation that claims are about, and those that they are compared with."""


Half = Literal["all", "first", "second"]
"""Of the images that were followed: one half chooses a window, the other tests it."""

ALL: Half = "all"
FIRST: Half = "first"
SECOND: Half = "second"


class Window(NamedTuple):
    """A run of neighbouring parts of the body: those from `first` up to, without, `stop`."""

    first: int
    stop: int


START = None
"""Stands for h(0) where a window may be: all that comes before the body."""

Player = Window | None


def windows(parts: int) -> list[Window]:
    """All windows of at most a third of all parts, at least one part, the shortest first."""
    longest = max(1, parts // 3)
    return [
        Window(first, first + length)
        for length in range(1, longest + 1)
        for first in range(parts - length + 1)
    ]


@dataclass(frozen=True)
class Followed:
    """One network under one attack with one norm and epsilon.

    Attributes:
        where: the coordinates of the cell.
        ends: [K + 1], where the K parts of the body begin and end in t.
        misled: bool [N], whether the strong adversarial example misleads the network, by a solve
            that did not fail.
        shares: by perturbation [N, 1 + K], the shares of h(0) and of the parts.
        losses: by perturbation [N].
        patched: the windows that were patched.
        repaired: int8 [N, windows]: 1 restored, 0 not, -1 not tried.
        inserted: the same of the insertion.
    """

    where: dict[str, Any]
    ends: Floats
    misled: Bools
    shares: dict[str, Floats]
    losses: dict[str, Floats]
    patched: tuple[Window, ...]
    repaired: NDArray[np.int8]
    inserted: NDArray[np.int8]

    @cached_property
    def _halves(self) -> dict[Half, Bools]:
        even = even_positions(len(self.misled))
        return {FIRST: even, SECOND: ~even, ALL: np.ones_like(even)}

    def among(self, half: Half) -> Bools:
        """The images of a half, or all."""
        return self._halves[half]

    def of(self, player: Player, perturbation: str, half: Half) -> tuple[Floats, Floats]:
        """The shares of a player and the losses, of the misled images of a half."""
        rows = self.misled & self.among(half)
        first, stop = (0, 1) if player is START else (1 + player.first, 1 + player.stop)
        own = self.shares[perturbation][rows, first:stop].sum(axis=1)
        return own, self.losses[perturbation][rows]

    def unshared(self, perturbation: str, half: Half) -> Floats:
        """The losses minus the sums of all shares, of the misled images of a half."""
        rows = self.misled & self.among(half)
        missing: Floats = self.losses[perturbation][rows] - self.shares[perturbation][rows].sum(1)
        return missing

    def times(self, player: Player) -> tuple[float, float]:
        """Where a player begins and ends in t."""
        if player is START:
            return 0.0, 0.0
        return float(self.ends[player.first]), float(self.ends[player.stop])


def read_followed(paths: Iterable[Path | str]) -> list[Followed]:
    """Read what was measured of the dynamics.

    Args:
        paths: Files of kind "trajectory".

    Returns:
        One item a file, sorted by cell.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    found = [_read(file, settings) for file, settings in with_results(paths, "trajectory")]
    return sorted(found, key=lambda item: place(item.where))


def _read(file: h5py.File, settings: Mapping[str, Any]) -> Followed:
    ends = file["shares/ends"][:].astype(float)
    shares, losses = {}, {}
    for perturbation in SHARED:
        start, parts, loss = (
            file[f"shares/{perturbation}/{name}"][:].astype(float)
            for name in ("start", "parts", "loss")
        )
        shares[perturbation] = np.column_stack([start, parts])
        losses[perturbation] = loss
    intervals = file["causal/intervals"][:]
    marks = np.unique(intervals)
    return Followed(
        {name: settings[name] for name in CELL},
        ends,
        file["strong/success"][:] & np.isfinite(losses[STRONG]),
        shares,
        losses,
        tuple(Window(*map(int, np.searchsorted(marks, pair))) for pair in intervals),
        file["causal/repaired"][:],
        file["causal/inserted"][:],
    )
