"""Jobs that are forks of a server make the same files, and end when their run is stopped."""

import os
import signal
import sys
import time

import psutil
import pytest

from harness import OON, finish, numbers, plan, scripts, snakemake, start, tiny, untimed

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere scripts run in a new Python"
)
LONG = tiny(models__OON__training={"epochs": 200})
COLD = tiny(compute__warm_start=False)
MODEL = f"{OON}/model.safetensors"
IN_NEW_PYTHON = "started in a new Python"


def said(folder):
    return [log.read_text() for log in folder.glob("results/tiny/logs/**/*.log")]


def test_files_are_the_same_without(finished, fresh):
    cell = f"{OON}/tau-1/bim/linf/eps-0.3/attack.h5"
    snakemake(fresh, cell, config=COLD, as_a_user=True)
    assert not any(IN_NEW_PYTHON in log for log in said(finished))
    made = numbers(fresh)
    assert {MODEL, cell} <= made <= numbers(finished)
    for name in made:
        assert untimed(fresh / name) == untimed(finished / name), name


def test_the_key_is_no_reason_to_run_again(finished):
    assert plan(finished, config=COLD).jobs == {}


def forks(folder):
    """The processes that have a folder as theirs, but for Snakemake and what it started."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(folder) and "server.py" in " ".join(process.info["cmdline"]):
            found.append(process)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_stopped(fresh, number):
    """By Ctrl-C, which goes to all processes of a terminal, or by the end of Snakemake alone."""
    fresh.mkdir()
    process = start(fresh, MODEL, "results/tiny/digits/RES/seed-0/model.safetensors", config=LONG)
    while not ((fresh / OON / "checkpoint.safetensors").exists() and forks(fresh)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    left = [*scripts(fresh, "train"), *forks(fresh)]
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    assert finish(process).returncode != 0
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive
    assert not [*scripts(fresh, r"\w+"), *forks(fresh)]
    assert not (fresh / MODEL).exists()
