"""The first screen: what was asked of a run, and an answer to each of the paper's three claims.

An answer is one sentence over all settings of the run, computed from the tables of the claims. It
says what is shown: what is not shown is not shown to be false.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.numbers import label
from node_robustness.report.paper import CLAIMS
from node_robustness.report.phrases import NORMS, counted
from node_robustness.verdict.contrasts import EQUIVALENT, LESS, MORE, UNDECIDED
from node_robustness.verdict.tolerances import NONE, REAL, REVERSED
from node_robustness.verdict.verdicts import MASKED
from node_robustness.words import listed

Sure = Literal["shown", "in part", "not shown", "not measured"]

NOT_MEASURED = "Not measured in this run."
"""The answer to a question that a run does not ask."""

_QUESTIONS = {
    "models": "Are ODE nets more robust?",
    "tolerances": "Does a larger tolerance protect?",
    "dynamics": "Can the part of the dynamics that is to blame be pinpointed?",
}
_NAMED = 3  # more models are counted


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, and what a run says of it.

    Attributes:
        key: ``models``, ``tolerances`` or ``dynamics``.
        question: the claim as a question.
        paper: what the paper says.
        answer: what the run shows, in one sentence.
        sure: whether the answer is shown in all settings that have something to compare, in part of
            them or in none, or was not measured.
        how_sure: of which networks and images, by which tests; or why it was not measured.
        figure: name of the small figure; None if there is none.
        alt: what the figure shows, for readers who cannot see it.
        topic: the topic of the report that has the evidence.
    """

    key: str
    question: str
    paper: str
    answer: str
    sure: Sure
    how_sure: str
    figure: str | None
    alt: str
    topic: str


@dataclass(frozen=True)
class _Said:
    """What is said of a claim."""

    answer: str
    sure: Sure
    how_sure: str


def asked(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say in one sentence what a run measured.

    Args:
        tables: ``clean`` and ``attacks`` of the experiment.
    """
    clean, attacks = tables["clean"], tables["attacks"]
    if clean.empty:
        return "Nothing was measured."
    what = f"{_models_of(clean)} on {listed(list(dict.fromkeys(clean.dataset)))}"
    taus = sorted(set(clean.tolerance.dropna()))
    at = f", at {_tolerances(taus)}" if taus else ""
    if attacks.empty:
        return f"How accurate are {what}{at}, on {_images(clean.n)}?"
    sizes = [
        f"{NORMS[str(norm)]} ε = {listed([label(float(value)) for value in sorted(set(own))])}"
        for norm, own in attacks.groupby("norm", sort=False).epsilon
    ]
    return (
        f"How robust are {what} to perturbations of {listed(sizes)}{at}, under "
        f"{counted(attacks.attack.nunique(), 'attack')} on {_images(clean.n)}?"
    )


def claims(tables: Mapping[str, pd.DataFrame]) -> list[Claim]:
    """Answer the three claims of the paper.

    Args:
        tables: ``verdicts``, ``models`` and ``tolerances`` of the experiment, and ``dynamics`` if
            it has one.
    """
    said = {
        "models": _of_models(tables["models"], tables["verdicts"]),
        "tolerances": _of_tolerances(tables["tolerances"], tables["verdicts"]),
        "dynamics": _of_dynamics(tables.get("dynamics", pd.DataFrame())),
    }
    found = []
    for key, own in said.items():
        figure = f"claim_{key}"
        drawn = own.sure != "not measured" and figure in FIGURES and has_rows(figure, tables)
        found.append(
            Claim(
                key,
                _QUESTIONS[key],
                CLAIMS[key],
                own.answer,
                own.sure,
                own.how_sure,
                figure if drawn else None,
                FIGURES[figure].shows if drawn else "",
                key,
            )
        )
    return found


def _of_models(models: pd.DataFrame, verdicts: pd.DataFrame) -> _Said:
    if models.empty:
        return _not_measured(_why_no_models(verdicts))
    left = models[(models.strongest_robust > 0) | (models.strongest_reference > 0)]
    if left.empty:
        return _nothing_left(models)
    more, less, equal = (left[left.strongest_claim == name] for name in (MORE, LESS, EQUIVALENT))
    seems = left[(left.paper_claim == MORE) & (left.strongest_claim != MORE)]
    if len(more):
        lead = (
            f"{_names(more)} {_is(more)} more robust than {_references(more)} in "
            f"{_of(more, left)}, against the strongest attack"
        )
    else:
        lead = f"No ODE net is shown to be more robust in {_any(left)}"
    clauses = [
        _if(
            less,
            lambda: (
                f"{_names(less)} {_is(less)} even less robust than {_references(less)} in "
                f"{len(less)} against the strongest attack"
            ),
        ),
        _if(
            seems,
            lambda: (
                f"against the paper's attack {_names(seems)} only {_seem(seems)} more robust "
                f"in {len(seems)}"
            ),
        ),
        _if(
            equal,
            lambda: f"in {len(equal)} both are equally robust (within 5 points)",
        ),
    ]
    return _said(lead, clauses, left, models, left.strongest_claim, "exact tests")


def _why_no_models(verdicts: pd.DataFrame) -> str:
    if verdicts.empty:
        return "No attack ran."
    if verdicts.tolerance.isna().all():
        return "No model of this run has an ODE that is solved to a tolerance."
    if verdicts.tolerance.notna().all():
        return "No model of this run is without an ODE."
    return "Models with and without an ODE have no setting in common."


def _of_tolerances(tolerances: pd.DataFrame, verdicts: pd.DataFrame) -> _Said:
    if tolerances.empty:
        return _not_measured(_why_no_tolerances(verdicts))
    left = tolerances[tolerances.because != "nothing_left"]
    if left.empty:
        return _nothing_left(tolerances)
    real, masked, turned, none = (
        left[left.claim == name] for name in (REAL, MASKED, REVERSED, NONE)
    )
    if len(real):
        lead = (
            f"A larger tolerance protects {_names(real)} in {_of(real, left)}, also against the "
            "strongest attack"
        )
    else:
        lead = f"A larger tolerance is not shown to protect in {_any(left)}"
    clauses = [
        _if(
            masked,
            lambda: (
                f"in {len(masked)} it mainly spoils the gradient that the paper's attack "
                "follows (masked gradient)"
            ),
        ),
        _if(turned, lambda: f"in {len(turned)} it makes {_names(turned)} less robust"),
        _if(none, lambda: f"in {len(none)} it changes less than 5 points"),
    ]
    return _said(lead, clauses, left, tolerances, left.claim, "exact tests")


def _why_no_tolerances(verdicts: pd.DataFrame) -> str:
    if verdicts.empty:
        return "No attack ran."
    if verdicts.tolerance.isna().all():
        return "No model of this run has an ODE that is solved to a tolerance."
    return "No model of this run was attacked at two tolerances."


def _of_dynamics(dynamics: pd.DataFrame) -> _Said:
    if dynamics.empty:
        return _not_measured("The shares of the parts of the dynamics were not computed.")
    known = dynamics[dynamics.because != "no_adversarial"]
    if known.empty:
        return _Said(
            f"No adversarial example was found in {_any(dynamics)}: there is nothing to blame.",
            "not shown",
            _basis(dynamics, dynamics, "", 0),
        )
    pinpointed, before, spread = (
        known[known.claim == name] for name in ("pinpointed", "before", "spread")
    )
    if len(pinpointed):
        lead = (
            f"One part, at most a third of the dynamics, does more than half of the harm in "
            f"{_of(pinpointed, known)}"
        )
    else:
        lead = f"No part of the dynamics is pinpointed in {_any(known)}"
    clauses = [
        _if(
            before,
            lambda: (
                f"in {len(before)} more than half of the harm to the decision is done before "
                "the dynamics begin"
            ),
        ),
        _if(spread, lambda: f"in {len(spread)} it is spread over them"),
    ]
    return _said(lead, clauses, known, dynamics, known.claim, "95 % intervals over images")


def _said(
    lead: str,
    clauses: Sequence[str],
    left: pd.DataFrame,
    every: pd.DataFrame,
    claim: "pd.Series[str]",
    tests: str,
) -> _Said:
    """One sentence, whether it is shown, and of what."""
    undecided = int((claim == UNDECIDED).sum())
    sure: Sure = "shown"
    if undecided:
        sure = "in part" if undecided < len(left) else "not shown"
    known = [clause for clause in clauses if clause]
    sentence = f"{lead}: {', '.join(known)}." if known else f"{lead}."
    return _Said(sentence, sure, _basis(left, every, tests, undecided))


def _basis(left: pd.DataFrame, every: pd.DataFrame, tests: str, undecided: int) -> str:
    """Which networks and images an answer is of, by which tests, and what is undecided."""
    levels = list(dict.fromkeys(every.level))
    whose = levels[0] if len(levels) == 1 else "the networks that were trained"
    parts = [f"Of {whose}, {_images(every.n)}"]
    if tests:
        parts.append(f"{tests}, corrected for all settings")
    if undecided:
        parts.append(f"undecided in {undecided} of {counted(len(left), 'setting')}")
    if len(left) < len(every):
        parts.append(f"nothing to compare in {len(every) - len(left)} more")
    return "; ".join(parts) + "."


def _not_measured(why: str) -> _Said:
    return _Said(NOT_MEASURED, "not measured", why)


def _nothing_left(every: pd.DataFrame) -> _Said:
    return _Said(
        f"Not shown: the strongest attack leaves no image to compare in {_any(every)}.",
        "not shown",
        _basis(every, every, "", 0),
    )


def _if(rows: pd.DataFrame, clause: Callable[[], str]) -> str:
    return clause() if len(rows) else ""


def _names(rows: pd.DataFrame) -> str:
    names = list(dict.fromkeys(rows.model))
    return listed(names) if len(names) <= _NAMED else f"{len(names)} models"


def _references(rows: pd.DataFrame) -> str:
    return listed(list(dict.fromkeys(rows.reference_model)), "or")


def _is(rows: pd.DataFrame) -> str:
    return "is" if rows.model.nunique() == 1 else "are"


def _seem(rows: pd.DataFrame) -> str:
    return "seems" if rows.model.nunique() == 1 else "seem"


def _of(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    if len(rows) == len(every):
        return "the one setting" if len(every) == 1 else f"all {len(every)} settings"
    return f"{len(rows)} of {len(every)} settings"


def _any(rows: pd.DataFrame) -> str:
    return "the one setting" if len(rows) == 1 else f"any of {len(rows)} settings"


def _images(n: "pd.Series[int]") -> str:
    least, most = int(n.min()), int(n.max())
    return counted(most, "test image") if least == most else f"{least:,} to {most:,} test images"


def _models_of(clean: pd.DataFrame) -> str:
    """The models with the number of their networks, said once where it is the same for all."""
    networks = clean.groupby("model", sort=False).seed.nunique()
    counts = {int(count) for count in networks}
    if len(counts) == 1:
        each = " each" if len(networks) > 1 else ""
        return f"{listed(list(networks.index))} ({counted(counts.pop(), 'network')}{each})"
    return listed(
        [f"{model} ({counted(int(count), 'network')})" for model, count in networks.items()]
    )


def _tolerances(taus: Sequence[float]) -> str:
    if len(taus) == 1:
        return f"solver tolerance τ = {label(float(taus[0]))}"
    ends = f"{label(float(taus[0]))} to {label(float(taus[-1]))}"
    return f"{len(taus)} solver tolerances from τ = {ends}"
