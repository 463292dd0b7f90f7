"""The first screen: what was asked of a run, and an answer to each of the paper's three claims.

An answer is one sentence over all settings of the run, computed from the tables of the claims. It
says what is shown: what is not shown is not shown to be false. A run that has no model to compare
with is asked first whether the robustness of its models is real.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.numbers import label
from node_robustness.report.leaderboard import author_settings
from node_robustness.report.overviews import undecided
from node_robustness.report.paper import CLAIMS
from node_robustness.report.phrases import NORMS, counted, sized
from node_robustness.tables.frame import NO_ODE, OWN, records, tau_words
from node_robustness.verdict.contrasts import EQUIVALENT, LESS, MORE, UNDECIDED
from node_robustness.verdict.dynamics import BOTH, NECESSARY
from node_robustness.verdict.tolerances import NONE, REAL, REVERSED
from node_robustness.verdict.verdicts import MASKED, VERDICTS
from node_robustness.words import listed, percent

Sure = Literal["shown", "in part", "not shown", "not measured"]

NOT_MEASURED = "Not measured in this run."
"""The answer to a question that a run does not ask."""

_QUESTIONS = {
    "models": "Are ODE nets more robust?",
    "tolerances": "Does a larger tolerance protect?",
    "dynamics": "Is one part of the dynamics to blame?",
}
_NAMED = 2  # more models are counted
_MISLED = "misled image"
_SPELLED_OUT = 4  # verdicts on more settings are counted


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, or that a robustness is real, and what a run says of it.

    Attributes:
        key: ``models``, ``tolerances``, ``dynamics`` or ``verdicts``.
        question: the claim as a question.
        paper: what the paper says; empty if it says nothing.
        answer: what the run shows, in one sentence; of a robustness, a line a setting.
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
    places = [
        *([_tolerances(taus)] if (taus := sorted(set(clean.tolerance.dropna()))) else []),
        *(["own settings"] if OWN in set(clean.tau) else []),
    ]
    at = f", at {listed(places)}" if places else ""
    are = "is" if clean.model.nunique() == 1 else "are"
    if attacks.empty:
        return f"How accurate {are} {what}{at}, on {_images(clean.n)}?"
    return (
        f"How robust {are} {what} to perturbations of {_sizes(attacks)}{at}, under "
        f"{counted(attacks.attack.nunique(), 'attack')} on {_images(clean.n)}?"
    )


def answers(
    tables: Mapping[str, pd.DataFrame], models: Mapping[str, Mapping[str, Any]]
) -> list[Claim]:
    """Answer the questions of the first screen.

    Args:
        tables: As for `claims`.
        models: The models of the configuration, as JSON can hold it.

    Returns:
        The three claims. Where no model is compared with another, the first of them makes place for
        the verdicts on every model at its own settings.
    """
    first, *others = claims(tables)
    verdicts = tables["verdicts"]
    if verdicts.empty or len(tables["models"]):
        return [first, *others]
    return [_whether_real(verdicts, author_settings(verdicts, models)), *others]


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


def _whether_real(verdicts: pd.DataFrame, settings: Mapping[str, str]) -> Claim:
    own = verdicts[verdicts.tau == verdicts.model.map(settings)]
    solved_at = [tau_words(tau) for tau in dict.fromkeys(own.tau) if tau != NO_ODE]
    where = f" at {listed(solved_at)}" if solved_at else ""
    said = _said(_verdicts_on(own), [], own.verdict, _basis(own, own, {}))
    if own.needed.notna().any():
        said = replace(said, how_sure=f"{said.how_sure} Images needed: if the shares stay so.")
    question = f"Is the robustness{where} real?"
    return Claim(
        "verdicts", question, "", said.answer, said.sure, said.how_sure, None, "", "verdicts"
    )


def _verdicts_on(own: pd.DataFrame) -> str:
    """A line a setting; many settings are counted by their verdict."""
    if len(own) > _SPELLED_OUT:
        counts = own.verdict.value_counts()
        found = [f"{name} in {counts[name]}" for name in VERDICTS if name in counts]
        return f"Of {len(own)} settings: {listed(found)}"
    several = own[["dataset", "model"]].drop_duplicates().shape[0] > 1
    return ".\n".join(
        (f"{_models(own.iloc[[place]])} at " if several else "At ") + _verdict_on(row)
        for place, row in enumerate(records(own))
    )


_LEFT = {
    "paper": "the paper's attack leaves",
    "corrected": "corrected gradients",
    "strongest": "the strongest attack",
}


def _verdict_on(row: Mapping[str, Any]) -> str:
    shares = [f"{by} {percent(row[name])}" for name, by in _LEFT.items() if pd.notna(row[name])]
    verdict = row["verdict"]
    if verdict == UNDECIDED:
        verdict = undecided(row["because"], row["needed"])
    left = listed(shares) if shares else "nothing was measured"
    return f"{sized(row['norm'], row['epsilon'])} {left}: {verdict}"


def _of_models(models: pd.DataFrame, verdicts: pd.DataFrame) -> _Said:
    if models.empty:
        return _not_measured(_why_no_models(verdicts))
    left = models[(models.strongest_robust > 0) | (models.strongest_reference > 0)]
    if left.empty:
        return _nothing_left(models)
    more, less, equal = (left[left.strongest_claim == name] for name in (MORE, LESS, EQUIVALENT))
    seems = left[(left.paper_claim == MORE) & (left.strongest_claim != MORE)]
    than = listed(list(dict.fromkeys(left.reference_model)), "or")
    lead = (
        f"{_models(more)} {_verb(more, 'is')} more robust than {than} in {_of(more, left)}"
        if len(more)
        else f"no ODE net is shown to be more robust than {than} in {_any(left)}"
    )
    clauses = []
    if len(less):
        clauses.append(_in_each(less, "is less robust"))
    if len(seems):
        again = "it" if _verb(seems, "is") == "is" else "they"
        who = again if clauses and _models(seems) == _models(less) else _models(seems)
        clauses.append(
            f"{who} only {_verb(seems, 'seems')} more robust in {len(seems)} against the paper's "
            "attack"
        )
    if len(equal) and not clauses:
        clauses.append(f"in {len(equal)} both are equally robust (within 5 points)")
    return _said(
        f"Against the strongest attack {lead}",
        clauses,
        left.strongest_claim,
        _basis(models, left, {"equal within 5 points": equal}),
    )


def _why_no_models(verdicts: pd.DataFrame) -> str:
    if verdicts.empty:
        return "No attack ran."
    plain = verdicts.tau == NO_ODE
    if plain.all():
        return _NO_ODE
    if not plain.any():
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
    lead = (
        f"A larger tolerance protects {_models(real)} in {_of(real, left)}, also against the "
        "strongest attack"
        if len(real)
        else f"A larger tolerance is not shown to protect in {_any(left)}"
    )
    clauses = []
    if len(masked):
        clauses.append(
            f"in {len(masked)} it mainly masks the gradient and so misleads the paper's attack"
        )
    if len(turned):
        clauses.append(f"in {len(turned)} it makes {_models(turned)} less robust")
    if len(none) and not clauses:
        clauses.append(f"in {len(none)} it changes less than 5 points")
    return _said(
        lead, clauses, left.claim, _basis(tolerances, left, {"below 5 points of change": none})
    )


def _why_no_tolerances(verdicts: pd.DataFrame) -> str:
    if verdicts.empty:
        return "No attack ran."
    if (verdicts.tau == NO_ODE).all():
        return _NO_ODE
    if verdicts.tolerance.isna().all():
        return "No model of this run has an ODE that is solved to a tolerance."
    if OWN in set(verdicts.tau):
        return "No model of this run was attacked at a tolerance above that of its own settings."
    return "No model of this run was attacked at two tolerances."


_NO_ODE = "No model of this run is known to have an ODE."


def _of_dynamics(dynamics: pd.DataFrame) -> _Said:
    if dynamics.empty:
        return _not_measured("What each part of the dynamics adds was not computed.")
    known = dynamics[dynamics.because != "no_adversarial"]
    if known.empty:
        return _Said(
            f"No adversarial example was found in {_any(dynamics)}: there is nothing to blame.",
            "not shown",
            f"{_networks(dynamics, _MISLED)}.",
        )
    part, before, spread = (
        known[known.claim == name] for name in ("pinpointed", "before", "spread")
    )
    lead = (
        f"One part, at most a third of the dynamics, does more than half of the harm in "
        f"{_of(part, known)}"
        if len(part)
        else f"No single part of the dynamics is shown to do half of the harm in {_any(known)}"
    )
    clauses = []
    if len(before):
        body = "ODE" if (before.tau != NO_ODE).all() else "dynamics"
        whose = _whose(before, known)
        clauses.append(f"in {len(before)}{whose} most of it is owed to what enters the {body}")
    if len(spread):
        clauses.append(f"in {len(spread)}{_whose(spread, known)} it is spread")
    needed = known[known.patch.isin([NECESSARY, BOTH])]
    if len(needed):
        # The second view may speak against the first.
        still = f"undoing one window restores most decisions in {len(needed)}"
        clauses.append(f"{clauses.pop()}, though {still}" if clauses else still)
    located = known[known.claim.isin(["pinpointed", "before"]) & known.particular.notna()]
    particular = located[located.particular == 1]
    basis = _basis(dynamics, known, {}, _MISLED)
    if len(located):
        basis += f"; beyond noise and another image's change in {len(particular)} of {len(located)}"
    return _said(lead, clauses, known.claim, basis)


def _said(lead: str, clauses: Sequence[str], claim: "pd.Series[str]", basis: str) -> _Said:
    """One sentence, and whether it is shown.

    Args:
        lead: the main clause.
        clauses: what else is shown, the most important first.
        claim: the verdict on every setting that has something to compare.
        basis: which networks and images it is of.
    """
    undecided = int((claim == UNDECIDED).sum())
    sure: Sure = "shown"
    if undecided:
        sure = "in part" if undecided < len(claim) else "not shown"
    if undecided:
        basis += f"; {undecided} of {counted(len(claim), 'setting')} undecided"
    return _Said(f"{lead}; {', and '.join(clauses)}." if clauses else f"{lead}.", sure, f"{basis}.")


def _basis(
    every: pd.DataFrame,
    left: pd.DataFrame,
    others: Mapping[str, pd.DataFrame],
    images: str = "test image",
) -> str:
    """The tests, the networks and the images that an answer rests on, and what it leaves out.

    Args:
        every: all settings.
        left: those that have something to compare.
        others: what is shown besides, by how it is called.
        images: what an image is called.
    """
    parts = [f"{len(rows)} {words}" for words, rows in others.items() if len(rows)]
    if len(left) < len(every):
        parts.append(f"{len(every) - len(left)} with nothing to compare")
    basis = f"Exact tests on {_networks(every, images)}, corrected for all settings"
    return f"{basis}; {', '.join(parts)}" if parts else basis


def _networks(every: pd.DataFrame, images: str = "test image") -> str:
    counts = {*every.networks, *every.get("reference_networks", [])}
    if counts == {1}:
        alone = every.model.nunique() == 1 and "reference_model" not in every
        whose = "this network" if alone else "one network a model"
    else:
        whose = f"each of {max(counts)} networks a model" if len(counts) == 1 else "every network"
    # Each network misleads images of its own, and a row has the smallest number of them.
    own = images == _MISLED and counts != {1} and every.n.min() > 0
    number = f"at least {counted(int(every.n.min()), images)}" if own else _images(every.n, images)
    return f"{number} of {whose}"


def _not_measured(why: str) -> _Said:
    return _Said(NOT_MEASURED, "not measured", why)


def _nothing_left(every: pd.DataFrame) -> _Said:
    return _Said(
        f"There is nothing to compare: the strongest attack leaves no image in {_any(every)}.",
        "not shown",
        f"{_networks(every)}.".capitalize(),
    )


def _models(rows: pd.DataFrame) -> str:
    """The models of some settings, with their datasets where there are several."""
    several = rows.dataset.nunique() > 1
    pairs = zip(rows.model, rows.dataset, strict=True)
    names = list(dict.fromkeys(f"{m} on {d}" if several else str(m) for m, d in pairs))
    return listed(names) if len(names) <= _NAMED else f"{len(names)} models"


def _whose(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    """The models of some settings in brackets, where there are others and the names are short."""
    short = every.dataset.nunique() == 1 and 1 < every.model.nunique() <= _NAMED
    return f" ({_models(rows)})" if short else ""


def _in_each(rows: pd.DataFrame, verb: str) -> str:
    """In how many settings something holds of each model; many models are counted together."""
    counts = rows.groupby(["model", "dataset"], sort=False).size()
    if len(counts) > _NAMED:
        return f"{_models(rows)} {verb.replace('is', 'are')} in {len(rows)}"
    several = rows.dataset.nunique() > 1
    names = [f"{m} on {d}" if several else str(m) for m, d in counts.index]
    first, *others = [f"in {count}" for count in counts]
    return listed(
        [f"{names[0]} {verb} {first}", *map(" ".join, zip(names[1:], others, strict=True))]
    )


def _verb(rows: pd.DataFrame, singular: str) -> str:
    one = len(rows[["model", "dataset"]].drop_duplicates()) == 1
    return singular if one else {"is": "are", "seems": "seem"}[singular]


def _of(rows: pd.DataFrame, every: pd.DataFrame) -> str:
    if len(rows) == len(every):
        return "the one setting" if len(every) == 1 else f"all {len(every)} settings"
    return f"{len(rows)} of {len(every)} settings"


def _any(rows: pd.DataFrame) -> str:
    return "the one setting" if len(rows) == 1 else f"any of {len(rows)} settings"


def _images(n: "pd.Series[int]", name: str = "test image") -> str:
    least, most = int(n.min()), int(n.max())
    return counted(most, name) if least == most else f"{least:,} to {counted(most, name)}"


def _sizes(attacks: pd.DataFrame) -> str:
    """The epsilons, once where they are the same in all norms."""
    by_norm: dict[str, list[str]] = {}
    for norm in [norm for norm in NORMS if norm in set(attacks.norm)]:
        own = sorted(set(attacks.epsilon[attacks.norm == norm]))
        by_norm.setdefault(listed([label(float(value)) for value in own]), []).append(NORMS[norm])
    return listed([f"{listed(norms)} ε = {values}" for values, norms in by_norm.items()])


def _models_of(clean: pd.DataFrame) -> str:
    """The models with and without an ODE, and how many networks of each there are."""
    networks = clean.groupby("model", sort=False).seed.nunique()
    same = networks.nunique() == 1
    solved = (clean.tau != NO_ODE).groupby(clean.model, sort=False).any()

    def named(own: "pd.Series[int]") -> str:
        return listed(
            [
                str(model) if same else f"{model} ({counted(int(count), 'network')})"
                for model, count in own.items()
            ]
        )

    parts = []
    if solved.any():
        parts.append(f"{named(networks[solved])} (with an ODE)")
    if not solved.all():
        without = "without" if solved.any() else "without an ODE"
        parts.append(f"{named(networks[~solved])} ({without})")
    each = "" if len(networks) == 1 else " each"
    return listed(parts) + (f", {counted(int(networks.iloc[0]), 'network')}{each}," if same else "")


def _tolerances(taus: Sequence[float]) -> str:
    if len(taus) == 1:
        return f"solver tolerance τ = {label(float(taus[0]))}"
    ends = f"{label(float(taus[0]))} to {label(float(taus[-1]))}"
    return f"{len(taus)} solver tolerances τ = {ends}"
