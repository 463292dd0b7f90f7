"""The verdict on every setting: holds, masked or undecided.

docs/verdict.md has the rules. Two errors are controlled over all settings of an experiment, each at
2.5 % (Holm): to call robustness masked that is not, and to say that it holds where the strongest
attack breaks it. What is not shown either way is undecided.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from node_robustness.statistics.crossed import Share, holm, proportion
from node_robustness.statistics.intervals import SIGNIFICANCE
from node_robustness.tables.frame import tabulate
from node_robustness.verdict.causes import Doubts, doubts
from node_robustness.verdict.checks import AUDITED, CHECKS, FAILED, NOT_MEASURED, SOLVER_SUCCEEDS
from node_robustness.verdict.comparisons import Replicated, columns
from node_robustness.verdict.protocols import Attempt
from node_robustness.words import listed, percent, points

HOLDS, MASKED, UNDECIDED, ABSENT = "holds", "masked", "undecided", "absent"

MARGIN = 0.10
"""The gap in robust accuracy between sound attacks of different strength, at most.

Croce & Hein (ICML 2020) found robustness broken where AutoAttack left 10 points less than the
attacks of its authors; gradient descent of a few steps leaves some points more on any model.
"""

LEVEL = SIGNIFICANCE / 2
"""Of either one-sided error, over all cells of an experiment."""

STEPS = 100
"""Gradient steps on an image, restarts and targets included, of a strong white-box attack."""

WHERE = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "tolerance": "float64",
    "norm": "str",
    "epsilon": "float64",
    **dict.fromkeys(["n", "seeds"], "int64"),
}
ENDING = {
    **dict.fromkeys(["p_masked", "p_holds"], "float64"),
    **dict.fromkeys(["verdict", "because", "reason"], "str"),
}
_VERDICTS = {
    **WHERE,
    **{
        f"{name}{part}": "float64"
        for name in ("clean", "paper", "strongest", "gap")
        for part in ("", "_low", "_high")
    },
    **ENDING,
}


def missing_attacks(attempts: Iterable[Attempt], ode: bool) -> list[str]:
    """Say what an attack suite lacks for robustness under it to count as such.

    Args:
        attempts: The cells of a model, tolerance and norm.
        ode: Whether the model solves an ODE.

    Returns:
        For each kind of attack that is missing, what to add; empty if none is.
    """
    ran = list(attempts)
    wanted = [
        (
            any(
                attempt.method in ("pgd", "apgd")
                and attempt.gradient == "direct"
                and _steps(attempt.settings) >= STEPS
                for attempt in ran
            ),
            f"apgd or pgd with direct gradients and at least {STEPS} steps in all",
        ),
        (
            not ode or any(attempt.gradient == "surrogate" for attempt in ran),
            "an attack with surrogate gradients",
        ),
        (
            any(attempt.black_box for attempt in ran),
            "an attack without gradients of the model (square or transfer)",
        ),
    ]
    return [what for there, what in wanted if not there]


def _steps(settings: Mapping[str, Any]) -> int:
    counts = (settings.get(name) or 1 for name in ("iterations", "restarts", "targets"))
    return math.prod(counts)


@dataclass
class _Case:
    """What is known of one cell before the verdict.

    ``left`` is what the strongest attack leaves, over all seeds and by seed; ``unmeasured`` are
    sentences; ``unsolved`` is true where every solve of a clean image fails.
    """

    row: dict[str, Any]
    gap: Share | None
    left: Share
    left_by_seed: list[float]
    gap_by_seed: list[float]
    missing: list[str]
    failed: list[str]
    unmeasured: list[str]
    unsolved: bool
    gradients: Doubts


def verdict_table(
    items: Sequence[Replicated], checks: pd.DataFrame, paper: str | None
) -> pd.DataFrame:
    """Give a verdict on every model, tolerance, norm and epsilon.

    Args:
        items: Result of `comparisons.replicated`.
        checks: Result of `checks.check_table`.
        paper: Name of the paper's attack, None without one.

    Returns:
        One row a cell over all seeds: accuracy without an attack (``clean``), robust accuracy
        under both protocols and the ``gap``, with 95 % intervals over images and seeds; the
        Holm-adjusted p-values of "the gap is at most `MARGIN`" (``p_masked``) and of "it is at
        least that" (``p_holds``); the ``verdict`` (holds, masked, undecided), ``because`` of
        which rule (gap; no_correct, no_paper, no_robustness, weak_attack, attack_suite, checks,
        images, seeds), and the ``reason`` as a sentence.
    """
    cases = [_case(item, epsilon, checks, paper) for item in items for epsilon in item.epsilons]
    decidable = [case for case in cases if case.gap is not None]
    above = holm([case.gap.above(MARGIN) for case in decidable if case.gap])
    below = holm([case.gap.below(MARGIN) for case in decidable if case.gap])
    for case, masked, holds in zip(decidable, above, below, strict=True):
        case.row |= {"p_masked": masked, "p_holds": holds}
    for case in cases:
        case.row |= _decide(case, len(decidable), paper)
    return tabulate((case.row for case in cases), _VERDICTS)


def _case(item: Replicated, epsilon: float, checks: pd.DataFrame, paper: str | None) -> _Case:
    strongest, papers = (item.robust(p, paper, epsilon) for p in ("strongest", "paper"))
    assert strongest is not None  # every cell has it
    row = item.where | {
        "epsilon": epsilon,
        "n": strongest.shape[1],
        "seeds": len(strongest),
        **columns("clean", proportion(item.correct)),
        **columns("strongest", proportion(strongest)),
    }
    gap, gap_by_seed = None, []
    if papers is not None and papers.size:
        hidden = papers & ~strongest
        row |= columns("paper", proportion(papers)) | columns("gap", proportion(hidden))
        gap, gap_by_seed = Share.of(hidden), hidden.mean(axis=1).tolist()
    own = _of(checks, item)
    return _Case(
        row,
        gap,
        Share.of(strongest),
        strongest.mean(axis=1).tolist(),
        gap_by_seed,
        list(
            dict.fromkeys(
                what
                for group in item.groups.values()
                for what in missing_attacks(group.attempts, item.ode)
            )
        ),
        list(dict.fromkeys(own.title[own.supports & (own.outcome == FAILED)])),
        _unmeasured(own),
        bool((own.value[own.check == SOLVER_SUCCEEDS] == 1).all() and item.ode),
        doubts(item, own, paper, epsilon),
    )


def _unmeasured(checks: pd.DataFrame) -> list[str]:
    """For each reason why checks were not measured a sentence, with what can be done."""
    missing = checks[checks.supports & (checks.outcome == NOT_MEASURED)]
    audited = set(checks.seed[(checks.check == AUDITED) & (checks.outcome != NOT_MEASURED)])
    titles: dict[str, list[str]] = {}
    for check, seed in zip(missing.check, missing.seed, strict=True):
        titles.setdefault(_why_unmeasured(str(check), seed in audited), []).append(str(check))
    known = {check.name: check.title for check in CHECKS}
    return [
        f"These checks were not measured ({why}): "
        f"{'; '.join(known[check] for check in dict.fromkeys(own))}."
        for why, own in titles.items()
    ]


def _why_unmeasured(check: str, audited: bool) -> str:
    needed = next(known.needs for known in CHECKS if known.name == check)
    if needed:
        return f"there was no {needed}; add one to the attacks"
    if audited:
        return (
            "the audit had no image for them: none is classified correctly, or nothing changes "
            "their logits"
        )
    return "there was no audit; turn audit on, which a model with backend torchdiffeq cannot have"


def _of(checks: pd.DataFrame, item: Replicated) -> pd.DataFrame:
    """The checks of all seeds of a model at a tolerance."""
    where = item.where
    tolerance = where["tolerance"]
    same = checks.tolerance.isna() if tolerance is None else checks.tolerance == tolerance
    same &= (checks.dataset == where["dataset"]) & (checks.model == where["model"])
    same &= checks.seed.isin(list(item.groups))
    own: pd.DataFrame = checks.loc[same]
    return own


def _decide(case: _Case, family: int, paper: str | None) -> dict[str, str]:
    row, gap = case.row, case.gap
    if row["clean"] == 0:
        why = ", because the solver fails on every one" if case.unsolved else ""
        return ending(
            UNDECIDED,
            "no_correct",
            f"No image is classified correctly without an attack{why}: nothing was attacked.",
        )
    if gap is None:
        return ending(
            UNDECIDED,
            "no_paper",
            "No attack of this experiment is the paper's: add bim_adjoint to the attacks, or name "
            "one of them under paper_attack."
            if paper is None
            else f"{paper}, the paper's attack here, has no cell with this norm and epsilon.",
        )
    if row["p_masked"] < LEVEL and not case.gradients.sound:
        return ending(
            MASKED,
            "gap",
            f"The paper's protocol leaves {percent(row['paper'])} of the images, the strongest "
            f"attack {percent(row['strongest'])}: {points(row['gap'])} of robust accuracy are "
            f"masked gradients ({_against(case.gradients)}).",
        )
    reasons = list(_reasons(case, gap, family))
    if reasons:
        return ending(UNDECIDED, reasons[0][0], " ".join(sentence for _, sentence in reasons))
    return ending(
        HOLDS,
        "gap",
        f"The strongest attack leaves {percent(row['strongest'])} of the images, the paper's "
        f"protocol {percent(row['paper'])}: the gap is below {points(MARGIN)}, and all checks "
        "passed.",
    )


def _against(gradients: Doubts) -> str:
    """Why the gradients of the paper's attack are not known to be accurate."""
    if gradients.found:
        return "; ".join(gradients.found)
    return f"no check shows that they are accurate; not measured: {'; '.join(gradients.unmeasured)}"


def _reasons(case: _Case, gap: Share, family: int) -> Iterable[tuple[str, str]]:
    """Why robustness cannot be said to hold, the most important reason first."""
    row = case.row
    if not row["strongest_low"] > MARGIN:
        left = f"{percent(row['strongest_low'])} to {percent(row['strongest_high'])}"
        if case.left.value > MARGIN and _disagree(case.left, row["n"]):
            yield (
                "seeds",
                f"The strongest attack leaves {listed([percent(x) for x in case.left_by_seed])} of "
                f"the images of the {row['seeds']} networks. For other networks that may be too "
                f"little for robustness to hold ({left}).",
            )
        else:
            yield (
                "no_robustness",
                f"The strongest attack leaves {percent(row['strongest'])} ({left}), too little for "
                "robustness to hold.",
            )
    if row["p_masked"] < LEVEL:
        yield (
            "weak_attack",
            f"The paper's protocol leaves {percent(row['paper'])} of the images, the strongest "
            f"attack {percent(row['strongest'])}. The checks of its gradients passed, and other "
            "gradients do not make it stronger: it has too few steps or a weak loss. This is "
            "evidence neither of masked gradients nor of robustness.",
        )
    if case.missing:
        yield (
            "attack_suite",
            "The attacks that ran are too weak for robustness to hold: add "
            f"{listed(case.missing)}.",
        )
    if case.failed:
        yield "checks", f"These checks failed: {'; '.join(case.failed)}."
    if case.unmeasured:
        yield "checks", " ".join(case.unmeasured)
    if row["p_holds"] >= LEVEL and row["p_masked"] >= LEVEL:
        yield _too_few(case, gap, family)


def _disagree(share: Share, images: int) -> bool:
    """Whether the seeds differ by more than their images explain."""
    return round(share.images) < images  # equal ones may fall short by a rounding error


def _too_few(case: _Case, gap: Share, family: int) -> tuple[str, str]:
    """Why the gap can neither be said to be above the margin nor below it."""
    n, seeds = case.row["n"], case.row["seeds"]
    large = gap.value > MARGIN
    start = f"The gap of {points(gap.value)} may still be {points(MARGIN)} or less: "
    if _disagree(gap, n):
        return "seeds", (
            f"{start if large else ''}{n} images of {seeds} networks that differ (gaps of "
            f"{listed([points(x) for x in case.gap_by_seed])}) count as {gap.images:.1f} "
            f"independent ones, too few to "
            f"{'tell' if large else f'rule out a gap of {points(MARGIN)}'}. More seeds would help."
        )
    if large:
        return "images", f"{start}{n} images are too few to tell."
    least = math.ceil(math.log(LEVEL / family) / math.log1p(-MARGIN))
    return "images", (
        f"{n} images are too few to rule out a gap of {points(MARGIN)}. Without any gap, {least} "
        "images are needed."
    )


def ending(verdict: str, because: str, reason: str) -> dict[str, str]:
    """The columns `ENDING` that say how a verdict came about."""
    return {"verdict": verdict, "because": because, "reason": reason}
