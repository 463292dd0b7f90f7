"""Forks of a job's process that share out its work."""

import os
import time

import pytest

from node_robustness.errors import UserError
from node_robustness.jobs import forks


@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_item_is_worked_on_once(tmp_path, count):
    def write(name: str) -> None:
        with (tmp_path / name).open("x") as file:
            file.write(str(os.getpid()))

    names = [f"item {number}" for number in range(300)]
    forks.for_each(names, write, count)
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    workers = {int(path.read_text()) for path in tmp_path.iterdir()}
    assert (workers == {os.getpid()}) == (count == 1)
    assert len(workers) <= count


def test_who_is_free_takes_the_next(tmp_path):
    def work(seconds: float) -> None:
        time.sleep(seconds)
        (tmp_path / f"{seconds}").write_text(str(os.getpid()))

    forks.for_each([2.0, 0.001, 0.002, 0.003, 0.004], work, 2)
    other = {(tmp_path / f"0.00{number}").read_text() for number in range(1, 5)}
    assert len(other) == 1
    assert other != {(tmp_path / "2.0").read_text()}


@pytest.mark.parametrize("count", [1, 2])
def test_what_the_user_can_correct_is_said(count):
    def fail(item: int) -> None:
        raise UserError(f"file {item % 1}: damaged; remove it")

    with pytest.raises(UserError, match=r"^file 0: damaged; remove it$"):
        forks.for_each(range(4), fail, count)


def test_any_other_error_has_its_traceback_in_the_log(capfd):
    def fail(item: int) -> None:
        raise ValueError(f"no such {item}")

    with pytest.raises(ChildProcessError):
        forks.for_each([7], fail, 2)
    assert "ValueError: no such 7" in capfd.readouterr().err


def test_a_fork_that_is_killed_is_an_error():
    with pytest.raises(ChildProcessError, match="status 9"):
        forks.for_each([9], lambda signal: os.kill(os.getpid(), signal), 2)


def test_forks_end_with_their_parent(tmp_path):
    def work(number: int) -> None:
        time.sleep(0.2)
        (tmp_path / f"{number}").touch()

    parent = os.fork()
    if not parent:
        forks.for_each(range(100), work, 2)
        os._exit(0)
    time.sleep(0.3)
    os.kill(parent, 9)
    os.waitpid(parent, 0)
    time.sleep(0.5)
    before = len(list(tmp_path.iterdir()))
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == before < 10
