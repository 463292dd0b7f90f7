"""Claim 3: can the part of the dynamics that is to blame for a misclassification be pinpointed?

docs/verdict.md has the rules. They compare shares of the loss of margin with one half, on most
images by an exact test, and over all images together.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.statistics import networks, ratios
from node_robustness.statistics.proportions import SIGNIFICANCE, Estimate
from node_robustness.tables.frame import BOUNDS, bounded, records, tabulate
from node_robustness.verdict.contrasts import KEY, UNDECIDED, adjusted, is_primary
from node_robustness.verdict.followed import (
    ALL,
    CONTROLS,
    FIRST,
    SECOND,
    START,
    STRONG,
    Followed,
    Half,
    Player,
    Window,
    windows,
)
from node_robustness.verdict.patches import HALF, Patched, patched
from node_robustness.verdict.verdicts import LEVEL, SMALL, ending, level_of
from node_robustness.words import listed, percent

BEFORE, PINPOINTED, SPREAD = "before", "pinpointed", "spread"
CLAIMS = (BEFORE, PINPOINTED, SPREAD, UNDECIDED)

NECESSARY, SUFFICIENT, BOTH, NEITHER = "necessary", "sufficient", "both", "neither"
PATCHES = (NECESSARY, SUFFICIENT, BOTH, NEITHER, UNDECIDED)

SPECIAL = "special"
_PATCHED = (NECESSARY, SUFFICIENT, NEITHER, SPECIAL)
_TESTS = tuple(f"p_{name}" for name in (BEFORE, PINPOINTED, SPREAD, *_PATCHED))

_DYNAMICS = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    **dict.fromkeys(["attack", "norm"], "str"),
    "epsilon": "float64",
    **dict.fromkeys(["n", "networks"], "int64"),
    "level": "str",
    "primary": "bool",
    "claim": "str",
    **dict.fromkeys(["from", "to"], "float64"),
    **{f"{name}{bound}": "float64" for name in ("share", "most") for bound in BOUNDS},
    **dict.fromkeys(["start_share", "start_low", "start_high"], "float64"),
    **dict.fromkeys(["largest_share", "largest_from", "largest_to"], "float64"),
    **dict.fromkeys(["noise_start", "swapped_start", "particular", "stability"], "float64"),
    **{f"repaired{bound}": "float64" for bound in BOUNDS},
    "repair_others": "float64",
    **{f"inserted{bound}": "float64" for bound in BOUNDS},
    "insert_others": "float64",
    **dict.fromkeys(["patch_from", "patch_to"], "float64"),
    "patch_ties": "int64",
    "patch": "str",
    SPECIAL: "float64",
    **dict.fromkeys(_TESTS, "float64"),
    **dict.fromkeys(["because", "reason"], "str"),
}


class Part:
    """What the networks of a setting show of one player, each value computed when it is needed."""

    def __init__(
        self,
        items: Sequence[Followed],
        player: Player,
        half: Half,
        level: float = 1 - SIGNIFICANCE,
        perturbation: str = STRONG,
    ) -> None:
        """Take the shares of a player.

        Args:
            items: The networks.
            player: h(0) or a window.
            half: Of the images.
            level: The confidence level of the fractions.
            perturbation: Whose loss is divided.
        """
        self.player = player
        self._level = level
        self._pairs = [item.of(player, perturbation, half) for item in items]
        self._unshared = [item.unshared(perturbation, half) for item in items]

    @cached_property
    def fraction(self) -> Estimate:
        """Its fraction of the loss, over networks."""
        return _over(ratios.fraction(*pair, self._level) for pair in self._pairs)

    @cached_property
    def filled(self) -> Estimate:
        """The same with what no player has, because shares do not quite sum to the loss."""
        return _over(
            ratios.fraction(own + rest, loss, self._level)
            for (own, loss), rest in zip(self._pairs, self._unshared, strict=True)
        )

    @cached_property
    def most(self) -> Estimate:
        """The share of the images on which it has more than half, over networks."""
        return _over(ratios.most(*pair, HALF) for pair in self._pairs)

    @property
    def above(self) -> float:
        """The p-value of "it has more than half on at most half of the images"."""
        return max(ratios.most_above(*pair, HALF) for pair in self._pairs)

    @property
    def below(self) -> float:
        """The p-value of "it has less than half on at most half of the images"."""
        return max(ratios.most_below(*pair, HALF) for pair in self._pairs)


def dynamics_table(followed: Iterable[Followed], primary: Mapping[str, float]) -> pd.DataFrame:
    """Say where the margin of adversarial examples is lost.

    Args:
        followed: Result of `followed.read_followed`.
        primary: Epsilon at which claims are made first, by norm.

    Returns:
        One row for every dataset, model, tolerance, attack, norm and epsilon, over all networks
        (``level``) and the images that the strong adversarial example misleads (``n``, the smallest
        number of a network). The ``claim``: before, pinpointed (``from``, ``to``: the window, else
        NaN), spread or undecided, ``because`` of which rule, and the ``reason``. What the claim is
        about is h(0), the window on the second half of the images, or else the window with the
        largest fraction: its ``share`` of the loss of margin, with Fieller's interval (of the
        largest window simultaneous over all windows), and the share of the images on which it has
        more than half (``most``); values over networks are means with intervals that contain those
        of all. ``start_*``: of h(0); ``largest_*``: the window with the largest fraction of all
        images; ``noise_start``, ``swapped_start``: the fractions of h(0) under the controls, NaN if
        undefined; ``particular``: 1 where the share that the claim is about is more than 5 points
        above both controls by the bounds, else 0, NaN where a control is undefined or nothing is
        claimed of a part; ``stability``: the largest difference of a fraction between the halves.
        ``p_*``: adjusted over this experiment (`contrasts.adjusted`), separately for each claim.

        The ``patch`` of the window from ``patch_from`` to ``patch_to``, chosen by its repair on the
        first half of the images (``patch_ties``: other windows of its length that restore as
        many): necessary, sufficient, both, neither or undecided. On the second half: the share
        ``repaired`` and ``inserted`` with exact intervals, the mean shares of the other windows of
        its length (``*_others``), and whether it is ``special``: 1 where it is shown to restore
        more than a random other window of that length, else 0, NaN where there is no other.
    """
    groups: dict[tuple[Any, ...], list[Followed]] = {}
    for item in followed:
        key = tuple(item.where[name] for name in (*KEY, "attack"))
        groups.setdefault(key, []).append(item)
    found = [(_Dynamics(items), patched(items)) for items in groups.values()]
    tests = pd.DataFrame(
        [
            setting.where | setting.p | {f"p_{name}": getattr(patches, name) for name in _PATCHED}
            for setting, patches in found
        ],
        columns=[*KEY, "attack", *_TESTS],
    )
    tests["primary"] = is_primary(tests, primary)
    tests[list(_TESTS)] = adjusted(tests, _TESTS, primary, ["attack"])
    return tabulate(
        [
            row | _said(setting, row) | _patch(setting, patches, row)
            for (setting, patches), row in zip(found, records(tests), strict=True)
        ],
        _DYNAMICS,
    )


class _Dynamics:
    """What the networks of a setting show of h(0) and of every window."""

    def __init__(self, items: Sequence[Followed]) -> None:
        self.items = items
        self.windows = windows(len(items[0].ends) - 1)
        self.start = Part(items, START, ALL)
        # Bonferroni: all of them are to be below one half.
        players: list[Player] = [START, *self.windows]
        self.every = [Part(items, p, ALL, 1 - SIGNIFICANCE / len(players)) for p in players]
        self.chosen = Part(items, self._shortest(), SECOND)
        self.largest = self.every[1 + self._most(self.windows, ALL)]

    @property
    def where(self) -> dict[str, Any]:
        """Its coordinates."""
        return {name: self.items[0].where[name] for name in (*KEY, "attack")}

    @property
    def p(self) -> dict[str, float]:
        """The p-values of the claims, not adjusted for the number of settings."""
        below = max(part.below for part in self.every)
        return {
            f"p_{BEFORE}": self.start.above,
            f"p_{PINPOINTED}": self.chosen.above,
            f"p_{SPREAD}": min(1.0, len(self.every) * below),
        }

    def claim(self, p: Mapping[str, float], *, complete: bool = False) -> str:
        """The first rule of docs/verdict.md that applies.

        Args:
            p: of each claim, as `p`, adjusted.
            complete: whether to take the shares for complete. Otherwise a rule applies only if it
                does so with and without what no player has.
        """

        def more(part: Part) -> bool:
            return part.fraction.low > HALF and (complete or part.filled.low > HALF)

        def less(part: Part) -> bool:
            return part.fraction.high < HALF and (complete or part.filled.high < HALF)

        if p[f"p_{BEFORE}"] < LEVEL and more(self.start):
            return BEFORE
        if p[f"p_{PINPOINTED}"] < LEVEL and more(self.chosen):
            return PINPOINTED
        if p[f"p_{SPREAD}"] < LEVEL and all(map(less, self.every)):
            return SPREAD
        return UNDECIDED

    def control(self, player: Player, perturbation: str, half: Half) -> Estimate:
        """The fraction of a control's loss."""
        return Part(self.items, player, half, perturbation=perturbation).fraction

    @property
    def leans(self) -> bool:
        """Whether a rule applies to the values found, whatever their intervals are."""

        def most(part: Part) -> bool:
            return part.fraction.value > HALF and part.most.value > HALF

        def least(part: Part) -> bool:
            return part.fraction.value < HALF and part.most.value < HALF

        return most(self.start) or most(self.chosen) or all(map(least, self.every))

    @property
    def stability(self) -> float:
        """The largest difference of the fraction of h(0) or of a part between the halves."""
        players = [START, *(window for window in self.windows if window.stop - window.first == 1)]
        return max(abs(self._sum(p, FIRST) - self._sum(p, SECOND)) for p in players)

    def _shortest(self) -> Window:
        """The shortest window with at least half on the first half of the images.

        Of several the one with most; where none has half, the one with most of all.
        """
        enough = [w for w in self.windows if self._sum(w, FIRST) >= HALF]
        shortest = min((window.stop - window.first for window in enough), default=None)
        left = [w for w in enough if w.stop - w.first == shortest] or self.windows
        return left[self._most(left, FIRST)]

    def _most(self, known: Sequence[Window], half: Half) -> int:
        """Which window has most of the loss, the first of equals."""
        sums = [self._sum(window, half) for window in known]
        return int(np.nan_to_num(sums, nan=-math.inf).argmax())

    def _sum(self, player: Player, half: Half) -> float:
        """The fraction of the loss, the mean of networks; NaN where one of them has no loss."""
        return float(np.mean([ratios.of_sums(*i.of(player, STRONG, half)) for i in self.items]))


def _over(estimates: Iterable[Estimate]) -> Estimate:
    """What networks show together."""
    values, lows, highs = zip(*estimates, strict=True)
    return networks.across(values, lows, highs)


def _said(setting: _Dynamics, p: Mapping[str, float]) -> dict[str, Any]:
    """The columns of the claim and of what it is about."""
    claim = setting.claim(p)
    about, half = {
        BEFORE: (setting.start, ALL),
        PINPOINTED: (setting.chosen, SECOND),
    }.get(claim, (setting.largest, ALL))
    first = setting.items[0]
    window = first.times(about.player) if claim == PINPOINTED else (math.nan, math.nan)
    largest = first.times(setting.largest.player)
    controls = {name: setting.control(START, name, ALL).value for name in CONTROLS}
    return {
        "n": min(int(item.misled.sum()) for item in setting.items),
        "networks": len(setting.items),
        "level": level_of(len(setting.items)),
        "claim": claim,
        "from": window[0],
        "to": window[1],
        **bounded("share", about.fraction),
        **bounded("most", about.most),
        "start_share": setting.start.fraction.value,
        "start_low": setting.start.fraction.low,
        "start_high": setting.start.fraction.high,
        "largest_share": setting.largest.fraction.value,
        "largest_from": largest[0],
        "largest_to": largest[1],
        **{f"{name}_start": value for name, value in controls.items()},
        "particular": _particular(
            about.fraction, [setting.control(about.player, name, half) for name in CONTROLS]
        )
        if claim in (BEFORE, PINPOINTED)
        else math.nan,
        "stability": setting.stability,
        **_because(setting, claim, setting.claim(p, complete=True)),
    }


def _particular(own: Estimate, controls: Sequence[Estimate]) -> float:
    """Whether a fraction is shown to be more than `SMALL` above that of every control."""
    highs = [control.high for control in controls]
    return math.nan if np.isnan(highs).any() else float(own.low - max(highs) > SMALL)


def _because(setting: _Dynamics, claim: str, if_complete: str) -> dict[str, str]:
    start, largest = setting.start, setting.largest
    first = setting.items[0]
    if claim == BEFORE:
        return ending(claim, f"h(0) has {_has(start)}.")
    if claim == PINPOINTED:
        return ending(
            claim,
            f"{_named(first, setting.chosen)} has {_has(setting.chosen)}. One half of the images "
            "chose it, and these are of the other half.",
        )
    found = f"h(0) has {_has(start)}. {_named(first, largest)}, the largest, has {_has(largest)}."
    if claim == SPREAD:
        return ending(claim, f"No part has half of the loss of margin. {found}")
    if not all(item.misled.any() for item in setting.items):
        return ending(
            "no_adversarial",
            "No adversarial example misleads every network: there is no loss of margin to divide."
            if len(setting.items) > 1
            else "No adversarial example misleads the network: there is no loss of margin to "
            "divide.",
        )
    # A single network is the setting itself.
    single = len(setting.items) == 1
    alone = [setting] if single else [_Dynamics([item]) for item in setting.items]
    claims = [one.claim(one.p) for one in alone]
    if len({*claims} - {UNDECIDED}) > 1:
        counted = [f"{claims.count(name)} {name}" for name in CLAIMS if name in claims]
        return ending("networks", f"The networks differ: by themselves {listed(counted)}. {found}")
    if if_complete != UNDECIDED:
        return ending(
            "incomplete",
            f"The shares do not sum to the loss closely enough to say {if_complete}. {found}",
        )
    if setting.leans:
        return ending("images", f"There are too few images to show it. {found}")
    return ending("margin", f"No rule applies. {found}")


def _named(item: Followed, part: Part) -> str:
    start, end = item.times(part.player)
    return f"t = {start:.2g} to {end:.2g}"


def _has(part: Part) -> str:
    """Which fraction of the loss a part has."""
    if math.isnan(part.fraction.value):
        return "a fraction of the loss of margin that is not known"
    value, low, high = map(percent, part.fraction)
    return (
        f"{value} of the loss of margin ({low} to {high}), and more than half of it on "
        f"{percent(part.most.value)} of the images"
    )


def _patch(setting: _Dynamics, found: Patched, p: Mapping[str, float]) -> dict[str, Any]:
    """The columns of the patches."""
    times = (math.nan, math.nan)
    if found.window is not None:
        times = setting.items[0].times(found.window)
    necessary, sufficient, neither = (
        p[f"p_{name}"] < LEVEL for name in (NECESSARY, SUFFICIENT, NEITHER)
    )
    shown = {NECESSARY: necessary, SUFFICIENT: sufficient, NEITHER: neither}
    said = BOTH if necessary and sufficient else next((n for n in shown if shown[n]), UNDECIDED)
    special = p[f"p_{SPECIAL}"] < LEVEL and found.more.value >= SMALL
    return {
        **bounded("repaired", found.repaired),
        "repair_others": found.repair_others,
        **bounded("inserted", found.inserted),
        "insert_others": found.insert_others,
        "patch_from": times[0],
        "patch_to": times[1],
        "patch_ties": found.ties,
        "patch": said,
        SPECIAL: math.nan if math.isnan(found.more.value) else float(special),
    }
