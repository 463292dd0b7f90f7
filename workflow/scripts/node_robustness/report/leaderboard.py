"""The leaderboard: all models under one protocol, with what was published of them."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from node_robustness.report.phrases import counted, sized
from node_robustness.report.tables import Columns, Table, share, table_of, text
from node_robustness.tables.catalogue import Level
from node_robustness.tables.frame import BOUNDS, NO_ODE, OWN, records
from node_robustness.tables.networks import BETWEEN
from node_robustness.words import percent

CONTRADICTION = "contradiction: check the import"

_COLUMNS: Columns = {
    "Model": text("model"),
    "Solved at": text("tau"),
    "Clean": share("clean"),
    "P": share("paper"),
    "C": share("corrected"),
    "R": share("strongest"),
    "Certified": share("certified"),
    "Verdict": text("verdict"),
    "Evaluations, median": text("evaluations"),
    "Published": text("claim"),
    "Source": text("source"),
    "Found here": text("found"),
}


def leaderboards(
    tables: Mapping[str, pd.DataFrame], models: Mapping[str, Mapping[str, Any]]
) -> list[Table]:
    """Rank the models of an experiment of which something was published, and all others with them.

    Args:
        tables: ``verdicts``, ``clean``, ``networks`` and ``certificates`` of the experiment.
        models: The models of the configuration, as JSON can hold it.

    Returns:
        A table a dataset, norm and epsilon, a row a model at its own settings, the most robust
        first; none where nothing was published.
    """
    verdicts = tables["verdicts"]
    if not any(models.get(name, {}).get("published") for name in set(verdicts.model)):
        return []
    own = verdicts[verdicts.tau == verdicts.model.map(author_settings(verdicts, models))]
    evaluations = _evaluations(tables["clean"], tables["networks"])
    certificates = _certificates(tables["certificates"])
    found = []
    for _, of in own.groupby(["dataset", "norm", "epsilon"], sort=False):
        first = records(of)[0]
        ranked = of.sort_values("strongest", ascending=False, kind="stable", na_position="last")
        rows = []
        for row in records(ranked):
            place = tuple(row[name] for name in ("dataset", "model", "norm", "epsilon"))
            proven = certificates.get(place, _NOT_CERTIFIED)
            solves = evaluations.get((row["dataset"], row["model"], row["tau"]), "–")
            said = _published(row, proven, models.get(row["model"], {}).get("published") or {})
            rows.append(row | proven | {"evaluations": solves} | said)
        caption = (
            f"{first['dataset']}, {sized(first['norm'], first['epsilon'])}: accuracy of each model "
            "at its own settings without an attack, under the paper's procedure (P), with its "
            "gradient corrected (C) and under the strongest attack (R), the share that its own "
            "method proves to be robust, and what was published of it. Intervals are at 95 %. "
            f"{Level.NETWORKS.sentence}"
        )
        columns = dict(_COLUMNS)
        if all(math.isnan(row["certified"]) for row in rows):
            del columns["Certified"]
        found.append(table_of(caption, pd.DataFrame(rows).itertuples(), columns))
    return found


_NOT_CERTIFIED = {f"certified{bound}": math.nan for bound in BOUNDS} | {"contradictions": 0}


def _certificates(table: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By dataset, model, norm and epsilon what is certified of all networks together.

    The mean over them with an interval that contains the interval of each, as in verdicts.
    """
    grouped = table.groupby(["dataset", "model", "norm", "epsilon"], sort=False).agg(
        certified=("certified", "mean"),
        certified_low=("certified_low", "min"),
        certified_high=("certified_high", "max"),
        contradictions=("contradictions", "sum"),
    )
    return dict(zip(grouped.index, records(grouped), strict=True))


def author_settings(
    verdicts: pd.DataFrame, models: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """By model the tolerance at which its author solves it: its own, or that of its training.

    Args:
        verdicts: Of the experiment.
        models: The models of the configuration, as JSON can hold it.
    """
    found = {}
    for model, rows in verdicts.groupby("model", sort=False):
        known = dict(zip(rows.tau, rows.tolerance, strict=True))
        trained = (models.get(str(model), {}).get("solver") or {}).get("tolerance")
        at_trained = [tau for tau, tolerance in known.items() if tolerance == trained]
        without = [tau for tau in (OWN, NO_ODE) if tau in known]
        found[str(model)] = [*without, *at_trained, min(known, key=known.__getitem__)][0]
    return found


def _evaluations(clean: pd.DataFrame, networks: pd.DataFrame) -> dict[tuple[str, str, str], str]:
    """By dataset, model and tolerance the evaluations of a pass, and those of each solve."""
    known = clean.dropna(subset=["nfe_median"])
    medians = known.groupby(["dataset", "model", "tau"], sort=False).nfe_median.median()
    found: dict[Any, str] = {place: f"{median:,.4g}" for place, median in medians.items()}
    for row in records(networks.drop_duplicates(["dataset", "model"])):
        place = (row["dataset"], row["model"], OWN)
        if place in found and BETWEEN in row["evaluations"]:
            found[place] += f" ({row['evaluations'].replace(BETWEEN, ' + ')})"
    return found


def _published(
    row: Mapping[str, Any], proven: Mapping[str, Any], published: Mapping[str, Any]
) -> dict[str, str]:
    """What was published of a model, and what was found of it."""
    certified = list(_of_certificate(row, proven))
    if not published:
        return {"claim": "–", "source": "–", "found": "; ".join(certified) or "–"}
    numbers = [
        f"{name} {percent(published[key])}"
        for key, name in _NUMBERS.items()
        if published.get(key) is not None
    ]
    ball = (
        f" at {sized(published['norm'], published['epsilon'])}"
        if published.get("norm") is not None
        else ""
    )
    claim = "; ".join([published["claim"], *([f"{', '.join(numbers)}{ball}"] if numbers else [])])
    found = [*_on_clean_images(row, published), *_under_attack(row, published), *certified]
    return {"claim": claim, "source": published["source"], "found": "; ".join(found) or "–"}


_NUMBERS = {
    "accuracy": "accuracy",
    "robust_accuracy": "robust accuracy",
    "certified": "certified",
}


def _of_certificate(row: Mapping[str, Any], proven: Mapping[str, Any]) -> Iterator[str]:
    """What the model's own proof and the attacks say together."""
    if math.isnan(proven["certified"]):
        return
    if not proven["certified"]:
        yield "nothing is proven"
    elif proven["contradictions"]:
        broken = counted(int(proven["contradictions"]), "certified image")
        yield f"the certificate does not hold: {broken} misclassified or broken"
    else:
        low, high = percent(proven["certified"]), percent(row["strongest"])
        yield f"no certified image is broken: robust accuracy on these images is {low} to {high}"


def _on_clean_images(row: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[str]:
    accuracy = published.get("accuracy")
    if accuracy is not None and not row["clean_low"] <= accuracy <= row["clean_high"]:
        yield "another accuracy: check the import and the images"


def _under_attack(row: Mapping[str, Any], published: Mapping[str, Any]) -> Iterator[str]:
    """What the strongest attack says of the claims about a ball that has this one inside."""
    certified, robust = published.get("certified"), published.get("robust_accuracy")
    if certified is None and robust is None:
        return
    if row["norm"] != published["norm"] or row["epsilon"] > published["epsilon"] * (1 + 1e-9):
        yield "not comparable: another norm, or a larger ε"
        return
    same = math.isclose(row["epsilon"], published["epsilon"], rel_tol=1e-9)
    most = percent(row["strongest_high"])
    if certified is not None and certified > row["strongest_high"]:
        yield f"{CONTRADICTION} (at most {most} are left)"
    if robust is not None and robust > row["strongest_high"]:
        yield f"less is left: at most {most}"
    elif robust is not None and same and robust < row["strongest_low"]:
        yield "our attacks leave more: they are weaker, or the images differ"
    elif robust is not None and same:
        yield "agrees"
    elif certified is not None and certified <= row["strongest_high"]:
        yield "no contradiction"
