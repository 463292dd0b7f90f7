"""A run's time beside what the paper's procedure would have taken for the same attacks.

The procedure is timed on a few images of each model at each tolerance (`pace`). It is extrapolated
by gradient steps, which the files of the attacks count, and not by images: where the attack stops
at the first adversarial, an image takes fewer of them at a larger epsilon.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.statistics.intervals import Estimate, mean_with_interval
from node_robustness.tables.frame import place
from node_robustness.words import duration

_ATTACKING = ("attack", "attack_shard", "merge")
_ENDS = ("", "_low", "_high")
_TOTALLED = ("run_seconds", *(f"procedure_seconds{end}" for end in _ENDS), "steps", "images")


def compare(
    paces: Iterable[Path | str], attacks: pd.DataFrame, jobs: pd.DataFrame
) -> list[dict[str, Any]]:
    """Extrapolate the paper's procedure to all cells of the run that have its attack.

    Args:
        paces: Files of kind "pace".
        attacks: The table of that name.
        jobs: Result of `costs.job_costs`.

    Returns:
        For every dataset, model and tolerance, sorted: ``images`` timed (of those that the model
        classifies correctly), ``seconds_image`` (mean), ``seconds_step`` of one of their gradient
        steps with its 95 % interval over images, ``_low`` and ``_high``; of the cells of the
        attack, in all seeds, norms and epsilons, their number ``cells`` and their gradient
        ``steps``; the ``procedure_seconds`` that these steps would take by the procedure, with
        bounds from those of ``seconds_step``; and the ``run_seconds`` of their jobs, added up.
        None where something is not known.

    Raises:
        UserError: A file is missing, damaged or of another kind.
    """
    rows = []
    for path in paces:
        with open_hdf5(path, "pace") as file:
            settings = read_settings(file)
            seconds, iterations = file["seconds"][:], file["iterations"][:]
        where = {key: settings[key] for key in ("dataset", "model", "tolerance")}
        most = settings.get("iterations", 1) * settings.get("restarts", 1)
        own = _same(attacks, where | {"attack": settings["attack"]})
        steps = float(_steps(own, most).sum())
        timed = iterations > 0
        step = _mean(seconds[timed] / iterations[timed])
        done = _same(jobs, where | {"attack": settings["attack"]})
        took = done[done.rule.isin(_ATTACKING)].seconds.sum(min_count=1)
        rows.append(
            where
            | {"images": int(timed.sum()), "seconds_image": _known(_mean(seconds[timed]).value)}
            | _with_bounds("seconds_step", step)
            | {"cells": len(own), "steps": steps}
            | _with_bounds("procedure_seconds", [value * steps for value in step])
            | {"run_seconds": _known(took)}
        )
    return sorted(rows, key=place)


def sentences(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what the comparison comes to, or nothing where a part of it is not known.

    Args:
        found: Result of `compare`.
    """
    run, mean, low, high, steps, images = (_total(found, key) for key in _TOTALLED)
    if not found or run is None or mean is None:
        return []
    bounds = "" if low is None else f" ({duration(low)} to {duration(high)})"
    return [
        f"The paper's attack took {duration(run)} (h:mm:ss) of this run, the start of its jobs "
        f"included. By the paper's procedure, one image at a time, its {steps:,.0f} gradient steps "
        f"would have taken {duration(mean)}{bounds}, {mean / run:.1f} times as long: extrapolated "
        f"from {images} images, timed on the same machine."
    ]


def _total(found: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """The sum over models and tolerances, if it is known of all of them."""
    values = [row[key] for row in found]
    return None if any(value is None for value in values) else sum(values)


def _same(frame: pd.DataFrame, where: dict[str, Any]) -> pd.DataFrame:
    """The rows with these values; None is a tolerance that there is not."""
    for key, value in where.items():
        frame = frame[frame[key].isna() if value is None else frame[key] == value]
    return frame


def _steps(cells: pd.DataFrame, most: int) -> "pd.Series[float]":
    """The gradient steps of cells: those to the adversarials found, and all where none was."""
    found = (cells.successes * cells.iterations_mean).where(cells.successes > 0, 0)
    return found + (cells.attacked - cells.successes) * most


def _mean(values: Any) -> Estimate:
    """A mean, as far as there are values, with its interval, as far as there are several."""
    if len(values) < 2:
        return Estimate(float(values[0]) if len(values) else math.nan, math.nan, math.nan)
    return mean_with_interval(values, (0, math.inf))


def _with_bounds(name: str, values: Sequence[float]) -> dict[str, float | None]:
    return {f"{name}{end}": _known(v) for end, v in zip(_ENDS, values, strict=True)}


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)
