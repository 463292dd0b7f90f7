"""Parts of the cluster go away while jobs run, or Snakemake does: nothing runs twice at a time."""

import os
import signal
from pathlib import Path

from harness import ROOT, Run
from pretend import (
    HERE,
    attempt,
    begin,
    cluster,
    finish,
    jobs,
    meanwhile,
    name_of,
    numbers,
    slurm,
    start_now,
    wait_for,
)

OUTAGES = HERE / "outages.smk"


def gone(rule: str) -> bool:
    return not numbers(rule, "RUNNING") and not numbers(rule, "COMPLETING")


def test_slurmctld_and_a_node_that_go_away(tmp_path: Path, profile: Path) -> None:
    """Once with the accounts of slurmdbd, and once as where none are kept."""
    folder, other = tmp_path / "run", tmp_path / "without-accounting"
    stand_in = {"PATH": f"{ROOT}/profiles/slurm/without-accounting:{os.environ['PATH']}"}
    process = begin(folder, profile, snakefile=OUTAGES)
    alike = begin(other, profile, "patient.done", snakefile=OUTAGES, variables=stand_in)
    with meanwhile(process, alike):
        started = (folder / "patient.started", folder / "moved.started", other / "patient.started")
        wait_for(lambda: all(path.exists() for path in started))
        cluster("restart", "14")
        (folder / "go").touch()
        (other / "go").touch()
        wait_for(lambda: gone("patient"))
        (moved,) = numbers("moved", "RUNNING")
        node = slurm("squeue", "-h", f"--jobs={moved}", "-o", "%N").strip()
        cluster("fail", node)
        wait_for(lambda: numbers("moved", "PENDING") == [moved])
        start_now(moved)
    run, without_accounting = finish(process), finish(alike)
    cluster("start")
    for each in (run, without_accounting):
        assert each.returncode == 0, each.output
        assert "Falling back to 'sacct'" in each.output
    assert {rule: len(rows) for rule, rows in jobs(run).items()} == {"patient": 1, "moved": 1}
    assert {rule: len(rows) for rule, rows in jobs(without_accounting).items()} == {"patient": 1}
    assert jobs(run)["moved"][0]["NodeList"] != node
    assert (folder / "patient.started").read_text() == "\n"
    assert (folder / "moved.started").read_text() == "\n" * 2


def test_after_a_killed_snakemake_nothing_runs_twice(tmp_path: Path, profile: Path) -> None:
    """The lock keeps a second one out until the jobs of the first are cancelled, as documented."""
    folder = tmp_path / "run"

    def again(*options: str) -> Run:
        return attempt(folder, profile, "patient.done", options=options, snakefile=OUTAGES)

    process = begin(folder, profile, "patient.done", snakefile=OUTAGES)
    with meanwhile(process):
        wait_for(lambda: (folder / "patient.started").exists())
    os.killpg(process.pid, signal.SIGKILL)
    killed = finish(process)
    locked = again()
    assert locked.returncode != 0
    assert "Directory cannot be locked" in locked.output
    assert len(numbers("patient", "RUNNING")) == 1
    slurm("scancel", f"--name={name_of(killed)}")
    assert again("--unlock").returncode == 0
    wait_for(lambda: gone("patient"))
    (folder / "go").touch()
    run = again()
    assert run.returncode == 0, run.output
    assert (folder / "patient.started").read_text() == "\n" * 2
    assert [row["State"] for row in jobs(run)["patient"]] == ["COMPLETED"]
