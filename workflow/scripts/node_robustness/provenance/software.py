"""The software of a run: versions of libraries, and the commit of the project."""

import importlib.metadata
import subprocess
from pathlib import Path

_DISTRIBUTIONS = (
    "snakemake",
    "torch",
    "torchdiffeq",
    "numpy",
    "pandas",
    "pyarrow",
    "h5py",
    "safetensors",
    "scikit-learn",
    "scipy",
    "torchattacks",
    "altair",
    "vl-convert-python",
    "pydantic",
    "requests",
)


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
