"""Tables of the trajectories of hidden states: bands along t, and images.

Pure functions of the files, like those of `evaluation`.
"""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from node_robustness.tables.frame import CELL, SOLVED, Rows, collect, place, tabulate, with_results
from node_robustness.trajectories.reader import PAIRS, RUNS, Trajectory

# Times that are the same may differ by this: some are kept in single precision.
_ROUNDING = 1e-6

Array = NDArray[Any]

_DISTANCES = ("l2", "relative_l2", "cosine")
_TIGHT = ("l2", "relative_l2")
_PARTS = ("rate", "jacobian", "nonlinear")
_BOUNDS = ("log_norm_lower", "log_norm_upper")
_READERS = ("head", "probe")
_QUARTILES = {"median": 0.5, "q25": 0.25, "q75": 0.75}
_TAILS = {"q05": 0.05, "q95": 0.95}
_BANDS = {
    **dict.fromkeys(_DISTANCES, ("mean", *_QUARTILES, *_TAILS)),
    **dict.fromkeys((*_PARTS, "margin_head", "margin_probe"), ("mean", *_QUARTILES)),
    **dict.fromkeys((*_BOUNDS, *(f"tight_{name}" for name in _TIGHT), "step"), tuple(_QUARTILES)),
}
_TRAJECTORIES = {
    **CELL,
    **{"group": "str", "t": "float64", "n": "int64", "n_split": "int64"},
    **{f"{name}_{part}": "float64" for name, parts in _BANDS.items() for part in parts},
    **dict.fromkeys(["flipped_head", "flipped_probe", "nodes"], "float64"),
}
_OF_PAIR = (
    "amplification",
    "peak_growth",
    "peak_t",
    "lyapunov_along",
    "flip_head",
    "flip_probe",
)
_OF_RUN = ("nfe", "accepted", "rejected", "first_step")
_IMAGES = {
    **CELL,
    **{"group": "str", **dict.fromkeys(["index", "label", "clean_prediction"], "int64")},
    **{f"{name}_{pair}": "float64" for name in _OF_PAIR for pair in PAIRS},
    "lyapunov_largest": "float64",
    **{f"{name}_{run}": "float64" for name in _OF_RUN for run in RUNS},
}
_QUALITY = ("accuracy", "ece", "head_accuracy", "head_ece")
_PROBES = {**SOLVED, "t": "float64", **dict.fromkeys(_QUALITY, "float64")}


def trajectory_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Summarise over images how paths part along the ODE, or along the blocks of a residual body.

    Args:
        paths: Files of kind "trajectory".

    Returns:
        One row for every file, ``t`` in [0, 1] and ``group`` of ``n`` images: ``clean``,
        ``success`` (adversarial examples), ``failed`` (what an attack ended with that found none)
        and ``noise`` (random, of the same norm and size, of all images). Mean, median and quantiles
        (``q25``: 25 %) over the images for which there is a value:

        - of the distance from the clean state (``l2``), that over the clean state's norm
          (``relative_l2``), and the ``cosine`` between the two;
        - of the ratio of the distance at a tight tolerance to that at the cell's (``tight_*``);
        - of the ``rate`` d/dt log |delta|, its part by the Jacobian (``jacobian``), the rest
          (``nonlinear``), and the bounds of the former by the logarithmic norm at the clean state
          (``log_norm_lower``, ``log_norm_upper``); all but the rate, like the ratio, of the
          ``n_split`` images alone whose growth was taken apart;
        - of the margin of the clean decision as the ``head`` and as a ``probe`` of that time read
          it, also of ``clean``;
        - of the size of the accepted ``step`` that covers t, also of ``clean``.

        ``flipped_head``, ``flipped_probe``: share whose decision has left the clean one for good;
        ``nodes``: accepted steps an image that end behind the row before and no later than this
        one. NaN where there is nothing to summarise.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    return collect(paths, "trajectory", _band_rows, _TRAJECTORIES)


def image_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate what became of every image that was followed.

    Args:
        paths: Files of kind "trajectory".

    Returns:
        One row an image and file, in the order of the file, with its ``group`` (``success`` or
        ``failed``). For the perturbations by the ``_attack`` and by ``_noise``: by which factor the
        distance grew from t = 0 to 1 (``amplification``), the largest rate of growth and its time
        (``peak_growth``, ``peak_t``), the finite-time exponent of the linearised flow
        (``lyapunov_along``), and the times from which the decision differs for good, as ``head``
        and probe read it (``flip_*``; NaN: it does not). ``lyapunov_largest`` of the clean path.
        With an ODE for every run evaluations (``nfe``), ``accepted`` and ``rejected`` steps and
        the ``first_step``.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    frames = []
    for file, settings in with_results(paths, "trajectory"):
        where = {name: settings[name] for name in CELL}
        frames.append((place(where), tabulate([where], CELL).merge(_images(file), "cross")))
    # Whole frames: of rows as dicts, a hundred thousand images would take gigabytes.
    ordered = [frame for _, frame in sorted(frames, key=lambda item: item[0])]
    table = pd.concat([tabulate([], _IMAGES), *ordered], ignore_index=True)
    return table.reindex(columns=list(_IMAGES)).astype(_IMAGES)


def probe_table(paths: Iterable[Path | str]) -> pd.DataFrame:
    """Tabulate how well the state at each t is read, by the head and by a probe of that t.

    Args:
        paths: Files of kind "probe".

    Returns:
        One row a file and ``t``: ``accuracy`` and expected calibration error (``ece``) of the
        probe, and of the head (``head_*``), on validation images that the probe was not fitted to.

    Raises:
        UserError: A file is missing, damaged, of another kind or of another schema version.
    """
    return collect(paths, "probe", _probe_rows, _PROBES)


def _probe_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    columns = {name: file[name][:] for name in ("t", *_QUALITY)}
    for position in range(len(columns["t"])):
        yield {name: float(values[position]) for name, values in columns.items()}


def _band_rows(file: h5py.File, _: dict[str, Any]) -> Rows:
    trajectory = Trajectory(file)
    times = trajectory.t
    every = np.ones(len(file["success"]), bool)
    for group, (run, rows) in ({"clean": ("clean", every)} | trajectory.groups()).items():
        n = int(rows.sum())
        columns: dict[str, Array] = {}
        for name, values in _along(trajectory, run).items():
            columns |= _statistics(name, values[rows])
            if name == "jacobian":
                columns["n_split"] = np.isfinite(values[rows]).sum(axis=0)
        if f"{run}/nodes" in file:
            nodes = trajectory.nodes(f"{run}/nodes/t")
            columns["nodes"] = _ends_of_steps([nodes[i] for i in np.flatnonzero(rows)], times)
        for reader in _READERS:
            # Of a reader that there is not, all margins are NaN.
            if run in PAIRS and np.isfinite(file[f"{run}/margin/{reader}"][:][rows]).any():
                flips = file[f"{run}/flip_time/{reader}"][:][rows]
                columns[f"flipped_{reader}"] = (flips[:, None] <= times + _ROUNDING).mean(axis=0)
        for position, t in enumerate(times):
            yield (
                {"group": group, "t": float(t), "n": n, "n_split": 0}
                | {name: float(values[position]) for name, values in columns.items()}
            )


def _along(trajectory: Trajectory, run: str) -> dict[str, Array]:
    """What is known of a run at every time: values [N, T] by name."""
    file = trajectory.file
    names = {f"margin_{reader}": f"{run}/margin/{reader}" for reader in _READERS}
    names |= {name: f"growth/{name}" for name in _BOUNDS}
    if run in PAIRS:
        names |= {name: f"{run}/distance/{name}" for name in _DISTANCES}
        names |= {name: f"{run}/growth/{name}" for name in ("rate", "jacobian")}
    found = {name: file[path][:].astype(float) for name, path in names.items()}
    if run in PAIRS:
        found["nonlinear"] = trajectory.nonlinear_rate(run).astype(float)
    for name in _TIGHT if f"{run}/tight" in file else ():
        with np.errstate(divide="ignore", invalid="ignore"):
            found[f"tight_{name}"] = file[f"{run}/tight/{name}"][:] / found[name]
    if f"{run}/nodes" in file:
        found["step"] = trajectory.step_sizes(run)
    return found


def _statistics(name: str, values: Array) -> dict[str, Array]:
    """Mean and quantiles over the images that have a value, at each time."""
    # Unlike NumPy's, these take no notice of a time at which no image has a value.
    frame = pd.DataFrame(np.where(np.isfinite(values), values, np.nan))
    parts = {part: q for part, q in (_QUARTILES | _TAILS).items() if part in _BANDS[name]}
    quantiles = frame.quantile(list(parts.values()))
    found = {
        f"{name}_{part}": row for part, row in zip(parts, quantiles.to_numpy(float), strict=True)
    }
    if "mean" in _BANDS[name]:
        found[f"{name}_mean"] = frame.mean().to_numpy(float)
    return found


def _ends_of_steps(nodes: list[Array], times: Array) -> Array:
    """How many accepted steps an image end between the time before and each time, that included."""
    if not nodes:
        return np.full(len(times), math.nan)
    ends = np.concatenate([own[1:] for own in nodes])
    place = np.searchsorted(times, ends, side="left").clip(max=len(times) - 1)
    return np.bincount(place, minlength=len(times)) / len(nodes)


def _images(file: h5py.File) -> pd.DataFrame:
    """What the table has of the images of a file, without the coordinates of their cell."""
    success = file["success"][:]
    columns = {
        "index": file["index"][:],
        "label": file["labels"][:],
        "clean_prediction": file["clean_predictions"][:],
        "group": np.where(success, "success", "failed"),
    }
    times = file["t"][:]
    for pair in PAIRS:
        columns |= {
            f"{name}_{pair}": values for name, values in _of_pair(file, pair, times).items()
        }
    for run in RUNS:
        columns |= {f"{name}_{run}": values for name, values in _of_run(file, run).items()}
    columns["lyapunov_largest"] = file["lyapunov_largest"][:]
    return pd.DataFrame(columns)


def _of_pair(file: h5py.File, pair: str, times: Array) -> dict[str, Array]:
    distance = file[f"{pair}/distance/l2"][:].astype(float)
    growth = file[f"{pair}/growth/rate"][:].astype(float)
    known = np.isfinite(growth)
    peak = np.where(known, growth, -np.inf).argmax(axis=1) if len(growth) else np.empty(0, int)
    there = known.any(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        amplification = distance[:, -1] / distance[:, 0]
    found = {
        # A perturbation that is nothing at t = 0 has no factor.
        "amplification": np.where(np.isfinite(amplification), amplification, math.nan),
        "peak_growth": np.where(there, growth[np.arange(len(growth)), peak], math.nan),
        "peak_t": np.where(there, times[peak], math.nan),
        "lyapunov_along": file[f"{pair}/lyapunov_along"][:],
    }
    return found | {f"flip_{reader}": file[f"{pair}/flip_time/{reader}"][:] for reader in _READERS}


def _of_run(file: h5py.File, run: str) -> dict[str, Array]:
    found = {
        name: file[f"{run}/{name}"][:]
        for name in ("nfe", "accepted", "rejected")
        if f"{run}/{name}" in file
    }
    if f"{run}/nodes" in file:
        nodes = Trajectory(file).nodes(f"{run}/nodes/t")
        found["first_step"] = np.array(
            [own[1] - own[0] if len(own) > 1 else math.nan for own in nodes], float
        )
    return found
