"""What single attacks found, and the smallest adversarial example of every image."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from node_robustness.perturbations.sizes import ROUNDING, Floats, within
from node_robustness.statistics.proportions import interval
from node_robustness.tables.frame import CELL, rate, tabulate
from node_robustness.verdict.protocols import CONTROL, STRONGEST, WHERE, AttackedNetwork, Attempt

_EXAMPLES = {
    **WHERE,
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
_CURVES = {
    **WHERE,
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


def example_sizes(attacked: Iterable[AttackedNetwork], paper: str | None) -> pd.DataFrame:
    """Tabulate the smallest adversarial of every image.

    Args:
        attacked: Result of `read_attacked`.
        paper: Name of the paper's attack, None without one.

    Returns:
        One row for every image, model, seed, tolerance and norm: ``index`` in the test set,
        ``label``, whether it is classified ``correct``ly; ``size`` of the smallest adversarial in
        the norm that is known, and the ``attack`` or measurement that found it (empty if none);
        the same for the paper's attack alone (``paper_size``) and for random noise
        (``noise_size``). Sizes are infinite where nothing was found, and NaN where the image is
        misclassified as it is, or the attack was not run.
    """
    return tabulate((row for group in attacked for row in _example_rows(group, paper)), _EXAMPLES)


def _example_rows(group: AttackedNetwork, paper: str | None) -> list[dict[str, Any]]:
    finders = [(attempt.attack, attempt.size) for attempt in group.attempts] + [*group.known]
    sizes = np.array([size for _, size in finders])
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
        | {"attack": finders[best[i]][0] if found[i] else ""}
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
        STRONGEST: lambda _: True,
        "paper": lambda attempt: attempt.attack == paper,
        CONTROL: lambda attempt: attempt.method == CONTROL,
    }
    rows = []
    for protocol, chosen in protocols.items():
        if not any(map(chosen, group.attempts)):
            continue
        smallest = group.everything() if protocol == STRONGEST else group.smallest(chosen)
        sizes = smallest[group.correct]
        steps = _steps(sizes, group.epsilons)
        n = len(group.index)
        broken = np.searchsorted(np.sort(sizes), steps * (1 + ROUNDING), side="right")
        left = int(group.correct.sum()) - broken
        low, high = interval(left, np.full(len(steps), n))
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
