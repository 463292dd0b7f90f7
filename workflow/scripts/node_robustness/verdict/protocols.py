"""Robust accuracy under two protocols, image by image: the paper's, and the strongest attack.

``paper`` is the paper's protocol, one attack: an image is robust at an epsilon if the cell of that
attack at that epsilon found no adversarial example. ``strongest`` is the minimum over all attacks:
an image is broken at an epsilon if any attack, at whichever epsilon it ran, found an adversarial
example of that size or smaller. Under both, an image that is misclassified without an attack is not
robust.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.perturbations.sizes import ROUNDING, Bools, Floats, read_sizes, within
from node_robustness.statistics import proportions
from node_robustness.tables.frame import CELL, SOLVED, natural, place, rate, tabulate

CONTROL = "noise"
"""The method that searches nothing: a control, which every attack must outperform."""

_WHERE = {**SOLVED, "norm": "str"}
_EXAMPLES = {
    **_WHERE,
    **dict.fromkeys(["index", "label"], "int64"),
    "correct": "bool",
    "size": "float64",
    "attack": "str",
    **dict.fromkeys(["paper_size", "noise_size"], "float64"),
}
_SUITE = {
    **CELL,
    "method": "str",
    **dict.fromkeys(["n", "correct", "broken", "alone", "robust"], "int64"),
    **dict.fromkeys(["robust_accuracy", "robust_low", "robust_high"], "float64"),
}
_PROTOCOLS = {
    **_WHERE,
    "epsilon": "float64",
    **dict.fromkeys(["n", "correct"], "int64"),
    **{
        f"{name}{part}": "float64"
        for name in ("paper", "strongest", "gap")
        for part in ("", "_low", "_high")
    },
}
_CURVES = {
    **_WHERE,
    "protocol": "str",
    "epsilon": "float64",
    "n": "int64",
    **dict.fromkeys(["robust_accuracy", "robust_low", "robust_high"], "float64"),
}
_CURVE_POINTS = 200
_BUDGETS = {
    **CELL,
    "weights_sha256": "str",
    "n": "int64",
    "images_sha256": "str",
    "parameters": "str",
}


@dataclass(frozen=True)
class Attempt:
    """What one attack found at one epsilon.

    Attributes:
        attack: Name of the attack.
        epsilon: Largest size that it was allowed.
        settings: What its file was made with.
        success: Whether it found an adversarial example within epsilon, bool [n].
        size: The size of that adversarial in the norm, infinite where there is none, [n].
        predictions: What the model says to the returned image, int64 [n]; -1: the solve failed.
        beyond: Whether the returned image lies farther than epsilon, bool [n].
        claimed: Whether the file claims a success, bool [n].
        skipped: Whether it left out the image, which cheaper attacks had broken within the
            smallest epsilon (`attack_settings.cheaper`), bool [n].
    """

    attack: str
    epsilon: float
    settings: dict[str, Any]
    success: Bools
    size: Floats
    predictions: NDArray[np.int64]
    beyond: Bools
    claimed: Bools
    skipped: Bools

    @property
    def method(self) -> str:
        """The method of the attack."""
        return str(self.settings["method"])

    @property
    def gradient(self) -> str:
        """How it gets gradients; empty for a method that uses none."""
        return str(self.settings.get("gradient") or "")

    @property
    def black_box(self) -> bool:
        """Whether it uses no gradient of the attacked model, and is not the control."""
        return self.gradient in ("", "none") and self.method != CONTROL

    @property
    def cumulative(self) -> Floats:
        """The sizes with those of the cheaper attacks where it left out the image, [n].

        All that is known of these, and all that counts, is that they are within an epsilon.
        """
        skips = self.settings.get("skips")
        return self.size if skips is None else np.where(self.skipped, skips["within"], self.size)


@dataclass(frozen=True)
class AttackedNetwork:
    """All attacks on one model at one tolerance in one norm, on the same n images.

    Attributes:
        where: Experiment, dataset, model, seed, tolerance (None without one) and norm.
        ode: Whether the model solves an ODE.
        index: Rows of the images in the test set, int64 [n].
        labels: Their classes, int64 [n].
        correct: Whether the model classifies the image correctly, in every cell, bool [n].
        attempts: The cells, by attack and epsilon.
    """

    where: dict[str, Any]
    ode: bool
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    correct: Bools
    attempts: tuple[Attempt, ...]

    @property
    def epsilons(self) -> list[float]:
        """All epsilons of the cells, ascending."""
        return sorted({attempt.epsilon for attempt in self.attempts})

    def smallest(self, chosen: Callable[[Attempt], bool] = lambda _: True) -> Floats:
        """The size of the smallest adversarial among the chosen cells, infinite where none, [n]."""
        sizes = [attempt.size for attempt in self.attempts if chosen(attempt)]
        least: Floats = np.min([np.full(len(self.index), math.inf), *sizes], axis=0)
        return least

    def strongest(self, epsilon: float) -> Bools:
        """Which images no attack broke within epsilon, bool [n]."""
        return self.correct & ~within(self.smallest(), epsilon)

    def paper(self, attack: str | None, epsilon: float) -> Bools | None:
        """Which images the paper's attack left at this very epsilon, bool [n]; None if not run."""
        for attempt in self.attempts:
            if (attempt.attack, attempt.epsilon) == (attack, epsilon):
                return self.correct & ~attempt.success
        return None


def read_attacked(paths: Iterable[Path | str]) -> list[AttackedNetwork]:
    """Read attack cells and put those together that attack the same thing.

    Args:
        paths: Files of kind "attack", in any order.

    Returns:
        One item for every model, seed, tolerance and norm, in the order of tables.

    Raises:
        UserError: A file is missing, damaged or of another kind, or two cells of one model
            attack different images.
    """
    groups: dict[tuple[Any, ...], list[_Cell]] = {}
    for path in sorted(map(Path, paths)):
        with open_hdf5(path, "attack") as file:
            cell = _read_cell(path, file)
        groups.setdefault(tuple(cell.where.values()), []).append(cell)
    joined = [_join(cells) for cells in groups.values()]
    return sorted(joined, key=lambda group: place(group.where))


@dataclass(frozen=True)
class _Cell:
    path: Path
    where: dict[str, Any]
    ode: bool
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    correct: Bools
    attempt: Attempt


def _read_cell(path: Path, file: h5py.File) -> _Cell:
    settings = read_settings(file)
    sizes, skipped = read_sizes(file), file["skipped"][:]
    attempt = Attempt(
        settings["attack"],
        settings["epsilon"],
        settings,
        sizes.success,
        sizes.size,
        file["adversarial_predictions"][:],
        sizes.beyond,
        sizes.claimed,
        skipped,
    )
    return _Cell(
        path,
        {name: settings[name] for name in _WHERE},
        "nfe_clean" in file,
        file["index"][:],
        file["labels"][:],
        file["attacked"][:] | skipped,
        attempt,
    )


def _join(cells: Sequence[_Cell]) -> AttackedNetwork:
    first = cells[0]
    for cell in cells[1:]:
        if not np.array_equal(cell.index, first.index):
            raise UserError(
                f"{cell.path}: attacks other images than {first.path}; delete both and run "
                "snakemake again"
            )
    attempts = sorted((c.attempt for c in cells), key=lambda a: (natural(a.attack), a.epsilon))
    return AttackedNetwork(
        first.where,
        first.ode,
        first.index,
        first.labels,
        np.logical_and.reduce([cell.correct for cell in cells]),
        tuple(attempts),
    )


def example_sizes(attacked: Iterable[AttackedNetwork], paper: str | None) -> pd.DataFrame:
    """Tabulate the smallest adversarial of every image.

    Args:
        attacked: Result of `read_attacked`.
        paper: Name of the paper's attack, None without one.

    Returns:
        One row for every image, model, seed, tolerance and norm: ``index`` in the test set,
        ``label``, whether it is classified ``correct``ly; ``size`` of the smallest adversarial in
        the norm over all attacks and epsilons, and the ``attack`` that found it (empty if none);
        the same for the paper's attack alone (``paper_size``) and for random noise
        (``noise_size``). Sizes are infinite where nothing was found, and NaN where the image is
        misclassified as it is, or the attack was not run.
    """
    return tabulate((row for group in attacked for row in _example_rows(group, paper)), _EXAMPLES)


def _example_rows(group: AttackedNetwork, paper: str | None) -> list[dict[str, Any]]:
    sizes = np.array([attempt.size for attempt in group.attempts])
    best = sizes.argmin(axis=0)
    columns = {
        "size": sizes.min(axis=0),
        "paper_size": _smallest_of(group, lambda attempt: attempt.attack == paper),
        "noise_size": _smallest_of(group, lambda attempt: attempt.method == CONTROL),
    }
    found = np.isfinite(columns["size"]) & group.correct
    return [
        group.where
        | {"index": int(index), "label": int(group.labels[i]), "correct": bool(group.correct[i])}
        | {name: values[i] if group.correct[i] else math.nan for name, values in columns.items()}
        | {"attack": group.attempts[best[i]].attack if found[i] else ""}
        for i, index in enumerate(group.index)
    ]


def _smallest_of(group: AttackedNetwork, chosen: Callable[[Attempt], bool]) -> Floats:
    ran = any(map(chosen, group.attempts))
    return group.smallest(chosen) if ran else np.full(len(group.index), math.nan)


def budget_table(attacked: Iterable[AttackedNetwork]) -> pd.DataFrame:
    """Tabulate what every cell was attacked with.

    Args:
        attacked: Result of `read_attacked`.

    Returns:
        One row a cell: the SHA-256 of the weights (empty in files that do not say), the ``n``
        images with a SHA-256 of their rows in the test set (little-endian int64), and as a JSON
        object all parameters of the attack, its budget among them.
    """
    coordinates = {*CELL, "weights_sha256"} - {"gradient"}
    rows = []
    for group in attacked:
        images = hashlib.sha256(group.index.astype("<i8").tobytes()).hexdigest()
        for attempt in group.attempts:
            own = {k: v for k, v in attempt.settings.items() if k not in coordinates}
            rows.append(
                {
                    **group.where,
                    "attack": attempt.attack,
                    "gradient": attempt.gradient,
                    "epsilon": attempt.epsilon,
                    "weights_sha256": attempt.settings.get("weights_sha256") or "",
                    "n": len(group.index),
                    "images_sha256": images,
                    "parameters": json.dumps(own, sort_keys=True, allow_nan=False),
                }
            )
    return tabulate(rows, _BUDGETS)


def suite_table(attacked: Iterable[AttackedNetwork]) -> pd.DataFrame:
    """Tabulate what every attack achieves at every epsilon.

    Args:
        attacked: Result of `read_attacked`.

    Returns:
        One row for every attack and epsilon of its norm. Of ``n`` images, ``correct`` are
        classified correctly; ``broken`` of them by an adversarial of that attack, from any of its
        cells, no larger than epsilon (so that an attack which looks for the smallest adversarial
        and runs at the largest epsilon alone has a row at each), or by a cheaper attack for which
        it left out the image; ``alone`` of them by no other attack that ran on the image;
        ``robust`` are left, ``robust_accuracy`` = robust / n with exact 95 % bounds.
    """
    return tabulate((row for group in attacked for row in _suite_rows(group)), _SUITE)


def _suite_rows(group: AttackedNetwork) -> list[dict[str, Any]]:
    rows = []
    for attack in dict.fromkeys(attempt.attack for attempt in group.attempts):
        first = next(attempt for attempt in group.attempts if attempt.attack == attack)
        mine = [attempt.cumulative for attempt in group.attempts if attempt.attack == attack]
        own = np.min(mine, axis=0)
        others = group.smallest(lambda attempt, attack=attack: attempt.attack != attack)  # type: ignore[misc]
        for epsilon in group.epsilons:
            broken = group.correct & within(own, epsilon)
            n, correct, robust = len(broken), int(group.correct.sum()), group.correct & ~broken
            rows.append(
                group.where
                | {"attack": attack, "gradient": first.gradient, "method": first.method}
                | {"epsilon": epsilon, "n": n, "correct": correct, "broken": int(broken.sum())}
                | {"alone": int((broken & ~within(others, epsilon)).sum())}
                | {"robust": int(robust.sum())}
                | rate("robust", "robust_accuracy", int(robust.sum()), n)
            )
    return rows


def protocol_table(attacked: Iterable[AttackedNetwork], paper: str | None) -> pd.DataFrame:
    """Tabulate robust accuracy under the paper's protocol and under the strongest attack.

    Args:
        attacked: Result of `read_attacked`.
        paper: Name of the paper's attack, None without one.

    Returns:
        One row for every model, seed, tolerance, norm and epsilon: robust accuracy in [0, 1]
        under ``paper`` (NaN where that attack did not run) and under the ``strongest`` protocol,
        and the ``gap``: the share of images that are robust under the first but not under the
        second, which is the difference of the two, because whatever the paper's attack breaks the
        strongest does. All with exact 95 % bounds, which pair the images for the gap too.
    """
    return tabulate((row for group in attacked for row in _protocol_rows(group, paper)), _PROTOCOLS)


def _protocol_rows(group: AttackedNetwork, paper: str | None) -> list[dict[str, Any]]:
    rows = []
    for epsilon in group.epsilons:
        strongest, papers = group.strongest(epsilon), group.paper(paper, epsilon)
        n = len(strongest)
        row = group.where | {"epsilon": epsilon, "n": n, "correct": int(group.correct.sum())}
        row |= rate("strongest", "strongest", int(strongest.sum()), n)
        if papers is not None:
            row |= rate("paper", "paper", int(papers.sum()), n)
            row |= rate("gap", "gap", int((papers & ~strongest).sum()), n)
        rows.append(row)
    return rows


def curve_table(attacked: Iterable[AttackedNetwork], paper: str | None) -> pd.DataFrame:
    """Tabulate robust accuracy as a function of epsilon.

    Args:
        attacked: Result of `read_attacked`.
        paper: Name of the paper's attack, None without one.

    Returns:
        For every model, seed, tolerance and norm, and ``protocol`` (``strongest``, ``paper``,
        ``noise``; those which ran), the step function from epsilon 0, the clean accuracy, to the
        largest epsilon: ``robust_accuracy`` holds from its ``epsilon`` up to the next row's. Steps
        lie at the sizes of the adversarial examples, at most 200 of them. The paper's curve takes
        its smallest adversarial example over all its epsilons, like the others.
    """
    return tabulate((row for group in attacked for row in _curve_rows(group, paper)), _CURVES)


def _curve_rows(group: AttackedNetwork, paper: str | None) -> list[dict[str, Any]]:
    protocols: dict[str, Callable[[Attempt], bool]] = {
        "strongest": lambda _: True,
        "paper": lambda attempt: attempt.attack == paper,
        CONTROL: lambda attempt: attempt.method == CONTROL,
    }
    rows = []
    for protocol, chosen in protocols.items():
        if not any(map(chosen, group.attempts)):
            continue
        sizes = group.smallest(chosen)[group.correct]
        steps = _steps(sizes, group.epsilons)
        n = len(group.index)
        broken = np.searchsorted(np.sort(sizes), steps * (1 + ROUNDING), side="right")
        left = int(group.correct.sum()) - broken
        low, high = proportions.interval(left, np.full(len(steps), n))
        rows += [
            group.where
            | {"protocol": protocol, "epsilon": float(epsilon), "n": n}
            | {"robust_accuracy": left[i] / n if n else math.nan}
            | {"robust_low": low[i], "robust_high": high[i]}
            for i, epsilon in enumerate(steps)
        ]
    return rows


def _steps(sizes: Floats, epsilons: Sequence[float]) -> Floats:
    """The points of the curve: 0, the epsilons of the grid, and the sizes or some of them."""
    found = np.unique(sizes[np.isfinite(sizes)])
    if len(found) > _CURVE_POINTS:
        found = found[np.linspace(0, len(found) - 1, _CURVE_POINTS).round().astype(int)]
    return np.unique([0.0, *epsilons, *found])
