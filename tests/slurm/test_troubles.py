"""Jobs that the cluster or their own fault ends: tried again with more, or reported and cleared."""

import time
from pathlib import Path

import pytest

from harness import Run
from pretend import HERE, Jobs, begin, finish, jobs, meanwhile, numbers, slurm, start_now, wait_for

Troubled = tuple[Path, Run, Jobs]


def preempt() -> None:
    """Have both jobs that can be preempted on their node give way, and start them again.

    One SLURM queues again by itself, and the other only if it is told to.
    """
    urgent = ("--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null")
    slurm("sbatch", *urgent, "--wrap=sleep 1")
    wait_for(lambda: numbers("preempted", "PENDING") and numbers("lost", "PREEMPTED"))
    # Snakemake shall ask a few times for the state of the one that does not come back.
    time.sleep(5)
    (lost,) = numbers("lost", "PREEMPTED")
    slurm("scontrol", "requeue", lost)
    wait_for(lambda: numbers("lost", "PENDING"))
    start_now(*numbers("preempted", "PENDING"), lost)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory, profile: Path) -> Troubled:
    """A run of troubles.smk: its folder, what Snakemake said, its SLURM jobs."""
    folder = tmp_path_factory.mktemp("troubles") / "run"
    process = begin(folder, profile, snakefile=HERE / "troubles.smk")
    with meanwhile(process):
        started = [folder / f"{r}.started" for r in ("time", "cancelled", "preempted", "lost")]
        wait_for(lambda: all(path.exists() for path in started))
        # Limits are whole minutes: this one ends now.
        slurm("scontrol", "update", f"jobid={numbers('time', 'RUNNING')[0]}", "EndTime=now+1")
        slurm("scancel", *numbers("cancelled", "RUNNING"))
        preempt()
    run = finish(process)
    return folder, run, jobs(run)


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
    assert column(found["memory"], "ReqMem") == ["600M", "1200M"]
    assert column(found["memory"], "State")[0] in ("FAILED", "OUT_OF_MEMORY")
    assert column(found["memory"], "State")[1] == "COMPLETED"


def test_cancelled_from_outside_is_tried_again(troubled: Troubled) -> None:
    folder, _, found = troubled
    assert (folder / "cancelled.done").exists()
    assert column(found["cancelled"], "State") == ["CANCELLED", "COMPLETED"]


@pytest.mark.parametrize("rule", ["preempted", "lost"])
def test_preempted_is_run_again_as_the_same_job(troubled: Troubled, rule: str) -> None:
    """Where the partition cancels what it preempts, after the warning and `scontrol requeue`."""
    folder, run, found = troubled
    assert (folder / f"{rule}.done").exists()
    assert (folder / f"{rule}.started").read_text() == "\n" * 2
    assert len({row["JobIDRaw"] for row in found[rule]}) == 1
    assert run.output.count("A Job preemption") == 1


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
