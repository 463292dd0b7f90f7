"""The speed of a machine: measured once, and never a reason for a run to fail."""

import json
import subprocess

import pytest

from node_robustness.scheduling import speed
from node_robustness.scheduling.speed import Speed


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def says(monkeypatch, text=None, failure=None):
    """What the process that measures prints; how often it was started."""
    started = []

    def run(*arguments, **options):
        started.append(arguments)
        if failure is not None:
            raise failure
        return subprocess.CompletedProcess(arguments, 0, stdout=text)

    monkeypatch.setattr(speed.subprocess, "run", run)
    return started


def test_it_is_measured_in_a_process_and_kept(cache, monkeypatch):
    first = speed.of_this_machine()
    assert 0.01 < first.arithmetic < 100
    assert 0.01 < first.calls < 100
    started = says(monkeypatch, failure=OSError())
    assert speed.of_this_machine() == first
    assert not started
    (file,) = (cache / "node-robustness").iterdir()
    assert file.name.startswith("speed-of-")


def test_what_was_measured_is_taken(cache, monkeypatch):
    started = says(monkeypatch, '{"arithmetic": 2.5, "calls": 0.5}')
    assert speed.of_this_machine() == speed.of_this_machine() == Speed(2.5, 0.5)
    assert len(started) == 1


@pytest.mark.parametrize(
    "failure",
    [
        OSError("no process"),
        subprocess.TimeoutExpired("python", 3),
        subprocess.CalledProcessError(1, ""),
    ],
)
def test_where_it_cannot_be_measured_the_rates_count_as_they_are(cache, monkeypatch, failure):
    says(monkeypatch, failure=failure)
    assert speed.of_this_machine() == Speed()


@pytest.mark.parametrize(
    "text", ["", "[]", "nan", '{"arithmetic": 0, "calls": 1}', '{"a": 1}', "7"]
)
def test_what_is_no_speed_is_not_taken(cache, monkeypatch, text):
    says(monkeypatch, text)
    assert speed.of_this_machine() == Speed()
    assert not any(cache.rglob("*.json"))
    says(monkeypatch, json.dumps({"arithmetic": 3.0, "calls": 1.0}))
    file = speed._file()
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert speed.of_this_machine() == Speed(3, 1)


def test_a_cache_that_cannot_be_written_is_done_without(cache, monkeypatch):
    (cache / "node-robustness").write_text("a file where a folder should be")
    says(monkeypatch, '{"arithmetic": 2.0, "calls": 2.0}')
    assert speed.of_this_machine() == Speed(2, 2)
