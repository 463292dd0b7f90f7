"""The run that the tests of the workflow share."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from harness import Run, snakemake


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all processes that share the tests."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def finished_run(shared: Path) -> tuple[Path, Run]:
    """A finished run of the tiny configuration, not to be changed, and what Snakemake said."""
    folder, said = shared / "finished", shared / "finished.log"
    with FileLock(shared / "finished.lock"):
        if not said.exists():
            said.write_text(snakemake(folder, as_a_user=True).output)
    return folder, Run(0, said.read_text())


@pytest.fixture(scope="session")
def finished(finished_run: tuple[Path, Run]) -> Path:
    """The folder of a finished run, not to be changed."""
    return finished_run[0]


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run: to Snakemake, it is as up to date as the original."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """An empty folder to run in."""
    return tmp_path / "run"
