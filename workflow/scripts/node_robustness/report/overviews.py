"""Settings counted by what was found in them: the rows of the tables that open a topic.

A sentence a model that differs from the next in its numbers alone is a row of a table.
"""

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from node_robustness.report.phrases import counted, setting
from node_robustness.verdict.contrasts import EQUIVALENT, LESS, MORE
from node_robustness.verdict.tolerances import CLAIMS
from node_robustness.verdict.verdicts import (
    BROKEN,
    HIDES,
    MASKED,
    UNDECIDED,
    UNDER_SEARCHED,
    VERDICTS,
)

BECAUSE = {
    "no_images": "there are no images",
    "no_correct": "no image is classified correctly",
    "no_accuracy": "too few images are classified correctly",
    "no_paper": "the paper's attack did not run",
    "no_corrected": "no attack corrects the gradient of the paper's",
    "mixed": "masked gradient and weak search both matter",
    "attacks": "the attacks are too weak to show that robustness survives",
    "saturation": "the last attacks still broke images",
    "checks": "a check failed, was not measured or rests on too few images",
    "images": "there are too few images",
    "networks": "the networks differ",
    "margin": "the shares lie on a margin of the rules",
}
"""Why a setting is undecided, by the rule."""


def undecided(because: str, needed: float) -> str:
    """Why a setting is undecided, and how many images it takes, where that is known (not NaN)."""
    images = "" if math.isnan(needed) else f"; it takes at least {counted(int(needed), 'image')}"
    return f"undecided: {BECAUSE[because]}{images}"


_DIRECTIONS = (MORE, LESS, EQUIVALENT, UNDECIDED)
_PARTS = ("", "_low", "_high")


def of_verdicts(verdicts: pd.DataFrame) -> Iterable[Any]:
    """Count the verdicts on every dataset and model.

    Args:
        verdicts: Result of `verdicts.verdict_table`.

    Returns:
        Rows with the ``dataset``, ``model`` and ``level``, the number of ``settings``, that of each
        verdict, how many of the broken ones the paper's procedure hides (``hidden``); and where a
        hidden gap is largest (``at``, empty if there is none) the shares there.
    """
    rows = []
    for (dataset, model), own in verdicts.groupby(["dataset", "model"], sort=False):
        counts = own.verdict.value_counts()
        row = {"dataset": dataset, "model": model, "level": own.level.iloc[-1]}
        row |= {"settings": len(own), "at": ""}
        row |= {_COLUMNS[name]: int(counts.get(name, 0)) for name in VERDICTS}
        row["hidden"] = int(((own.verdict == BROKEN) & (own.procedure == HIDES)).sum())
        wide = own[own.masked.notna() & (own.procedure == HIDES)]
        if len(wide):
            worst = wide.sort_values("gap", kind="stable").iloc[-1]
            row["at"] = setting(worst)
            row |= {name: worst[name] for name in _GAP}
        rows.append(row)
    return _tuples(rows, _GAP)


_COLUMNS = {
    **{name: name for name in VERDICTS},
    MASKED: "masked_gradient",
    UNDER_SEARCHED: "under_searched",
}
_GAP = [f"{n}{part}" for n in ("paper", "strongest", "masked", "weak") for part in _PARTS]


def of_undecided(verdicts: pd.DataFrame) -> Iterable[Any]:
    """Count why settings are undecided.

    Args:
        verdicts: Result of `verdicts.verdict_table`.

    Returns:
        Rows with the reason (``why``), the number of ``settings``, and how many images would decide
        all of them if the shares stay as they are (``needed``; NaN where images are not missing).
    """
    own = verdicts[verdicts.verdict == UNDECIDED]
    return _tuples(
        {"why": BECAUSE[str(because)], "settings": len(of), "needed": of.needed.max()}
        for because, of in own.groupby("because", sort=False)
    )


def of_models(models: pd.DataFrame) -> Iterable[Any]:
    """Count how each model with an ODE compares with one without, under each procedure.

    Args:
        models: Result of `models.model_table`.

    Returns:
        Rows with the ``dataset``, ``model``, ``reference_model``, ``level`` and procedure
        (``under``), the number of ``settings``, that of each direction, in how many the ranking
        under the two procedures is ``reversed``; and where the difference is largest (``at``) its
        value and both robust accuracies (``robust``, ``reference``).
    """
    rows = []
    by = ["dataset", "model", "reference_model"]
    for (dataset, model, reference), own in models.groupby(by, sort=False):
        for procedure in ("paper", "strongest"):
            claims = own[f"{procedure}_claim"]
            if (claims == "").all():
                continue
            far = own.sort_values(procedure, key=abs, kind="stable", na_position="first").iloc[-1]
            row = {"dataset": dataset, "model": model, "reference_model": reference}
            row |= {"level": own.level.iloc[0], "under": procedure, "settings": len(own)}
            row |= {name: int((claims == name).sum()) for name in _DIRECTIONS}
            row |= {"reversed": int(own.reversed.sum()), "at": setting(far)}
            row |= {"robust": far[f"{procedure}_robust"], "difference": far[procedure]}
            row |= {f"difference{part}": far[f"{procedure}{part}"] for part in _PARTS}
            row["reference"] = far[f"{procedure}_reference"]
            rows.append(row)
    return _tuples(rows)


def of_tolerances(tolerances: pd.DataFrame) -> Iterable[Any]:
    """Count what becomes of the claim that a larger tolerance protects.

    Args:
        tolerances: Result of `tolerances.tolerance_table`.

    Returns:
        Rows with the ``dataset``, ``model``, ``reference`` (the tolerance compared with) and
        ``level``, the number of ``settings`` and that of each claim; and where the paper's
        procedure shows the largest gain (``at``) the change under it (``paper``) and under the
        strongest attack (``strongest``).
    """
    rows = []
    for (dataset, model), own in tolerances.groupby(["dataset", "model"], sort=False):
        counts = own.claim.value_counts()
        row = {"dataset": dataset, "model": model, "reference": own.reference.iloc[0]}
        row |= {"level": own.level.iloc[0], "settings": len(own), "at": ""}
        row |= {name: int(counts.get(name, 0)) for name in CLAIMS}
        shown = own[own.paper.notna()]
        if len(shown):
            largest = shown.sort_values("paper", kind="stable").iloc[-1]
            row["at"] = setting(largest)
            row |= {name: largest[name] for name in _BOTH}
        rows.append(row)
    return _tuples(rows, _BOTH)


_BOTH = [f"{name}{part}" for name in ("paper", "strongest") for part in _PARTS]


def _tuples(rows: Iterable[dict[str, Any]], columns: Iterable[str] = ()) -> Iterable[Any]:
    """Rows as named tuples, with NaN in these columns where a row has no value."""
    frame = pd.DataFrame(list(rows))
    missing = [name for name in columns if name not in frame]
    return frame.assign(**dict.fromkeys(missing, float("nan"))).itertuples()
