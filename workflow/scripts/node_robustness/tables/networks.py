"""The table of networks: what each is, how its ODE is solved, and what cannot be measured of it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.grid.paths import TRAINED, fill, read, result
from node_robustness.tables.frame import lacks, place, records, tabulate, tau_of

BUILT_IN, OWN_MODEL = "built-in", "own"

_NETWORK = ("experiment", "dataset", "model", "seed")
_NETWORKS = {
    **dict.fromkeys(["experiment", "dataset", "model"], "str"),
    "seed": "int64",
    "kind": "str",
    "audit_level": "float64",
    "ode": "bool",
    **dict.fromkeys(["module", "solves", "ways"], "str"),
    **dict.fromkeys(["own_rtol", "own_atol"], "float64"),
    "evaluations": "str",
    "limits": "str",
    "checks": "int64",
    "failed": "str",
}
BETWEEN = "; "
"""What stands between the entries of several solves."""


def network_table(
    clean: Iterable[Path | str],
    specs: Iterable[Path | str],
    checked: Iterable[Path | str],
    stages: Mapping[str, Iterable[Path | str]],
) -> pd.DataFrame:
    """Tabulate what each network is.

    Args:
        clean: Files of kind "clean".
        specs: The specs of models, ``.../{experiment}/{dataset}/{model}/seed-{seed}/model.json``.
        checked: The outcomes of the checks of own models, ``checked.json`` at the same place.
        stages: By kind, files that may hold no results and say why.

    Returns:
        One row a network of `clean`, in the order of the other tables. ``kind``: built-in, or own
        where the user wrote it; ``ode``: whether it solves an ODE. Of own models the
        ``audit_level`` (0: no ODE that is known; 1: solved by torchdiffeq; 2: a solver of the
        file), the ``module``, its ``solves`` with their methods, in the order of a pass, and the
        ``ways`` in which each takes times of single images; ``own_rtol`` and ``own_atol`` as the
        author set them (of the solve that is followed) and the median number of ``evaluations`` of
        each solve at these; the number of ``checks`` before the attacks, and what those that
        ``failed`` say. ``limits``: what cannot be measured, and why. Texts are empty, and numbers
        NaN, where there is none.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in clean:
        with open_hdf5(path, "clean") as file:
            settings = read_settings(file)
            row = found.setdefault(
                _key(settings), {**_EMPTY, **{name: settings[name] for name in _NETWORK}}
            )
            row["ode"] |= "nfe" in file or settings["tolerance"] is not None
            if settings["tolerance"] is None:
                row |= _at_own_settings(file)
    limits: dict[tuple[Any, ...], list[str]] = {}
    for path in specs:
        key, spec = _read_json(path)
        if key in found and "module" in spec:
            found[key] |= _of_spec(spec)
            limits[key] = list(spec["limits"])
    for path in checked:
        key, outcomes = _read_json(path)
        if key in found:
            failed = [
                f"{outcome['sentence'].removesuffix('.')}."
                for outcome in outcomes
                if not outcome["passed"] and outcome["sentence"] not in limits.get(key, [])
            ]
            found[key] |= {"checks": len(outcomes), "failed": " ".join(failed)}
    for kind, paths in stages.items():
        for settings, sentence in lacks(paths, kind):
            limits.setdefault(_key(settings), []).append(sentence)
    for key, sentences in limits.items():
        if key in found:
            found[key]["limits"] = " ".join(dict.fromkeys(sentences))
    return tabulate(sorted(found.values(), key=place), _NETWORKS)


_EMPTY = {
    **{"kind": BUILT_IN, "audit_level": math.nan, "ode": False, "checks": 0},
    **dict.fromkeys(["module", "solves", "ways", "evaluations", "limits", "failed"], ""),
    **dict.fromkeys(["own_rtol", "own_atol"], math.nan),
}


def _key(where: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(where[name] for name in _NETWORK)


def _at_own_settings(file: h5py.File) -> dict[str, Any]:
    """What the evaluation of a network as its author set it says."""
    row: dict[str, Any] = {
        name: float(file.attrs[name]) for name in ("own_rtol", "own_atol") if name in file.attrs
    }
    counts = next((file[name][:] for name in ("nfe_by_solve", "nfe") if name in file), None)
    if counts is not None and len(counts):
        medians = np.atleast_1d(np.median(counts, axis=0))
        row["evaluations"] = BETWEEN.join(f"{median:g}" for median in medians)
    return row


def _of_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    solves: Sequence[Mapping[str, Any]] = spec["solves"]
    alone = spec["one_by_one"] is not None
    # Tolerances have no effect on fixed steps.
    unused = dict.fromkeys(["own_rtol", "own_atol"], math.nan) if spec["ode"] == "fixed" else {}
    return unused | {
        "kind": OWN_MODEL,
        "audit_level": spec["level"],
        "module": spec["module"] or "",
        "solves": BETWEEN.join(map(_solve, solves)),
        "ways": BETWEEN.join("image by image" if alone else str(solve["way"]) for solve in solves),
    }


def _solve(solve: Mapping[str, Any]) -> str:
    """Where a solve is, as far as it is in a part of the network, and its method."""
    return f"{solve['name']} ({solve['method']})" if solve["name"] else str(solve["method"])


def _read_json(path: Path | str) -> tuple[tuple[Any, ...], Any]:
    """The network that a file is of, by its place, and what it holds."""
    path = Path(path)
    return _key(read(result(TRAINED, path.name), path)), json.loads(path.read_text())


def own_models(networks: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """By their places, what the table of networks has of own models, as JSON can hold it."""
    described = [name for name in _NETWORKS if name not in (*_NETWORK, "kind", "ode")]
    return {
        fill(TRAINED, row): {name: row[name] for name in described if not pd.isna(row[name])}
        for row in records(networks[networks.kind == OWN_MODEL])
    }


def own_tolerances(networks: pd.DataFrame) -> dict[str, float]:
    """The tolerance to which the own settings of a model correspond, by model.

    The larger of the author's rtol and atol: a solve at that tolerance is the author's.
    """
    known = networks.dropna(subset=["own_rtol", "own_atol"])
    return {
        str(model): float(own[["own_rtol", "own_atol"]].to_numpy().max())
        for model, own in known.groupby("model", sort=False)
    }


def with_tau(table: pd.DataFrame, networks: pd.DataFrame) -> pd.DataFrame:
    """Name the tolerance of every row in a column ``tau``, where a table has tolerances of models.

    Args:
        table: Any table.
        networks: Result of `network_table`.

    Returns:
        The table with the column after ``tolerance``: the tolerance for people, or what stands for
        it (`frame.tau_of`); as it is where it has no tolerances.
    """
    if not {"model", "tolerance"} <= {*table.columns}:
        return table
    solved = set(networks.model[networks.ode])
    names = [
        tau_of(tolerance, model in solved)
        for tolerance, model in zip(table.tolerance, table.model, strict=True)
    ]
    named = table.copy()
    named.insert([*table.columns].index("tolerance") + 1, "tau", pd.Series(names, table.index, str))
    return named
