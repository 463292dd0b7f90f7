"""The profiles say what their README explains, and avoid what the executor plugin gets wrong."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]


def profile(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())


@pytest.mark.parametrize("name", ["default", "slurm", "pilot"])
def test_every_key_is_explained(name):
    explained = re.findall(r"^\| (`.+?) \|", (ROOT / "profiles/README.md").read_text(), re.M)
    assert set(profile(name)) <= set(re.findall(r"`([\w-]+)`", "\n".join(explained)))


def test_no_job_asks_for_more_than_the_partitions_allow():
    limits = dict(item.split("=") for item in profile("slurm")["resources"])
    partitions = yaml.safe_load((ROOT / "profiles/slurm/partitions.yaml").read_text())["partitions"]
    for partition in partitions.values():
        assert int(limits["runtime"]) <= partition["max_runtime"]
        assert int(limits["mem_mb"]) <= partition["max_mem_mb"]


def test_partitions_are_found_from_any_working_directory(monkeypatch):
    """Snakemake puts the variable in, and is started in the project's folder."""
    monkeypatch.setenv("PWD", str(ROOT))
    path = Path(os.path.expandvars(profile("slurm")["slurm-partition-config"]))
    assert path == ROOT / "profiles/slurm/partitions.yaml"


def test_retries_stand_in_the_profiles_alone():
    """A rule's own are applied a second time inside the SLURM job, without more resources."""
    for path in (ROOT / "workflow").rglob("*.smk"):
        assert "retries:" not in path.read_text()
    assert profile("slurm")["retries"] > 0


def test_jobs_that_slurm_queues_again_are_left_to_it():
    """Neither a lost job after a preemption nor two on one file after the failure of a node."""
    keys = profile("slurm")
    assert keys["slurm-requeue"] is True
    assert "slurm-array-jobs" not in keys
