"""kill -9 at random moments, of jobs and of Snakemake: nothing partial counts, the end is the same.

The moments are drawn from a seed, and printed where a test fails. What they meet varies.
"""

import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from safetensors import safe_open

from harness import files, scripts, snakemake, start, tiny, untimed
from node_robustness.errors import UserError
from node_robustness.files.hdf5 import open_hdf5

pytestmark = pytest.mark.slow

KILLS = 10  # in each of two tests
# The least that has every stage, and a training of some length.
SMALL = {
    "experiments__tiny__models": ["OON"],
    "experiments__tiny__norms": ["linf"],
    "training__epochs": 20,
}
IN_SHARDS = tiny(**SMALL, compute__shard_size=25)
TRAINED = "results/tiny/digits/OON/seed-0"
# Many times what a run takes from beginning to end.
PATIENCE = 600


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run to which nothing happened, its attacks in one piece; its seconds."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    started = time.monotonic()
    snakemake(folder, config=tiny(**SMALL))
    return folder, time.monotonic() - started


@dataclass
class Victim:
    """A run that is killed again and again.

    Attributes:
        folder: where it runs.
        said: where its output is kept.
        process: Snakemake, unless it was killed or ended.
        groups: the process groups of all Snakemakes there were.
    """

    folder: Path
    said: Path
    process: "subprocess.Popen[str] | None" = None
    groups: list[int] = field(default_factory=list)

    def start(self) -> "subprocess.Popen[str]":
        """Start Snakemake, after a crash as its users do."""
        if self.groups:
            snakemake(self.folder, config=IN_SHARDS, options=("--unlock",))
        self.process = start(self.folder, config=IN_SHARDS, output=self.said)
        self.groups.append(self.process.pid)
        return self.process

    def kill(self, what: str, draw: random.Random) -> bool:
        """Kill a job, Snakemake alone, or both.

        Forks of a server end with Snakemake. Other jobs go on, and meet those of the next one.

        Returns:
            Whether there was something to be killed.
        """
        assert self.process is not None
        running = sorted(scripts(self.folder, r"\w+"), key=lambda process: process.pid)
        if what == "job":
            struck = [draw.choice(running)] if running else []
            for process in struck:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        else:
            struck = [p for p in running if what == "everything" and self._started(p)]
            if what == "everything":
                kill_group(self.process.pid)
            self.process.kill()
            self.process.wait()
            self.process = None
        psutil.wait_procs(struck, timeout=PATIENCE)
        return what != "job" or bool(struck)

    def _started(self, job: psutil.Process) -> bool:
        """Whether a job is one of the Snakemake that runs, and not of a dead one."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            return os.getpgid(job.pid) == self.process.pid
        return False


@contextmanager
def victim(folder: Path) -> Iterator[Victim]:
    """A run of which no process is left in the end, and whose output is shown if a test fails."""
    folder.mkdir(exist_ok=True)
    run = Victim(folder, folder.with_name("said"))
    try:
        yield run
    except BaseException:
        print(run.said.read_text()[-20_000:])
        raise
    finally:
        for group in run.groups:
            kill_group(group)


def kill_group(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def ended(process: "subprocess.Popen[str]", seconds: float) -> bool:
    """Whether a process ends within so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def comes_to(condition: Callable[[], bool], process: "subprocess.Popen[str]") -> bool:
    """Whether something comes true before a process ends."""
    patience = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < patience, "nothing happens"
        if ended(process, 0.1):
            return False
    return True


def epochs(checkpoint: Path) -> int:
    """How many epochs a checkpoint has behind it."""
    with safe_open(checkpoint, framework="pt") as file:
        return len(json.loads(file.metadata()["state"])["history"])


class Training:
    """That a killed training goes on at its checkpoint."""

    def __init__(self, run: Path) -> None:
        self._run = run
        # Where the next one has to go on, and what the log said before it.
        self._due: tuple[int, str] | None = None

    @property
    def log(self) -> str:
        """What the log of the last one says."""
        path = self._run / "results/tiny/logs/train/digits/OON/seed-0.log"
        return path.read_text() if path.exists() else ""

    def went_on_after(self) -> int:
        """The epoch after which the last one went on; 0 if it started again, or has not begun."""
        found = re.search(r"resuming after epoch (\d+)", self.log)
        return int(found[1]) if found else 0

    def look(self) -> None:
        """See that one that began since the last look did go on."""
        log = self.log
        # It trains: the bar is there, or the line that says where it goes on.
        if self._due is not None and self._due[1] != log and re.search(r"resuming|\d%", log):
            assert self.went_on_after() >= self._due[0], log
        # One that runs, be it of a Snakemake that is dead, may write more and may end.
        checkpoint = self._run / TRAINED / "checkpoint.safetensors"
        running = any(scripts(self._run, "train"))
        self._due = (epochs(checkpoint), log) if checkpoint.exists() and not running else None


def check(folder: Path, expected: Path) -> None:
    """See that every file that has its name is whole, and what it is to be in the end."""
    for name in files(folder):
        path = folder / name
        if not path.name.startswith("."):
            try:
                check_file(path, expected / name)
            except (FileNotFoundError, UserError):
                # Of a job that began meanwhile: Snakemake removes its outputs first.
                assert not path.exists()


def check_file(path: Path, expected: Path) -> None:
    if path.name == "checkpoint.safetensors":
        assert epochs(path) >= 1
    elif re.fullmatch(r"attack-\d+-\d+\.h5", path.name):
        part = slice(*map(int, path.stem.split("-")[1:]))
        whole = expected.with_name("attack.h5")
        with open_hdf5(path, "attack") as shard, open_hdf5(whole, "attack") as cell:
            assert set(shard) == set(cell)
            assert all((shard[key][:] == cell[key][part]).all() for key in shard)
    elif path.name == "report.html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    elif path.name == "costs.csv":
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        assert all(row["seconds"] for row in rows)
    elif path.name == "manifest.json":
        assert json.loads(path.read_text(encoding="utf-8"))["stages"]
    else:
        assert untimed(path) == untimed(expected), path


def kill_again_and_again(
    run: Victim, training: Training, expected: Path, seconds: float, draw: random.Random
) -> None:
    """Let it run for a while, kill something, look at what is there, go on.

    Args:
        run: what is killed.
        training: of the model of the run.
        expected: the folder of an undisturbed run.
        seconds: how long that took: the measure of time on this machine.
        draw: for the moments and for what is killed.
    """
    kills = 0
    while kills < KILLS:
        process = run.process or run.start()
        comes_to(lambda: any(scripts(run.folder, r"\w+")), process)
        pause = draw.uniform(0, seconds / 12)
        what = draw.choice(["job", "snakemake", "everything"])
        if ended(process, pause):
            print(f"{kills} kills: ended with {process.returncode}", flush=True)
            assert process.returncode != 0, "it came to its end before it was killed often enough"
            run.process = None
            continue
        kills += run.kill(what, draw)
        print(f"{kills} kills: {what} after {pause:.1f} s", flush=True)
        check(run.folder, expected)
        training.look()


def go_on_to_the_end(run: Victim, expected: Path) -> None:
    """Leave it alone: if not the Snakemake of the last kill, the next one ends well."""
    process = run.process or run.start()
    assert ended(process, PATIENCE), "it does not end"
    if process.returncode != 0:
        process = run.start()
        assert ended(process, PATIENCE), "it does not end"
    assert process.returncode == 0
    check(run.folder, expected)
    # Files that were being written, and shards that were merged, may be left; nothing reads them.
    left = re.compile(r"\.\d+\..+|attack-\d+-\d+\.h5")
    there = {name for name in files(run.folder) if not left.fullmatch(Path(name).name)}
    assert there == files(expected)
    for table in expected.glob("results/tiny/tables/*"):
        made = run.folder / table.relative_to(expected)
        assert made.read_bytes() == table.read_bytes(), made


def test_from_nothing(undisturbed, tmp_path):
    expected, seconds = undisturbed
    with victim(tmp_path / "run") as run:
        training = Training(run.folder)
        # Once for certain in the middle of the training.
        process = run.start()
        checkpoint = run.folder / TRAINED / "checkpoint.safetensors"
        assert comes_to(checkpoint.exists, process)
        run.kill("everything", random.Random(0))
        reached = epochs(checkpoint)
        assert comes_to(lambda: training.went_on_after() >= reached, run.start())
        kill_again_and_again(run, training, expected, seconds, random.Random(1))
        go_on_to_the_end(run, expected)


def test_after_the_training(undisturbed, tmp_path):
    """The stages that ten kills from nothing do not reach."""
    expected, seconds = undisturbed
    folder = shutil.copytree(expected, tmp_path / "run")
    kept = {"data.h5", "model.safetensors", "model.json", "history.csv", "verified.json"}
    for name in files(folder):
        if Path(name).name not in kept:
            (folder / name).unlink()
    with victim(folder) as run:
        training = Training(folder)
        kill_again_and_again(run, training, expected, seconds, random.Random(2))
        go_on_to_the_end(run, expected)
