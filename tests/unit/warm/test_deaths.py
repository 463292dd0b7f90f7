"""Whoever dies, at whatever moment and however: nothing runs on, and the next run works."""

import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

# It starts a process, leaves the numbers of both, and makes a file once it may.
SCRIPT = """
import os, pathlib, subprocess, sys, time
code = "import time; time.sleep(1000)"
started = subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.DEVNULL)
pathlib.Path("runs.part").write_text(f"{os.getpid()} {started.pid}")
os.rename("runs.part", "runs")
while not os.path.exists("may end"):
    time.sleep(0.01)
pathlib.Path("made.part").write_text(os.environ.get("NODE_ROBUSTNESS_COLD", "warm"))
os.rename("made.part", "made")
started.kill()
"""
SIGNALS = [signal.SIGTERM, signal.SIGKILL]


class Victim:
    """A script that runs, and who can be killed."""

    def __init__(self, warm) -> None:
        self.warm = warm
        code = "import time; time.sleep(1000)"
        self.snakemake = subprocess.Popen([sys.executable, "-I", "-S", "-c", code])
        for name in ("runs", "may end", "made"):
            (warm.folder / name).unlink(missing_ok=True)
        self.client = warm.start(SCRIPT, snakemake=self.snakemake.pid)

    @property
    def numbers(self) -> list[int]:
        """Those of the fork and of the process that it has started, once they are known."""
        runs = self.warm.folder / "runs"
        return [int(word) for word in runs.read_text().split()] if runs.exists() else []

    def kill(self, who: str, number: int) -> bool:
        """Send a signal; whether there was somebody to take it."""
        if who == "client":
            found = [self.client.pid]
        elif who == "snakemake":
            found = [self.snakemake.pid]
        elif who == "server":
            found = [server.pid for server in self.warm.servers()]
        else:
            found = self.numbers[:1]
        with suppress(psutil.NoSuchProcess):
            for pid in found:
                psutil.Process(pid).send_signal(number)
            return bool(found)
        return False

    def finish(self) -> subprocess.CompletedProcess:
        """Let the script end; wait until the client has and nothing is left of the script."""
        (self.warm.folder / "may end").touch()
        ended = self.warm.finish(self.client)
        self.warm.wait_until(lambda: not any(map(self.warm.runs, self.numbers)))
        self.snakemake.kill()
        self.snakemake.wait()
        return ended

    @property
    def made(self) -> str | None:
        """What the script has made."""
        path: Path = self.warm.folder / "made"
        return path.read_text() if path.exists() else None


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("who", ["client", "fork", "server", "snakemake"])
def test_of_one_of_them_while_the_script_runs(warm, who, number):
    victim = Victim(warm)
    warm.wait_until(lambda: victim.numbers)
    fork = victim.numbers[0]
    assert fork != victim.client.pid
    assert victim.kill(who, number)
    warm.wait_until(lambda: not warm.runs(fork))
    ended = victim.finish()
    if who == "server":
        # The client does the work itself.
        assert (ended.returncode, ended.stderr) == (0, "")
        assert victim.made == "the server ended before the script did"
    else:
        assert ended.returncode == (1 if who == "snakemake" else -number)
        assert victim.made is None
    victim = Victim(warm)
    assert victim.finish().returncode == 0
    assert victim.made == "warm"
    assert len(warm.servers()) == 1


def test_of_the_server_when_the_client_can_do_nothing(warm):
    victim = Victim(warm)
    warm.wait_until(lambda: victim.numbers)
    victim.kill("client", signal.SIGSTOP)
    assert victim.kill("server", signal.SIGKILL)
    warm.wait_until(lambda: not warm.runs(victim.numbers[0]))
    assert victim.made is None
    victim.kill("client", signal.SIGCONT)
    assert victim.finish().returncode == 0
    assert victim.made == "the server ended before the script did"


def at_random(warm, draw: random.Random, kills: int) -> None:
    """Kill somebody at some moment before the script may end, again and again."""
    while kills:
        victim = Victim(warm)
        who = draw.choice(["client", "fork", "server", "snakemake"])
        number = draw.choice(SIGNALS)
        time.sleep(draw.uniform(0, 0.6))
        kills -= victim.kill(who, number)
        ended = victim.finish()
        print(kills, who, number.name, ended.returncode, ended.stderr, victim.made)
        # Where a server dies before it answers, and where the client dies early, nobody waits.
        assert victim.made is not None or who != "server"
        assert (ended.returncode == 0) <= (victim.made is not None)
        assert not ended.stderr
    victim = Victim(warm)
    assert victim.finish().returncode == 0
    assert victim.made == "warm"
    assert len(warm.servers()) == 1


def test_at_random_moments(warm):
    at_random(warm, random.Random(0), 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_at_more_random_moments(warm, seed):
    at_random(warm, random.Random(seed), 5)


def test_who_was_stopped_goes_on(warm):
    victim = Victim(warm)
    warm.wait_until(lambda: victim.numbers)
    fork = psutil.Process(victim.numbers[0])
    victim.client.send_signal(signal.SIGTSTP)
    for process in (fork, psutil.Process(victim.client.pid)):
        warm.wait_until(lambda process=process: process.status() == psutil.STATUS_STOPPED)
    victim.client.send_signal(signal.SIGCONT)
    assert victim.finish().returncode == 0
    assert victim.made == "warm"


def test_keys_of_a_terminal_end_a_script(warm):
    """As Ctrl-C does, which goes to Snakemake and to the client alike."""
    victim = Victim(warm)
    warm.wait_until(lambda: victim.numbers)
    victim.kill("client", signal.SIGINT)
    warm.wait_until(lambda: not warm.runs(victim.numbers[0]))
    ended = victim.finish()
    assert ended.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in ended.stderr
    assert victim.made is None


def test_a_server_ends_when_it_has_nothing_to_do(warm, monkeypatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # its folder of bytecode stays
    warm.edit("server.py", "_IDLE = 60.0", "_IDLE = 0.5")
    victim = Victim(warm)
    assert victim.finish().returncode == 0
    assert victim.made == "warm"
    warm.wait_until(lambda: not warm.servers())
    assert [path.name for path in warm.sockets.iterdir()] == ["lock"]
