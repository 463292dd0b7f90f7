"""Jobs that the cluster or their own fault ends: tried again with more, or reported and cleared."""

import subprocess
from pathlib import Path

import pytest
from harness import ROOT, Run, finish, start
from pretend import jobs, meanwhile, slurm, start_now, wait_for

Troubled = tuple[Path, Run, dict[str, list[dict[str, str]]]]


def running(rule: str) -> str:
    """The number of the job of a rule that runs."""
    rows = [line.split("|") for line in slurm("squeue", "-h", "-o", "%i|%k|%T").splitlines()]
    (number,) = (row[0] for row in rows if row[1:] == [f"rule_{rule}", "RUNNING"])
    return number


def let_start(rule: str) -> None:
    """Wait until the job of a rule is requeued, and start it."""

    def requeued() -> list[str]:
        rows = [line.split("|") for line in slurm("squeue", "-h", "-o", "%i|%k|%T").splitlines()]
        return [row[0] for row in rows if row[1:] == [f"rule_{rule}", "PENDING"]]

    wait_for(requeued)
    start_now(*requeued())


def begin(folder: Path, snakefile: str, profile: Path) -> "subprocess.Popen[str]":
    folder.mkdir()
    options = ("--profile", str(profile), "--keep-going", "--show-failed-logs")
    return start(folder, options=options, snakefile=ROOT / "tests/slurm" / snakefile)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> Troubled:
    """A run of troubles.smk: its folder, what Snakemake said, its SLURM jobs."""
    folder = tmp_path_factory.mktemp("troubles") / "run"
    process = begin(folder, "troubles.smk", profile)
    with meanwhile(process):
        started = [folder / f"{rule}.started" for rule in ("time", "cancelled", "preempted")]
        wait_for(lambda: all(path.exists() for path in started))
        # Limits are whole minutes: this one ends now.
        slurm("scontrol", "update", f"jobid={running('time')}", "EndTime=now+1")
        slurm("scancel", running("cancelled"))
        urgent = ("--nodelist=node1", "--exclusive", "--time=1", "--output=/dev/null")
        slurm("sbatch", "--partition=urgent", *urgent, "--wrap=sleep 1")
        let_start("preempted")
    run = finish(process)
    return folder, run, jobs(run.output)


def column(rows: list[dict[str, str]], key: str) -> list[str]:
    return [row[key].split(" ")[0] for row in rows]


def test_out_of_time_is_tried_again_with_more(troubled: Troubled) -> None:
    folder, _, found = troubled
    assert (folder / "time.done").exists()
    assert column(found["time"], "State") == ["TIMEOUT", "COMPLETED"]
    assert column(found["time"], "TimelimitRaw")[1] == "4"


def test_out_of_memory_is_tried_again_with_more(troubled: Troubled) -> None:
    folder, _, found = troubled
    assert (folder / "memory.done").exists()
    assert column(found["memory"], "ReqMem") == ["1000M", "2000M"]
    assert column(found["memory"], "State")[0] in ("FAILED", "OUT_OF_MEMORY")
    assert column(found["memory"], "State")[1] == "COMPLETED"


def test_cancelled_from_outside_is_tried_again(troubled: Troubled) -> None:
    folder, _, found = troubled
    assert (folder / "cancelled.done").exists()
    assert column(found["cancelled"], "State") == ["CANCELLED", "COMPLETED"]


def test_preempted_is_run_again_by_slurm_as_the_same_job(troubled: Troubled) -> None:
    folder, _, found = troubled
    assert (folder / "preempted.done").exists()
    assert (folder / "preempted.started").read_text() == "\n" * 2
    assert len({row["JobIDRaw"] for row in found["preempted"]}) == 1


def test_a_broken_job_ends_with_its_reason_and_no_partial_file(troubled: Troubled) -> None:
    folder, run, found = troubled
    assert run.returncode == 1
    assert "error: the reason" in run.output
    assert (folder / "broken.log").read_text() == "error: the reason\n"
    assert not (folder / "broken.done").exists()
    # Three attempts, each with more, but never more than the profile's largest.
    assert column(found["broken"], "State") == ["FAILED"] * 3
    assert column(found["broken"], "TimelimitRaw") == ["10", "20", "40"]
    assert column(found["broken"], "ReqMem") == ["4000M", "8000M", "8000M"]
    logs = list((folder / "slurm_logs/rule_broken").glob("*.log"))
    assert len(logs) == 3
    assert "returned non-zero exit status 1" in logs[0].read_text()


def test_slurmctld_and_a_node_that_go_away(tmp_path: Path, profile: Path) -> None:
    folder = tmp_path / "run"
    process = begin(folder, "outages.smk", profile)
    with meanwhile(process):
        wait_for(lambda: all((folder / f"{r}.started").exists() for r in ("patient", "moved")))
        subprocess.run([ROOT / "tests/slurm/cluster.sh", "restart", "12"], check=True, timeout=60)
        (folder / "go").touch()
        wait_for(lambda: "patient" not in slurm("squeue", "-h", "-o", "%k"))
        node = slurm("squeue", "-h", f"--jobs={running('moved')}", "-o", "%N").strip()
        # It comes back by itself, since its slurmd lives on.
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        let_start("moved")
    run = finish(process)
    assert run.returncode == 0, run.output
    assert (folder / "moved.started").read_text() == "\n" * 2
    numbers = {rule: {row["JobIDRaw"] for row in rows} for rule, rows in jobs(run.output).items()}
    assert {rule: len(them) for rule, them in numbers.items()} == {"patient": 1, "moved": 1}
