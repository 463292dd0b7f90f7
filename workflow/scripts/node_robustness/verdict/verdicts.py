"""The verdict on every setting: broken, masked, under-searched, survives or undecided.

docs/verdict.md has the rules. They are applied to each network by itself with exact tests over its
images; what is said of several networks has to hold for each of them (the largest p-value counts:
an intersection-union test). Four errors are controlled over all settings of an experiment, each at
2.5 % (Holm): to call a setting one of the first four and be wrong. What is not shown is undecided.
"""

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.statistics import networks, proportions
from node_robustness.statistics.multiplicity import holm
from node_robustness.statistics.proportions import SIGNIFICANCE, Estimate
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.checks import (
    CHECKS,
    FAILED,
    NOT_MEASURED,
    PASSED,
    SOLVER_SUCCEEDS,
)
from node_robustness.words import listed, percent, points

BROKEN, MASKED, UNDER_SEARCHED = "broken", "masked", "under-searched"
SURVIVES, UNDECIDED = "survives", "undecided"
VERDICTS = (BROKEN, MASKED, UNDER_SEARCHED, SURVIVES, UNDECIDED)

SHOWS, HIDES, OPEN = "shows", "hides", "open"
"""Whether the paper's procedure shows what is left: the gap is small, large, or neither."""

MARGIN = 0.10
"""Robust accuracy below which a network is broken, and the gap that counts as large.

Croce & Hein (ICML 2020) found robustness broken where AutoAttack left 10 points less than the
attacks of its authors; gradient descent of a few steps leaves some points more on any model.
"""

SMALL = 0.05
"""Share of the images below which no difference is called one, and no gradient masked."""

LEVEL = SIGNIFICANCE / 2
"""Of each one-sided error, over all settings of an experiment."""

SATURATED = 0.01
"""Each later attack of the suite has to add less than this share of the images."""

SHARES = ("clean", "paper", "corrected", "strongest", "gap", "masked", "weak")
SETTING = ("experiment", "dataset", "model", "tolerance", "norm", "epsilon")

_SHOWN = {
    BROKEN: "is broken",
    MASKED: "is masked",
    UNDER_SEARCHED: "is under-searched",
    SURVIVES: "survives",
}
_TESTS: dict[str, list[tuple[str, float, Literal["above", "below"]]]] = {
    BROKEN: [("strongest", MARGIN, "below")],
    MASKED: [("masked", SMALL, "above")],
    UNDER_SEARCHED: [("gap", MARGIN, "above"), ("masked", SMALL, "below")],
    SURVIVES: [("gap", MARGIN, "below"), ("strongest", MARGIN, "above")],
}
"""By verdict, the share, the margin and the side on which it has to be shown."""
_TESTED = (*_TESTS, "small", "large")
_COLUMNS = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    **dict.fromkeys(["n", "networks"], "int64"),
    "level": "str",
    **{f"{name}{part}": "float64" for name in SHARES for part in ("", "_low", "_high")},
    **{f"p_{name.replace('-', '_')}": "float64" for name in _TESTED},
    **dict.fromkeys(["added", "hidden"], "float64"),
    **dict.fromkeys(["verdict", "procedure", "because", "reason", "lacks"], "str"),
    "needed": "float64",
    "agree": "int64",
    "agree_low": "float64",
}

Counts = NDArray[np.int64]


def level_of(count: int) -> str:
    """What a statement about so many networks of a model is about."""
    return "this network" if count == 1 else f"these {count} networks"


def verdict_table(protocols: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """Give a verdict on every model, tolerance, norm and epsilon.

    Args:
        protocols: Result of `protocols.protocol_table`.
        checks: Result of `checks.check_table`.

    Returns:
        One row a setting, over all networks that were trained of the model (``level``): the mean
        over networks of accuracy without an attack (``clean``) and of the shares of `protocols`,
        each with an interval that contains the exact 95 % interval of every network; the p-values,
        adjusted by Holm over all settings, of the four verdicts and of a gap below (``p_small``)
        and above `MARGIN` (``p_large``); ``added`` and ``hidden``, the largest of the networks; the
        ``verdict``; whether the paper's ``procedure`` shows, hides or leaves open what the
        strongest attack finds; ``because`` of which rule, and the ``reason`` as sentences; what
        ``lacks`` for *survives* (empty if nothing); of an undecided setting how many images would
        be ``needed`` at least at these shares (NaN where no number would do, as where attacks are
        missing, or images are not what is missing); and how many of the networks ``agree``: have
        that verdict when each is taken by itself, with the exact lower bound of their share among
        networks trained like this (``agree_low``, NaN with fewer than five).
    """
    found = [
        _Setting.of(dict(zip(SETTING, key, strict=True)), own, checks)
        for key, own in protocols.groupby(list(SETTING), sort=False, dropna=False)
    ]
    together = _decide(found, adjust=True)
    alone = _decide([one for item in found for one in item.each()], adjust=False)
    rows = []
    for item, row in zip(found, together, strict=True):
        own = [next_row["verdict"] for next_row in alone[: len(item.n)]]
        del alone[: len(item.n)]
        agree = own.count(row["verdict"])
        row |= {"agree": agree, "agree_low": networks.share_of_networks(agree, len(own)).low}
        different = set(own) - {UNDECIDED}
        if row["verdict"] == UNDECIDED and row["because"] in _OF_SHARES and len(different) > 1:
            counted = [f"{own.count(name)} {name}" for name in VERDICTS if name in own]
            row |= ending(
                "networks",
                f"The {len(own)} networks differ: by themselves {listed(counted)}. More images "
                "would not make them one; a statement about networks trained like these needs at "
                f"least {networks.MANY} of them.",
            )
            row["needed"] = math.nan
        rows.append(item.row() | row)
    return tabulate(rows, _COLUMNS)


_OF_SHARES = ("images", "margin", "mixed")
"""The rules by which the shares leave a setting undecided."""


def ending(because: str, reason: str) -> dict[str, str]:
    """The columns that say how a verdict came about."""
    return {"because": because, "reason": reason}


@dataclass(frozen=True)
class _Setting:
    """What is known of one setting: images of each of its networks."""

    where: dict[Hashable, Any]
    n: Counts
    correct: Counts
    shares: dict[str, Counts]
    bounds: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    added: NDArray[np.float64]
    hidden: NDArray[np.float64]
    attacks_lack: tuple[str, ...]
    checks: pd.DataFrame

    @classmethod
    def of(cls, where: dict[Hashable, Any], own: pd.DataFrame, checks: pd.DataFrame) -> "_Setting":
        n = own.n.to_numpy()
        known = {"clean": own.correct / own.n.where(own.n > 0)} | {
            name: own[name] for name in SHARES[1:] if own[name].notna().all() and len(own)
        }
        shares = {
            name: (rates.fillna(0) * n).round().to_numpy().astype(int)
            for name, rates in known.items()
        }
        return cls(
            where,
            n,
            own.correct.to_numpy(),
            shares,
            {name: proportions.interval(counts, n) for name, counts in shares.items()},
            own.added.to_numpy(),
            own.hidden.to_numpy(),
            tuple(dict.fromkeys(text for text in own.lacks.fillna("") if text)),
            _of_setting(checks, where, own.seed.tolist()),
        )

    def each(self) -> Iterable["_Setting"]:
        """The networks, each as a setting by itself."""
        for i in range(len(self.n)):
            one = slice(i, i + 1)
            yield _Setting(
                self.where,
                self.n[one],
                self.correct[one],
                {name: counts[one] for name, counts in self.shares.items()},
                {name: (low[one], high[one]) for name, (low, high) in self.bounds.items()},
                self.added[one],
                self.hidden[one],
                self.attacks_lack,
                self.checks,
            )

    def largest(self, share: str, margin: float, side: str) -> float:
        """The largest p-value of the networks; NaN where the share is not known."""
        if share not in self.shares or not len(self.n) or not (self.n > 0).all():
            return math.nan
        test = proportions.above if side == "above" else proportions.below
        return float(np.max(test(self.shares[share], self.n, margin)))

    def estimate(self, share: str) -> Estimate:
        """The mean over the networks, and an interval that contains theirs."""
        if share not in self.shares:
            return Estimate(math.nan, math.nan, math.nan)
        with np.errstate(invalid="ignore"):
            return networks.across(self.shares[share] / self.n, *self.bounds[share])

    def p_values(self) -> dict[str, float]:
        """Of the verdicts, and of a small and of a large gap."""
        found = {
            verdict: float(np.max([self.largest(*test) for test in tests]))
            for verdict, tests in _TESTS.items()
        }
        if "masked" in self.shares and self.half_is_not_masked():
            found[MASKED] = 1.0
        small, large = (self.largest("gap", MARGIN, side) for side in ("below", "above"))
        return found | {"small": small, "large": large}

    def half_is_not_masked(self) -> bool:
        """Whether masked gradient is less than half of the gap in one of the networks."""
        return bool((2 * self.shares["masked"] < self.shares["gap"]).any())

    def lacks(self) -> list[str]:
        """What is missing before robust accuracy can be said to survive, in sentences."""
        found = []
        if self.attacks_lack:
            found.append(f"The attacks are too weak: add {'; '.join(self.attacks_lack)}.")
        elif not (self.added < SATURATED).all():
            most = float(np.nanmax(self.added)) if np.isfinite(self.added).any() else math.nan
            found.append(
                "The attacks have not saturated: "
                + (
                    "what the last of them add was not measured."
                    if math.isnan(most)
                    else f"one of the last still added {points(most)}."
                )
            )
        return found + _unsupported(self.checks)

    def row(self) -> dict[str, Any]:
        """The columns that hold before any decision."""
        row = self.where | {
            "n": int(self.n.max(initial=0)),
            "networks": len(self.n),
            "level": level_of(len(self.n)),
            "lacks": " ".join(self.lacks()),
            "added": _most(self.added),
            "hidden": _most(self.hidden),
        }
        for name in SHARES:
            value, low, high = self.estimate(name)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return {str(name): value for name, value in row.items()}


def _most(values: NDArray[np.float64]) -> float:
    return float(np.max(values, initial=-math.inf)) if len(values) else math.nan


def _of_setting(
    checks: pd.DataFrame, where: dict[Hashable, Any], seeds: Sequence[int]
) -> pd.DataFrame:
    tolerance = where["tolerance"]
    same = checks.tolerance.isna() if pd.isna(tolerance) else checks.tolerance == tolerance
    for name in ("experiment", "dataset", "model"):
        same &= checks[name] == where[name]
    same &= checks.norm.isin(["", where["norm"]]) & checks.seed.isin(seeds)
    own: pd.DataFrame = checks.loc[same]
    return own


def _unsupported(checks: pd.DataFrame) -> list[str]:
    """For each outcome but a pass, which of the checks that robustness needs have it."""
    needed = checks[checks.supports]
    if needed.empty:
        return ["No check was made."]
    return [
        f"These checks {_OUTCOMES.get(str(outcome), str(outcome))}: "
        f"{'; '.join(dict.fromkeys(own.title))}"
        f"{_remedy(own.check) if outcome == NOT_MEASURED else ''}."
        for outcome, own in needed[needed.outcome != PASSED].groupby("outcome", sort=True)
    ]


_OUTCOMES = {
    FAILED: "failed",
    NOT_MEASURED: "were not measured",
    UNDECIDED: "rest on too few images to pass",
}


def _remedy(names: Iterable[str]) -> str:
    known = {check.name: check.needs for check in CHECKS}
    missing = [need for need in dict.fromkeys(known.get(name, "") for name in names) if need]
    return f" (add an {listed(missing)})" if missing else ""


def _decide(found: Sequence[_Setting], *, adjust: bool) -> list[dict[str, Any]]:
    """The verdicts on settings, with p-values adjusted for their number or not."""
    p_values = [item.p_values() for item in found]
    values = {name: pd.Series([p[name] for p in p_values], dtype=float) for name in _TESTED}
    if adjust:
        for p in values.values():
            known = p.notna()
            p[known] = np.array(holm(p[known].tolist()))
    size = len(found) if adjust else 1
    return [
        {_column(name): values[name][i] for name in _TESTED}
        | _verdict(item, {name: float(values[name][i]) for name in _TESTED}, size)
        for i, item in enumerate(found)
    ]


def _column(name: str) -> str:
    return f"p_{name.replace('-', '_')}"


def _verdict(item: _Setting, p: dict[str, float], family: int) -> dict[str, Any]:
    procedure = SHOWS if p["small"] < LEVEL else HIDES if p["large"] < LEVEL else OPEN
    verdict, because, reason, needed = _ruling(item, p, procedure, family)
    return {
        "verdict": verdict,
        "procedure": procedure if "gap" in item.shares else "",
        "needed": needed,
        **ending(because, reason),
    }


def _ruling(
    item: _Setting, p: dict[str, float], procedure: str, family: int
) -> tuple[str, str, str, float]:
    """Verdict, rule, reason, and the images that are needed."""
    nothing = _no_accuracy(item)
    if nothing is not None:
        return UNDECIDED, *nothing, math.nan
    every = level_of(len(item.n))
    left, gap, masked, weak = (
        item.estimate(name) for name in ("strongest", "gap", "masked", "weak")
    )
    if p[BROKEN] < LEVEL:
        seen = {
            SHOWS: "The paper's procedure shows it.",
            HIDES: f"The paper's procedure hides it: it leaves {points(gap.value)} more"
            f"{_split(masked.value, weak.value)}.",
            OPEN: "Whether the paper's procedure shows it is not known."
            if math.isnan(gap.value)
            else f"The paper's procedure leaves {points(gap.value)} more"
            f"{_split(masked.value, weak.value)}.",
        }[procedure]
        reason = f"The known attacks together leave at most {percent(left.high)}. {seen}"
        return BROKEN, BROKEN, reason, math.nan
    if "gap" not in item.shares:
        reason = (
            f"The paper's attack did not run in this setting, or not on {every}: add bim_adjoint "
            "to the attacks, or name one of them under paper_attack."
        )
        return UNDECIDED, "no_paper", reason, math.nan
    numbers = (
        f"The paper's procedure leaves {percent(item.estimate('paper').value)} of the images, the "
        f"strongest attack {percent(left.value)}"
    )
    if p[MASKED] < LEVEL:
        reason = (
            f"{numbers}. Of these {points(gap.value)}, {points(masked.value)} are masked gradient "
            f"(the paper's own steps along another gradient break them), {points(weak.value)} weak "
            "search."
        )
        return MASKED, MASKED, reason, math.nan
    if p[UNDER_SEARCHED] < LEVEL:
        failed = item.checks[item.checks.outcome == FAILED]
        doubts = "; ".join(dict.fromkeys(failed.title[failed.check.str.contains("gradients")]))
        reason = (
            f"{numbers}. The paper's own steps along another gradient break {points(masked.value)} "
            f"more, at most {points(masked.high)}: the rest of the gap is weak search."
            + (f" But these checks failed: {doubts}." if doubts else "")
        )
        return UNDER_SEARCHED, UNDER_SEARCHED, reason, math.nan
    if p[SURVIVES] < LEVEL:
        lacks = item.lacks()
        if not lacks:
            return SURVIVES, SURVIVES, f"{numbers}. {_hidden(item)}", math.nan
        because = "attacks" if item.attacks_lack else _first_reason(item)
        return UNDECIDED, because, f"{numbers}. {' '.join(lacks)}", math.nan
    return UNDECIDED, *_undecided(item, numbers, procedure, family)


def _first_reason(item: _Setting) -> str:
    return "checks" if (item.added < SATURATED).all() else "saturation"


def _split(masked: float, weak: float) -> str:
    if math.isnan(masked):
        return ""
    return f", {points(masked)} by masked gradient and {points(weak)} by weak search"


def _hidden(item: _Setting) -> str:
    most = _most(item.hidden)
    saturated = (
        f"The attacks have saturated: the last added at most {points(_most(item.added))}. All "
        "checks that robustness needs passed."
    )
    if math.isnan(most):
        return saturated
    return (
        f"{saturated} About {points(most)} more could still be found (Chapman's estimate, which is "
        "rather too low)."
    )


def _no_accuracy(item: _Setting) -> tuple[str, str] | None:
    """Why there is no accuracy that an attack could take away; None if there is."""
    if not len(item.n) or not (item.n > 0).all():
        return "no_images", "There are no test images."
    if (item.correct == 0).any():
        solver = item.checks[item.checks.check == SOLVER_SUCCEEDS]
        dead = len(solver) and (solver.value == 1).any()
        why = ", because the solver fails on every one" if dead else ""
        return (
            "no_correct",
            f"No image is classified correctly without an attack{why}: nothing was attacked.",
        )
    lowest = item.estimate("clean").low
    if lowest <= MARGIN:
        return (
            "no_accuracy",
            f"Accuracy without an attack may be as low as {percent(lowest)}: an attack has nothing "
            f"to take away. It takes more images, or a network that classifies more than "
            f"{percent(MARGIN)} of them correctly.",
        )
    return None


def _undecided(item: _Setting, numbers: str, procedure: str, family: int) -> tuple[str, str, float]:
    """Rule, reason and the images that would decide, where the numbers show nothing."""
    if procedure == HIDES and "masked" not in item.shares:
        return (
            "no_corrected",
            f"{numbers}. Whether masked gradient or weak search is the reason is not known: no "
            "attack with the paper's steps follows another gradient (bim_direct, bim_surrogate).",
            math.nan,
        )
    if procedure == HIDES and (item.shares["masked"] > SMALL * item.n).all():
        masked, weak = item.estimate("masked"), item.estimate("weak")
        if item.half_is_not_masked():
            return (
                "mixed",
                f"{numbers}. {points(masked.value)} are masked gradient and {points(weak.value)} "
                "weak search: neither alone is the reason.",
                math.nan,
            )
    level = LEVEL / family
    images = {name: count for name in _TESTS if (count := _images(item, name, level)) is not None}
    if not images:
        return (
            "margin",
            f"{numbers}. This lies on a margin of the rules: no number of images would decide it.",
            math.nan,
        )
    verdict, needed = min(images.items(), key=lambda pair: pair[1])
    if verdict == SURVIVES and item.attacks_lack:
        return (
            "attacks",
            f"{numbers}. {' '.join(item.lacks())} No number of images shows without them that it "
            f"survives; with them it takes at least {needed:,}, if the shares stay as they are.",
            math.nan,
        )
    checked = ", once every check passes" if verdict == SURVIVES else ""
    return (
        "images",
        f"{numbers}. {int(item.n.max()):,} images are too few to tell; if the shares stay as they "
        f"are, {needed:,} would show that it {_SHOWN[verdict]}{checked}.",
        float(needed),
    )


def _images(item: _Setting, verdict: str, level: float) -> int | None:
    """How many images would show a verdict of the networks if their shares stay as they are."""
    if verdict == MASKED and ("masked" not in item.shares or item.half_is_not_masked()):
        return None
    needed = 0
    for share, margin, side in _TESTS[verdict]:
        if share not in item.shares:
            return None
        for rate in item.shares[share] / item.n:
            images = proportions.images_needed(float(rate), margin, side, level)
            if images is None:
                return None
            needed = max(needed, images)
    return max(needed, _images_of_checks(item.checks)) if verdict == SURVIVES else needed


def _images_of_checks(checks: pd.DataFrame) -> int:
    """How many images it takes at least until the checks that rest on too few can pass."""
    open_checks = set(checks.check[checks.supports & (checks.outcome == UNDECIDED)])
    limits = [check.limit for check in CHECKS if check.name in open_checks]
    return max(
        (
            proportions.images_needed(0.0, threshold, "below", SIGNIFICANCE) or 0
            for bound, threshold in limits
            if bound == "at most"
        ),
        default=0,
    )
