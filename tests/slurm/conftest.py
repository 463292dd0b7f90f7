"""Runs on the pretend cluster of cluster.sh, which these tests cancel and break at will."""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from harness import ROOT
from pretend import slurm


@pytest.fixture(scope="session", autouse=True)
def _cluster() -> Iterator[None]:
    """Skip where the pretend cluster does not run; leave no job behind."""
    if shutil.which("sinfo") is None:
        pytest.skip("no SLURM here; as root, tests/slurm/cluster.sh installs and starts one")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("snakemake-executor-plugin-slurm is not installed: make slurm")
    try:
        config = slurm("scontrol", "show", "config")
    except subprocess.SubprocessError:
        config = ""
    if "= pretend\n" not in config:
        pytest.skip('the pretend cluster is not there: eval "$(tests/slurm/cluster.sh env)"')
    yield
    slurm("scancel", "--user=root")


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """profiles/slurm, for the partitions of the pretend cluster and with less patience."""
    keys = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    keys["slurm-partition-config"] = str(ROOT / "tests/slurm/partitions.yaml")
    keys["resources"] = ["runtime=60", "mem_mb=8000", "gpu=1"]
    keys["slurm-init-seconds-before-status-checks"] = 2
    keys["latency-wait"] = 10
    folder = tmp_path_factory.mktemp("profile")
    (folder / "config.yaml").write_text(yaml.safe_dump(keys))
    return folder
