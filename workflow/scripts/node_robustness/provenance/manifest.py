"""What made a run: software, machine, configuration and time.

Tables hold only what the configuration determines; all that differs from run to run is here.
"""

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.files.atomic import SOFTWARE
from node_robustness.files.hdf5 import open_hdf5
from node_robustness.grid import paths
from node_robustness.provenance import costs
from node_robustness.provenance.command_line import recall
from node_robustness.provenance.software import git_commit, versions


def manifest(
    config: Mapping[str, Any],
    jobs: pd.DataFrame,
    budgets: pd.DataFrame,
    own_models: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Describe this run, its machines and what it cost.

    Args:
        config: The configuration, as JSON can hold it.
        jobs: Result of `costs.job_costs`.
        budgets: Result of `protocols.budget_table`.
        own_models: Result of `networks.own_models`.
        device: What computed, for people.

    Returns:
        ``software``, ``created_utc`` (ISO 8601), ``command_line`` (of the run that made the
        report; None if it is not known), ``host``, ``platform``, ``python`` and ``threads``
        (processors) of the machine that wrote it, ``hosts`` on which jobs ran, ``device``,
        ``checkpoints`` (SHA-256 of the weights that were attacked, by dataset, model and seed),
        ``own_models`` (what is known of each, by the same),
        ``versions`` by distribution, ``git_commit`` (with ``-dirty`` if files differ from it; None
        outside a checkout or without git), ``config``, and ``stages``: see `costs.stages`.
    """
    return {
        "software": SOFTWARE,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command_line": recall(),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "hosts": sorted(set(jobs.host.dropna())),
        "device": device,
        "threads": os.cpu_count(),
        "checkpoints": _checkpoints(budgets),
        "own_models": dict(own_models),
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
        "config": dict(config),
        "stages": costs.stages(jobs),
    }


def _checkpoints(budgets: pd.DataFrame) -> dict[str, str]:
    found = budgets[["dataset", "model", "seed", "weights_sha256"]].drop_duplicates()
    return {
        paths.fill(paths.TRAINED, row): str(row["weights_sha256"])
        for row in found.to_dict("records")
    }


def devices(clean: Iterable[Path | str]) -> str:
    """Return the devices that made the given clean evaluations, separated by commas."""
    found = set()
    for path in clean:
        with open_hdf5(path, "clean") as file:
            found.add(str(file.attrs["device"]))
    return ", ".join(sorted(found))
