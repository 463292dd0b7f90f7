"""Runs on the pretend cluster of cluster.sh, which these tests cancel and break at will."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from harness import ROOT
from pretend import slurm


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> None:
    """Skip where the pretend cluster does not run."""
    if "NODE_ROBUSTNESS_CLUSTER" not in os.environ:
        pytest.skip("they need a SLURM cluster: make test-slurm (CONTRIBUTING.md)")
    assert "= pretend\n" in slurm("scontrol", "show", "config")


@pytest.fixture(scope="module", autouse=True)
def _no_job_left(_cluster: None) -> Iterator[None]:
    yield
    slurm("scancel", "--user=root")


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """profiles/slurm, for the partitions of the pretend cluster and with less patience."""
    keys = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    keys["slurm-partition-config"] = str(ROOT / "tests/slurm/partitions.yaml")
    keys["resources"] = ["runtime=60", "mem_mb=8000", "gpu=1"]
    keys["max-jobs-per-timespan"] = "100/1s"
    keys["slurm-init-seconds-before-status-checks"] = 2
    keys["latency-wait"] = 10
    folder = tmp_path_factory.mktemp("profile")
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))
    return folder
