"""Tables of the audits: gradients, other tolerances, and defences.

Pure functions of the files, like those of `evaluation`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.statistics.intervals import auc_with_interval, median_with_interval, roc
from node_robustness.statistics.proportions import interval
from node_robustness.tables.frame import CELL, SOLVED, Rows, bounded, collect, rate

FINITE_DIFFERENCES = {
    "finite_difference": "finite differences",
    "finite_difference_frozen": "finite differences, steps held",
}
"""The references of derivatives in an audit, and their names for people."""

FALSE_POSITIVES = 0.05
"""The rate of false alarms at which the table says how many adversarial examples are detected."""

_QUANTILES = {"median": 0.5, "q25": 0.25, "q75": 0.75}
_AUDIT = {
    **SOLVED,
    **dict.fromkeys(["source", "reference"], "str"),
    "n": "int64",
    **{
        f"{name}_{part}": "float64"
        for name in ("cosine", "sign_agreement", "error")
        for part in ("mean", *_QUANTILES)
    },
}
_NORM = {**SOLVED, "norm": "str", "epsilon": "float64"}
_LOSSES = {
    **_NORM,
    "attack": "str",
    **dict.fromkeys(["iteration", "n", "broken"], "int64"),
    **{f"loss_{part}": "float64" for part in _QUANTILES},
}
_HELD = {
    **_NORM,
    **dict.fromkeys(["n", "survive", "cross"], "int64"),
    **{
        f"{name}{part}": "float64"
        for name in ("survive_rate", "cross_rate", "jump", "jump_share")
        for part in ("", "_low", "_high")
    },
}
_MATRIX = {
    **CELL,
    "evaluated_at": "float64",
    **dict.fromkeys(["n", "successes", "kept"], "int64"),
    **{
        f"{name}{part}": "float64"
        for name in ("accuracy", "robust_accuracy", "kept_rate")
        for part in ("", "_low", "_high")
    },
}
_DEFENDED = {name: kind for name, kind in SOLVED.items() if name != "tolerance"}
_RANDOMISATION = {
    **_DEFENDED,
    **{"norm": "str", "epsilon": "float64", "attacker": "str", "n": "int64"},
    **dict.fromkeys(["accuracy", "accuracy_low", "accuracy_high"], "float64"),
}
_DETECTED = {
    **SOLVED,
    **{"norm": "str", "epsilon": "float64", "attacker": "str", "detector": "str"},
}
_DETECTION = {
    **_DETECTED,
    **dict.fromkeys(["clean", "adversarial"], "int64"),
    **dict.fromkeys(["auc", "auc_low", "auc_high"], "float64"),
    **dict.fromkeys(["detected", "detected_low", "detected_high"], "float64"),
}
_ROC = {
    **_DETECTED,
    **dict.fromkeys(["false_positive_rate", "true_positive_rate"], "float64"),
}
_ROC_POINTS = 200


def audit_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how gradients from different sources agree.

    Args:
        paths: Files of kind "audit".

    Returns:
        For every model, seed and tolerance one row for every pair of sources of gradients
        (``source``, ``reference``): mean and quartiles over ``n`` images of their ``cosine`` and
        ``sign_agreement``; and one for every source and kind of finite differences: of the
        relative ``error`` of its directional derivatives (`derivative_errors`). What does
        not apply is NaN.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "audit", _audit_rows, _AUDIT)


def _audit_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    audit = read_arrays(file)
    sources = [str(source) for source in audit["sources"]]
    for (i, reference), (j, source) in combinations(enumerate(sources), 2):
        cosine, agreement = audit["cosine"][:, i, j], audit["sign_agreement"][:, i, j]
        yield (
            {"source": source, "reference": reference}
            | {"n": int(np.isfinite(cosine).sum())}
            | _summary("cosine", cosine)
            | _summary("sign_agreement", agreement)
        )
    for name, title in FINITE_DIFFERENCES.items():
        for source in sources if name in audit else ():
            errors = derivative_errors(audit, source, name)
            yield (
                {"source": source, "reference": title, "n": int(np.isfinite(errors).sum())}
                | _summary("error", errors)
            )


def _summary(name: str, values: NDArray[Any]) -> dict[str, float]:
    known = values[np.isfinite(values)].astype(float)
    if not len(known):
        return {}
    return {f"{name}_mean": float(known.mean()), **_quantiles(name, known)}


def _quantiles(name: str, values: NDArray[Any]) -> dict[str, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return {}
    found = np.quantile(known, list(_QUANTILES.values()))
    return {f"{name}_{part}": float(q) for part, q in zip(_QUANTILES, found, strict=True)}


def loss_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate the loss along the paths of the attacks that an audit records.

    Args:
        paths: Files of kind "audit".

    Returns:
        One row for every norm, ``attack`` (``paper``, ``apgd``) and ``iteration``: quartiles of
        the cross-entropy over the ``n`` images that are classified correctly without an attack,
        each with the highest loss so far, and how many of them are ``broken`` by then. No row
        without such an image. Level: this network.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "audit", _loss_rows, _LOSSES)


def _loss_rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    correct = file["correct"][:]
    for norm, epsilon in settings["epsilons"].items() if correct.any() else ():
        for attack in ("paper", "apgd"):
            losses = file[f"{norm}/{attack}/loss"][:][correct]
            success = file[f"success/{attack}_{norm}"][:][correct]
            steps = (~np.isnan(losses)).sum(axis=1) - 1
            # The loss of an image that is broken stays what it was.
            highest = np.fmax.accumulate(losses, axis=1)
            for iteration in range(losses.shape[1]):
                yield {
                    "norm": norm,
                    "epsilon": epsilon,
                    "attack": attack,
                    "iteration": iteration,
                    "n": len(losses),
                    "broken": int((success & (steps <= iteration)).sum()),
                    **_quantiles("loss", highest[:, iteration]),
                }


def held_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate what the solver's decisions have to do with adversarial examples.

    Args:
        paths: Files of kind "audit".

    Returns:
        One row for every norm of a model with an ODE: of the ``n`` adversarial examples of
        Auto-PGD how many ``survive`` with the solver's steps for the clean image held, and how many
        paths from the image to its adversarial example ``cross`` a decision of the solver, after
        which it takes another number of steps; the median ``jump`` of the margin there, in logits,
        and as a share of the margin's whole change (``jump_share``). With 95 % intervals; NaN
        without such images. Level: this network.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "audit", _held_rows, _HELD)


def _held_rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    for norm, epsilon in settings["epsilons"].items():
        if f"{norm}/held" not in file:
            continue
        held = {name: values[:] for name, values in file[f"{norm}/held"].items()}
        n = int(held["adversarial"].sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            share = held["jump"] / np.abs(held["change"])
        row = {"norm": norm, "epsilon": epsilon, "n": n}
        for name, count in (("survive", held["survives"].sum()), ("cross", held["crosses"].sum())):
            low, high = interval(int(count), n)
            row |= {name: int(count), f"{name}_rate": int(count) / n if n else math.nan}
            row |= {f"{name}_rate_low": low, f"{name}_rate_high": high}
        for name, values in (("jump", held["jump"]), ("jump_share", share)):
            row |= bounded(name, median_with_interval(values))
        yield row


def matrix_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate adversarial examples made at one tolerance and evaluated at others.

    Args:
        paths: Files of kind "reevaluated".

    Returns:
        One row for every cell and tolerance ``evaluated_at``: clean ``accuracy`` there, the
        share of images that are classified correctly there both clean and as returned by the
        attack (``robust_accuracy``), and how many of the cell's ``successes`` are misclassified
        there too (``kept``, ``kept_rate``), with exact 95 % bounds.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "reevaluated", _matrix_rows, _MATRIX)


def _matrix_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    labels, success = file["labels"][:][:, None], file["success"][:]
    clean = file["clean_predictions"][:] == labels
    right = file["adversarial_predictions"][:] == labels
    n, successes = len(success), int(success.sum())
    for e, tolerance in enumerate(file["tolerances"][:]):
        kept = int((success & ~right[:, e]).sum())
        yield (
            {"evaluated_at": float(tolerance), "n": n, "successes": successes, "kept": kept}
            | rate("accuracy", "accuracy", int(clean[:, e].sum()), n)
            | rate("robust_accuracy", "robust_accuracy", int((clean & right)[:, e].sum()), n)
            | rate("kept_rate", "kept_rate", kept, successes)
        )


def randomisation_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how a model whose tolerance is drawn at random fares.

    Args:
        paths: Files of kind "randomised".

    Returns:
        One row for every model, seed, norm, epsilon and ``attacker`` (``clean``: none; ``fixed``:
        at one tolerance; ``fresh``: a new draw every step; ``eot``: a mean over draws): mean
        ``accuracy`` over ``n`` images and the drawn tolerances, with exact 95 % bounds over
        images.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "randomised", _randomisation_rows, _RANDOMISATION)


def _randomisation_rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    for attacker in ("clean", "fixed", "fresh", "eot"):
        if attacker not in file["wrong"]:
            continue
        right = 1 - file[f"wrong/{attacker}"][:].astype(float)
        # An image's mean over draws varies less than a single answer: the interval is wide enough.
        yield {
            "norm": settings["norm"],
            "epsilon": settings["epsilon"],
            "attacker": attacker,
            "n": len(right),
            **rate("accuracy", "accuracy", float(right.sum()), len(right)),
        }


def detection_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how well adversarial examples are detected.

    Args:
        paths: Files of kind "detection".

    Returns:
        One row for every cell, ``attacker`` (``plain``; ``confident``, which goes on after its
        first success; ``adaptive``, which knows the detector by disagreement) and ``detector``
        (``disagreement`` of tolerances; ``confidence`` of the classifier): numbers of ``clean``
        images and of ``adversarial`` ones that fool the classifier, the area under the ROC curve
        (``auc``) with Newcombe's 95 % interval, and the share of the adversarial examples that are
        ``detected`` at 5 % false alarms, with its exact interval for the threshold that these clean
        images set. NaN without adversarial examples.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "detection", _detection_rows, _DETECTION)


def roc_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate the ROC curves of the detectors.

    Args:
        paths: Files of kind "detection".

    Returns:
        For every cell, ``attacker`` and ``detector`` with adversarial examples the points of its
        curve, at most 200.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    return collect(paths, "detection", _roc_rows, _ROC)


def _scores(
    file: h5py.File, settings: dict[str, Any]
) -> Iterator[tuple[dict[str, Any], NDArray[Any], NDArray[Any]]]:
    """For each attacker and detector: its coordinates, and scores of clean images and successes."""
    found = read_arrays(file)
    for (a, attacker), (d, detector) in product(
        enumerate(found["attackers"]), enumerate(found["detectors"])
    ):
        where = {"norm": settings["norm"], "epsilon": settings["epsilon"]}
        where |= {"attacker": str(attacker), "detector": str(detector)}
        yield where, found["clean_scores"][:, d], found["scores"][found["success"][:, a], a, d]


def _detection_rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    for where, clean, adversarial in _scores(file, settings):
        row = where | {"clean": len(clean), "adversarial": len(adversarial)}
        if len(clean) and len(adversarial):
            auc, low, high = auc_with_interval(clean, adversarial)
            row |= {"auc": auc, "auc_low": low, "auc_high": high}
            false, _, thresholds = roc(clean, adversarial)
            threshold = thresholds[false <= FALSE_POSITIVES].min()
            detected = int((adversarial >= threshold).sum())
            row |= rate("detected", "detected", detected, len(adversarial))
        yield row


def _roc_rows(file: h5py.File, settings: dict[str, Any]) -> Rows:
    for where, clean, adversarial in _scores(file, settings):
        if not len(clean) or not len(adversarial):
            continue
        false, true, _ = roc(clean, adversarial)
        kept = np.unique(np.linspace(0, len(false) - 1, _ROC_POINTS).round().astype(int))
        for i in kept:
            yield where | {
                "false_positive_rate": float(false[i]),
                "true_positive_rate": float(true[i]),
            }


Arrays = Mapping[str, NDArray[Any]]


def source_of(audit: Arrays, name: str) -> int:
    """The position of a source of gradients in the arrays of an audit."""
    return [str(source) for source in audit["sources"]].index(name)


def derivative_errors(audit: Arrays, source: str, reference: str) -> NDArray[np.float64]:
    """How far directional derivatives are from finite differences, relative to these, [n].

    Args:
        audit: Arrays of an audit.h5.
        source: Where the gradient comes from, such as ``direct``.
        reference: ``finite_difference`` or ``finite_difference_frozen``.

    Returns:
        For every image that was differenced the Euclidean norm over directions of the deviation,
        over that of the finite differences; infinite where only these are all zero, and NaN where
        both are.
    """
    derivative = audit["derivative"][:, source_of(audit, source)].astype(float)
    differences = audit[reference].astype(float)
    size = np.linalg.norm(differences, axis=1)
    errors = np.linalg.norm(derivative - differences, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative: NDArray[np.float64] = errors / size
    return relative


def read_arrays(file: Any, names: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the datasets of an open file by their paths, all of them or those of the names."""
    wanted: list[str] = []
    if names is None:
        file.visititems(lambda name, node: wanted.append(name) if hasattr(node, "dtype") else None)
    else:
        wanted += [name for name in names if name in file]
    return {
        name: file[name].asstr()[:] if file[name].dtype.kind == "O" else file[name][()]
        for name in wanted
    }
