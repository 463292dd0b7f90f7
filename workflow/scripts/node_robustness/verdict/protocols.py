"""Robust accuracy under three protocols, image by image.

``paper``: an image is robust at an epsilon if the paper's attack found no adversarial example in
the cell of that epsilon. ``corrected``: and if no attack found one that differs from the paper's in
its gradient alone. ``strongest``: if no adversarial example of that size or smaller is known, from
whichever attack, epsilon, norm or measurement (`known`). Under all of them an image that is
misclassified without an attack is not robust. What is robust under one is robust under those before
it: the difference of the first two is masked gradient, that of the last two is weak search.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.config import strength
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.perturbations.sizes import Bools, Floats, read_sizes, within
from node_robustness.tables.frame import SOLVED, natural, place, rate, tabulate
from node_robustness.verdict import known
from node_robustness.verdict.known import KnownExamples, cell_key

PAPER, CORRECTED, STRONGEST = PROTOCOLS = ("paper", "corrected", "strongest")
"""From the weakest to the strongest."""

CONTROL = "noise"
"""The method that searches nothing: a control, which every attack must outperform."""

WHERE = {**SOLVED, "norm": "str"}
"""The columns that name a network at a tolerance in a norm."""

_BUDGET = ("method", "iterations", "step", "restarts", "loss", "early_stop", "targets", "halvings")
_GRADIENT = ("gradient", "surrogate", "adjoint_tolerance", "adjoint_norm")


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
        skipped: Whether it left out the image, which cheaper attacks had broken
            (`attack_settings.cheaper`), bool [n].
        returned: Sizes of the returned image, adversarial or not, in L-infinity and in L2, [n].
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
    returned: tuple[Floats, Floats]

    @property
    def method(self) -> str:
        """The method of the attack."""
        return str(self.settings["method"])

    @property
    def gradient(self) -> str:
        """How it gets gradients; empty for a method that uses none."""
        return str(self.settings.get("gradient") or "")

    @property
    def by_gradient(self) -> bool:
        """Whether it follows a gradient of the attacked model."""
        return self.gradient not in ("", "none")

    @property
    def black_box(self) -> bool:
        """Whether it uses no gradient of the attacked model, and is not the control."""
        return not self.by_gradient and self.method != CONTROL

    @property
    def stuck(self) -> Bools:
        """Whether it did not move the image at all: its gradient was zero, bool [n]."""
        still: Bools = ~self.success & ~self.skipped & (self.returned[0] == 0)
        return still

    def differs_in_gradient_alone(self, other: "Attempt") -> bool:
        """Whether another attack has the same budget and loss and another gradient."""

        def settings(attempt: Attempt, names: Iterable[str]) -> list[Any]:
            return [attempt.settings.get(name) for name in names]

        return settings(self, _BUDGET) == settings(other, _BUDGET) and settings(
            self, _GRADIENT
        ) != settings(other, _GRADIENT)

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
        counted: Whether the evaluations of its function are counted, so that the solve can be done
            in other ways, along whose gradients an attack must go to be strong.
        index: Rows of the images in the test set, int64 [n].
        labels: Their classes, int64 [n].
        correct: Whether the model classifies the image correctly, in every cell, bool [n].
        attempts: The cells, by attack and epsilon.
        known: By source, the sizes of other adversarial examples that are known of this network at
            this tolerance (`known`), infinite where there is none, each [n].
    """

    where: dict[str, Any]
    ode: bool
    counted: bool
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    correct: Bools
    attempts: tuple[Attempt, ...]
    known: tuple[tuple[str, Floats], ...] = ()

    @property
    def epsilons(self) -> list[float]:
        """All epsilons of the cells, ascending."""
        return sorted({attempt.epsilon for attempt in self.attempts})

    def smallest(self, chosen: Callable[[Attempt], bool] = lambda _: True) -> Floats:
        """The size of the smallest adversarial among the chosen cells, infinite where none, [n]."""
        sizes = [attempt.size for attempt in self.attempts if chosen(attempt)]
        least: Floats = np.min([np.full(len(self.index), math.inf), *sizes], axis=0)
        return least

    def everything(self) -> Floats:
        """The size of the smallest adversarial example that is known, infinite where none, [n]."""
        least: Floats = np.min([self.smallest(), *(sizes for _, sizes in self.known)], axis=0)
        return least

    def strongest(self, epsilon: float) -> Bools:
        """Which images no known adversarial example within epsilon breaks, bool [n]."""
        return self.correct & ~within(self.everything(), epsilon)

    def of_paper(self, attack: str | None, epsilon: float) -> Attempt | None:
        """The cell of the paper's attack at this very epsilon; None if it did not run."""
        for attempt in self.attempts:
            if (attempt.attack, attempt.epsilon) == (attack, epsilon):
                return attempt
        return None

    def paper(self, attack: str | None, epsilon: float) -> Bools | None:
        """Which images the paper's attack left at this very epsilon, bool [n]; None if not run."""
        own = self.of_paper(attack, epsilon)
        return None if own is None else self.correct & ~own.success

    def with_other_gradients(self, attack: str | None, epsilon: float) -> list[Attempt]:
        """The cells that differ from that of the paper's attack in their gradient alone."""
        own = self.of_paper(attack, epsilon)
        return [
            other
            for other in self.attempts
            if own is not None and other.epsilon == epsilon and own.differs_in_gradient_alone(other)
        ]

    def corrected(self, attack: str | None, epsilon: float) -> Bools | None:
        """Which images are left where the gradient of the paper's attack is not masked, bool [n].

        Those that neither the paper's attack broke nor one with another gradient. An image that
        the paper's attack could not move, because its gradient is zero, is none of them if
        anything breaks it. None where the paper's attack did not run, or nothing is known of its
        gradient: it follows the adjoint, and no attack like it follows another gradient.
        """
        own = self.of_paper(attack, epsilon)
        others = self.with_other_gradients(attack, epsilon)
        if own is None or (own.gradient == "adjoint" and not others):
            return None
        broken = np.logical_or.reduce([own.success, *(other.success for other in others)])
        left: Bools = self.correct & ~broken & ~(own.stuck & ~self.strongest(epsilon))
        return left

    def robust(self, protocol: str, attack: str | None, epsilon: float) -> Bools | None:
        """Which images are left under a protocol of `PROTOCOLS`, bool [n]; None if not known.

        Args:
            protocol: Its name.
            attack: Name of the paper's attack, None without one.
            epsilon: One of `epsilons`.
        """
        if protocol == STRONGEST:
            return self.strongest(epsilon)
        return {PAPER: self.paper, CORRECTED: self.corrected}[protocol](attack, epsilon)


def read_attacked(
    paths: Iterable[Path | str],
    reevaluations: Iterable[Path | str] = (),
    others: Iterable[KnownExamples] = (),
) -> list[AttackedNetwork]:
    """Read attack cells and put those together that attack the same thing.

    Args:
        paths: Files of kind "attack", in any order.
        reevaluations: Files of kind "reevaluated".
        others: Adversarial examples from other measurements.

    Returns:
        One item for every model, seed, tolerance and norm, in the order of tables.

    Raises:
        UserError: A file is missing, damaged or of another kind, or two cells of one model
            attack different images.
    """
    cells = []
    for path in sorted(map(Path, paths)):
        with open_hdf5(path, "attack") as file:
            cells.append(_read_cell(path, file))
    sizes = {
        cell_key(cell.where | {"attack": cell.attempt.attack, "epsilon": cell.attempt.epsilon}): (
            cell.index,
            *cell.attempt.returned,
        )
        for cell in cells
    }
    examples: dict[tuple[Any, ...], list[KnownExamples]] = {}
    for example in [*known.reevaluated(reevaluations, sizes), *others]:
        examples.setdefault(_solved(example.where), []).append(example)
    groups: dict[tuple[Any, ...], list[_Cell]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.where.values()), []).append(cell)
        examples.setdefault(_solved(cell.where), []).append(cell.examples)
    solved = {_model(cell.where) for cell in cells if cell.ode}
    joined = [
        _join(own, examples[_solved(own[0].where)], ode=_model(own[0].where) in solved)
        for own in groups.values()
    ]
    return sorted(joined, key=lambda group: place(group.where))


def _solved(where: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in SOLVED)


def _model(where: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in ("experiment", "dataset", "model"))


@dataclass(frozen=True)
class _Cell:
    path: Path
    where: dict[str, Any]
    counted: bool
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    correct: Bools
    pixels: int
    attempt: Attempt

    @property
    def ode(self) -> bool:
        """Whether it shows that the model solves an ODE."""
        return self.counted or self.where["tolerance"] is not None

    @property
    def examples(self) -> KnownExamples:
        """What it found, to be measured in other norms."""
        own = self.attempt
        source = f"{own.attack} in {self.where['norm']}"
        return KnownExamples(self.where, source, self.index, own.success, *own.returned)


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
        (file["perturbation_linf"][:].astype(float), file["perturbation_l2"][:].astype(float)),
    )
    return _Cell(
        path,
        {name: settings[name] for name in WHERE},
        "nfe_clean" in file,
        file["index"][:],
        file["labels"][:],
        file["attacked"][:] | skipped,
        math.prod(file["adversarials"].shape[1:]),
        attempt,
    )


def _join(
    cells: Sequence[_Cell], examples: Sequence[KnownExamples], *, ode: bool
) -> AttackedNetwork:
    first = cells[0]
    for cell in cells[1:]:
        if not np.array_equal(cell.index, first.index):
            raise UserError(
                f"{cell.path}: attacks other images than {first.path}; delete both and run "
                "snakemake again"
            )
    norm = first.where["norm"]
    found: dict[str, Floats] = {}
    for example in examples:
        # Of its own norm the attempts say it more exactly.
        if example.where.get("norm") != norm:
            size = example.smallest(first.index, norm, first.pixels)
            found[example.source] = np.minimum(size, found.get(example.source, math.inf))
    attempts = sorted((c.attempt for c in cells), key=lambda a: (natural(a.attack), a.epsilon))
    return AttackedNetwork(
        first.where,
        ode,
        first.counted,
        first.index,
        first.labels,
        np.logical_and.reduce([cell.correct for cell in cells]),
        tuple(attempts),
        tuple(found.items()),
    )


_SHARES = ("paper", "corrected", "strongest", "gap", "masked", "weak")
_PROTOCOLS = {
    **WHERE,
    "epsilon": "float64",
    **dict.fromkeys(["n", "correct"], "int64"),
    **{f"{name}{part}": "float64" for name in _SHARES for part in ("", "_low", "_high")},
    "gradients": "int64",
    **dict.fromkeys(["added", "hidden"], "float64"),
    "lacks": "str",
}


def protocol_table(attacked: Iterable[AttackedNetwork], paper: str | None) -> pd.DataFrame:
    """Tabulate what each network keeps under each protocol, and how far the attacks went.

    Args:
        attacked: Result of `read_attacked`.
        paper: Name of the paper's attack, None without one.

    Returns:
        One row for every model, seed, tolerance, norm and epsilon. Shares of all ``n`` images with
        exact 95 % bounds, of this network: robust under ``paper``, ``corrected`` and ``strongest``;
        their differences ``gap`` (first and last), ``masked`` (masked gradient: first and second)
        and ``weak`` (weak search: second and last), which are shares of images, too, because what
        one protocol breaks the next does. NaN where the paper's attack did not run or nothing is
        known of its gradient. ``gradients``: how many attacks follow another gradient with the
        paper's steps. ``added``: the largest share that one of the attacks of `strength.LATER`
        added, in their order (NaN if none ran); ``hidden``: Chapman's estimate of the share that no
        attack broke but one could; ``lacks``: what the attacks lack (`strength`).
    """
    return tabulate((row for group in attacked for row in _protocol_rows(group, paper)), _PROTOCOLS)


def _protocol_rows(group: AttackedNetwork, paper: str | None) -> Iterator[dict[str, Any]]:
    lacks = strength.missing([attempt.settings for attempt in group.attempts], group.counted)
    for epsilon in group.epsilons:
        papers, corrected, strongest = (
            group.robust(protocol, paper, epsilon) for protocol in PROTOCOLS
        )
        assert strongest is not None  # every cell has it
        n = len(strongest)
        counts = {"strongest": strongest}
        if papers is not None:
            counts |= {"paper": papers, "gap": papers & ~strongest}
        if papers is not None and corrected is not None:
            counts |= {"corrected": corrected, "masked": papers & ~corrected}
            counts |= {"weak": corrected & ~strongest}
        row = group.where | {"epsilon": epsilon, "n": n, "correct": int(group.correct.sum())}
        for name, outcomes in counts.items():
            row |= rate(name, name, int(outcomes.sum()), n)
        yield (
            row
            | {"gradients": len(group.with_other_gradients(paper, epsilon))}
            | {"added": _added(group, epsilon), "hidden": _hidden(group, epsilon)}
            | {"lacks": "; ".join(lacks)}
        )


def _added(group: AttackedNetwork, epsilon: float) -> float:
    """The largest share that one of the later strong attacks added to all before it."""
    added = []
    ranks = {strength.rank(attempt.settings) for attempt in group.attempts}
    for later in sorted(ranks & strength.LATER):
        own, before = (
            within(group.smallest(chosen), epsilon)
            for chosen in (
                lambda attempt, rank=later: strength.rank(attempt.settings) == rank,
                lambda attempt, rank=later: strength.rank(attempt.settings) < rank,
            )
        )
        added.append(float(np.mean(group.correct & own & ~before)) if len(own) else math.nan)
    return max(added, default=math.nan)


def _hidden(group: AttackedNetwork, epsilon: float) -> float:
    """Chapman's estimate of what is left to break (Univ. Calif. Publ. Stat. 1951).

    Two captures: attacks along direct gradients, and others. Attacks that left images out cannot
    tell which of these they would have broken, and take no part. The captures are not independent:
    an image that is easy for one is easy for the other. The estimate is rather too low.
    """
    direct, other = (
        [
            attempt
            for attempt in group.attempts
            if (attempt.gradient == "direct") == is_direct
            and attempt.method != CONTROL
            and "skips" not in attempt.settings
        ]
        for is_direct in (True, False)
    )
    if not direct or not other or not len(group.index):
        return math.nan
    first, second = (
        group.correct & within(np.min([attempt.size for attempt in own], axis=0), epsilon)
        for own in (direct, other)
    )
    total = (first.sum() + 1) * (second.sum() + 1) / ((first & second).sum() + 1) - 1
    left = int(group.strongest(epsilon).sum())
    return min(max(float(total) - int((first | second).sum()), 0.0), left) / len(group.index)
