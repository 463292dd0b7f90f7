"""What made a run: software, machine, configuration and time.

Tables hold only what the configuration determines; all that differs from run to run is here.
"""

import csv
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node_robustness.storage import SOFTWARE, open_hdf5
from node_robustness.tables import natural

_DISTRIBUTIONS = (
    "snakemake",
    "torch",
    "torchdiffeq",
    "numpy",
    "pandas",
    "pyarrow",
    "h5py",
    "safetensors",
    "statsmodels",
    "altair",
    "vl-convert-python",
    "pydantic",
    "pooch",
)


def manifest(config: Mapping[str, Any], benchmarks: Iterable[Path], device: str) -> dict[str, Any]:
    """Describe this run, its machine and what it cost.

    Args:
        config: The configuration, as JSON can hold it.
        benchmarks: Snakemake's benchmark files, ``.../benchmarks/{rule}/....tsv``.
        device: What computed, for people.

    Returns:
        ``software``, ``created_utc`` (ISO 8601), ``host``, ``platform``, ``python``, ``device``,
        ``threads`` (processors of the machine that wrote it), ``versions`` by distribution,
        ``git_commit`` (with ``-dirty`` if files differ from it; None outside a checkout),
        ``config``, and ``stages``: see `stages`.
    """
    return {
        "software": SOFTWARE,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "device": device,
        "threads": os.cpu_count(),
        "versions": versions(),
        "git_commit": git_commit(Path(__file__).parent),
        "config": dict(config),
        "stages": stages(benchmarks),
    }


def devices(clean: Iterable[Path | str]) -> str:
    """Return the devices that made the given clean evaluations, separated by commas."""
    found = set()
    for path in clean:
        with open_hdf5(path, "clean") as file:
            found.add(str(file.attrs["device"]))
    return ", ".join(sorted(found))


def versions() -> dict[str, str]:
    """Return the installed versions of the distributions that a result depends on."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_commit(folder: Path) -> str | None:
    """Return the commit that a folder is checked out at, or None where there is none to ask.

    Args:
        folder: A folder of the code.

    Returns:
        The full hash, with ``-dirty`` where tracked files differ from it.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def stages(benchmarks: Iterable[Path]) -> list[dict[str, Any]]:
    """Sum Snakemake's benchmark files by rule.

    Args:
        benchmarks: Paths ``.../benchmarks/{rule}/....tsv``; tab-separated with a header that has
            ``s`` (seconds) and ``max_rss`` (MB, or ``NA`` for a job too short to be measured).

    Returns:
        For every rule, in natural order: ``rule``, ``jobs``, ``seconds`` (sum of wall times) and
        ``max_rss_mb`` (largest over the jobs; None if none was measured).
    """
    rows: dict[str, list[dict[str, str]]] = {}
    for path in benchmarks:
        # The last such folder: an experiment, or a folder above it, may bear the name too.
        rule = path.parts[-path.parts[::-1].index("benchmarks")]
        with path.open(newline="") as stream:
            rows.setdefault(rule, []).extend(csv.DictReader(stream, delimiter="\t"))
    return [
        {
            "rule": rule,
            "jobs": len(rows[rule]),
            "seconds": sum(float(row["s"]) for row in rows[rule]),
            "max_rss_mb": max(
                (float(row["max_rss"]) for row in rows[rule] if row["max_rss"] not in ("NA", "-")),
                default=None,
            ),
        }
        for rule in sorted(rows, key=natural)
    ]
