"""The tiny experiment on the cluster: interrupted, gone on with, in groups, in one allocation."""

import os
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from harness import ROOT, TINY, Run, attempt, files, finish, start
from pretend import jobs, meanwhile, slurm, start_now, wait_for

CELLS = 6


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on this machine alone."""
    folder = tmp_path_factory.mktemp("here") / "run"
    run = attempt(folder)
    assert run.returncode == 0, run.output
    return folder


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> tuple[Path, Run]:
    """A run on the cluster that got Ctrl-C while attacks ran, and what it said."""
    folder = tmp_path_factory.mktemp("there") / "run"
    folder.mkdir()
    process = start(folder, options=("--profile", str(profile)))
    with meanwhile(process):
        wait_for(lambda: list(folder.glob("results/**/attack.h5")), seconds=150)
        os.killpg(process.pid, signal.SIGINT)
    return folder, finish(process)


def tables(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("results/tiny/tables/*.csv")}
    assert found
    return found


def test_ctrl_c_ends_the_run_and_its_jobs(interrupted: tuple[Path, Run]) -> None:
    folder, run = interrupted
    assert run.returncode != 0
    name = run.output.split("SLURM run ID: ")[1].split()[0]
    wait_for(lambda: slurm("squeue", "-h", f"--name={name}") == "")
    assert not (folder / "results/tiny/report.html").exists()
    assert list(folder.glob(".snakemake/locks/*")) == []


def test_jobs_that_compute_asked_for_a_gpu_and_the_others_did_not(
    interrupted: tuple[Path, Run],
) -> None:
    found = jobs(interrupted[1].output)
    assert {"prepare", "train", "evaluate", "attack"} <= set(found)
    for rule, rows in found.items():
        for row in rows:
            computes = rule != "prepare"
            assert ("gres/gpu=1" in row["ReqTRES"]) == computes, row
            assert row["Partition"] == ("gpu" if computes else "cpu")
            assert row["TimelimitRaw"] == ("11" if computes else "10")
    log = interrupted[0] / "results/tiny/logs/train/digits/OON/seed-0.log"
    # These GPUs are pretended: SLURM gave one, PyTorch cannot use it, and the log says so.
    assert re.search(r"a GPU was given to this job \(CUDA_VISIBLE_DEVICES=[01]\)", log.read_text())


def test_the_rest_in_groups_gives_what_one_machine_gives(
    interrupted: tuple[Path, Run], here: Path, profile: Path
) -> None:
    folder = interrupted[0]
    before = list(folder.glob("results/**/attack.h5"))
    groups = ("--groups", "attack=cells", "tables=summary", "figures=summary", "report=summary")
    components = ("--group-components", "cells=3")
    run = attempt(folder, options=("--profile", str(profile), *groups, *components))
    assert run.returncode == 0, run.output
    assert tables(folder) == tables(here)
    assert files(folder) - files(here) <= {p for p in files(folder) if p.startswith("slurm_logs/")}
    assert files(here) <= files(folder)
    found = jobs(run.output)
    cells = [row for rule, rows in found.items() if rule.startswith("cells_") for row in rows]
    assert len(cells) == -(-(CELLS - len(before)) // 3)
    # One after the other on one GPU, not three GPUs at once.
    assert all("gres/gpu=1" in row["ReqTRES"] for row in cells)


def test_in_one_allocation_with_an_interruption(here: Path, tmp_path: Path) -> None:
    """All attacks again, from the pilot script, which goes on after its time was up."""
    folder = Path(shutil.copytree(here, tmp_path / "run"))
    for path in folder.glob("results/**/attack.h5"):
        path.unlink()
    # Finished tables would make it unnecessary to have them.
    shutil.rmtree(folder / "results/tiny/tables")
    (folder / "results/tiny/report.html").unlink()
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    allocation = ["--parsable", "--partition=gpu", "--gpus-per-node=2", "--cpus-per-task=2"]
    allocation += ["--mem=8000", "--time=10", f"--output={tmp_path}/pilot.log", f"--chdir={ROOT}"]
    script = ["profiles/pilot/pilot.sh", "--directory", str(folder)]
    script += ["--configfile", str(tmp_path / "tiny.yaml"), "--latency-wait", "5"]
    job = slurm("sbatch", *allocation, *script).strip()
    log = tmp_path / "pilot.log"

    def state() -> str:
        return slurm("squeue", "-h", "--states=all", f"--jobs={job}", "-o", "%T").strip()

    wait_for(lambda: log.exists() and " of 12 steps" in log.read_text())
    slurm("scancel", "--batch", "--signal=USR1", job)
    wait_for(lambda: state() == "PENDING")
    start_now(job)
    wait_for(lambda: state() not in ("PENDING", "RUNNING", "COMPLETING"), seconds=150)
    assert state() == "COMPLETED", log.read_text()
    first, rest = (int(n) for n in re.findall(r"^attack +(\d+)$", log.read_text(), re.MULTILINE))
    assert (first, 0 < rest < first) == (CELLS, True)
    assert tables(folder) == tables(here)
    logs = [path.read_text() for path in folder.glob("results/tiny/logs/attack/**/*.log")]
    assert {match for text in logs for match in re.findall(r"DEVICES=(\S+)\)", text)} == {"0", "1"}
