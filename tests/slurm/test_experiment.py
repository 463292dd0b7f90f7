"""The tiny experiment on the cluster: interrupted, gone on with, in groups, in one allocation."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml

import harness
from harness import ROOT, Run, files, tiny
from pretend import (
    Jobs,
    attempt,
    begin,
    finish,
    jobs,
    meanwhile,
    name_of,
    slurm,
    start_now,
    wait_for,
)

CONFIG = tiny(experiments__tiny__models=["OON"])
ATTACKS = 4
ON_CPUS = {"prepare", "tables", "figures", "stills", "claim", "report"}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on this machine alone."""
    folder = tmp_path_factory.mktemp("here") / "run"
    folder.mkdir()
    run = finish(harness.start(folder, config=CONFIG))
    assert run.returncode == 0, run.output
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> tuple[Path, Run]:
    """A run on the cluster that got Ctrl-C while jobs ran, and what it said."""
    folder = tmp_path_factory.mktemp("there") / "run"
    process = begin(folder, profile, config=CONFIG)
    with meanwhile(process):
        wait_for(lambda: list(folder.glob("results/**/clean.h5")))
        os.killpg(process.pid, signal.SIGINT)
    return folder, finish(process)


def tables(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("results/tiny/tables/*.csv")}
    assert found
    return found


def assert_gpus_where_they_are_used(found: Jobs) -> None:
    """One for each job that computes, and none for the others, as SLURM gave them out."""
    for rule, rows in found.items():
        for row in rows:
            computes = rule not in ON_CPUS and not rule.startswith("summary_")
            assert ("gres/gpu=1" in row["ReqTRES"]) == computes, row
            assert ("gres/gpu=1" in row["AllocTRES"]) == (computes and row["AllocTRES"] != ""), row
            assert row["Partition"] == ("gpu" if computes else "cpu"), row


def test_ctrl_c_ends_the_run_and_its_jobs(interrupted: tuple[Path, Run]) -> None:
    folder, run = interrupted
    assert run.returncode != 0
    wait_for(lambda: slurm("squeue", "-h", f"--name={name_of(run)}") == "")
    assert not (folder / "results/tiny/report.html").exists()
    assert list(folder.glob(".snakemake/locks/*")) == []


def test_jobs_that_compute_get_a_gpu_and_the_others_do_not(interrupted: tuple[Path, Run]) -> None:
    found = jobs(interrupted[1])
    assert {"prepare", "train", "evaluate"} <= set(found)
    assert_gpus_where_they_are_used(found)
    for rule, rows in found.items():
        assert {row["TimelimitRaw"] for row in rows} == {"10" if rule in ON_CPUS else "11"}
    # These GPUs are pretended: SLURM gave one, PyTorch cannot use it, and the log says so.
    for log in (interrupted[0] / "results/tiny/logs/train").rglob("*.log"):
        assert re.search(r"a GPU was given to this job \(\w+_DEVICES=[01]\)", log.read_text())


def test_the_rest_in_groups_gives_what_one_machine_gives(
    interrupted: tuple[Path, Run], here: Path, profile: Path
) -> None:
    folder = interrupted[0]
    before = list(folder.glob("results/**/attack.h5"))
    groups = ["--groups", "attack=cells"]
    groups += [f"{rule}=summary" for rule in ("tables", "figures", "stills", "claim", "report")]
    options = (*groups, "--group-components", "cells=2")
    run = attempt(folder, profile, config=CONFIG, options=options)
    assert run.returncode == 0, run.output
    assert tables(folder) == tables(here)
    assert {path for path in files(folder) if not path.startswith("slurm_logs/")} == files(here)
    found = jobs(run)
    assert_gpus_where_they_are_used(found)
    cells = [row for rule, rows in found.items() if rule.startswith("cells_") for row in rows]
    assert len(cells) == -(-(ATTACKS - len(before)) // 2)
    assert sum(rule.startswith("summary_") for rule in found) == 1


def test_in_one_allocation_with_an_interruption(here: Path, tmp_path: Path) -> None:
    """All attacks again, from the pilot script, which goes on after its time was up."""
    folder = Path(shutil.copytree(here, tmp_path / "run"))
    for path in folder.glob("results/**/attack.h5"):
        path.unlink()
    # Finished tables would make it unnecessary to have them.
    shutil.rmtree(folder / "results/tiny/tables")
    (folder / "results/tiny/report.html").unlink()
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(CONFIG))
    allocation = ["--parsable", "--partition=gpu", "--gpus-per-node=2", "--cpus-per-task=2"]
    allocation += ["--mem=8000", "--time=10", f"--output={tmp_path}/pilot.log", f"--chdir={ROOT}"]
    script = ["profiles/pilot/pilot.sh", "all", "--directory", str(folder)]
    script += ["--configfile", str(tmp_path / "tiny.yaml"), "--latency-wait", "5"]
    job = slurm("sbatch", *allocation, *script).strip()
    log = tmp_path / "pilot.log"

    def state() -> str:
        return slurm("squeue", "-h", "--states=all", f"--jobs={job}", "-o", "%T").strip()

    wait_for(lambda: log.exists() and " steps (" in log.read_text())
    slurm("scancel", "--batch", "--signal=USR1", job)
    wait_for(lambda: state() == "PENDING")
    start_now(job)
    wait_for(lambda: state() not in ("PENDING", "RUNNING", "COMPLETING"))
    assert state() == "COMPLETED", log.read_text()
    first, rest = (int(n) for n in re.findall(r"^attack +(\d+)$", log.read_text(), re.MULTILINE))
    assert (first, 0 < rest < first) == (ATTACKS, True)
    assert tables(folder) == tables(here)
    logs = [path.read_text() for path in folder.glob("results/tiny/logs/attack/**/*.log")]
    assert {match for text in logs for match in re.findall(r"DEVICES=(\S+)\)", text)} == {"0", "1"}
