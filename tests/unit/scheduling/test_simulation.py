"""Simulated runs: what waits for what, and for which resource."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.scheduling.simulation import Task, wall

ONE = {"cores": 1}
TRAIN, ATTACK, REPORT = (
    Task("train", 5, ONE),
    [Task(f"attack {n}", 3, ONE, ["train"]) for n in range(3)],
    Task("report", 2, ONE, [f"attack {n}" for n in range(3)]),
)


@pytest.mark.parametrize(("cores", "seconds"), [(1, 5 + 9 + 2), (2, 5 + 6 + 2), (3, 5 + 3 + 2)])
def test_training_comes_first_and_the_report_last(cores, seconds):
    # Whatever the order in which they are given.
    assert wall([REPORT, *ATTACK, TRAIN], {"cores": cores}) == seconds


def test_no_jobs_take_no_time():
    assert wall([], {"cores": 2}) == 0


def test_needs_that_have_ended_are_not_waited_for():
    assert wall([REPORT], {"cores": 1}) == 2


def test_threads_are_cores_and_never_more_than_there_are():
    wide = [Task(n, 1, {"cores": 3}) for n in range(4)]
    assert wall(wide, {"cores": 6}) == 2
    assert wall(wide, {"cores": 5}) == 4
    assert wall(wide, {"cores": 2}) == 4


def test_another_limited_resource_counts_too():
    tasks = [Task(n, 1, {"cores": 1, "gpu": 1}) for n in range(4)]
    assert wall(tasks, {"cores": 4}) == 1
    assert wall(tasks, {"cores": 4, "gpu": 1}) == 4


def test_the_largest_priority_starts_first():
    tasks = [Task("a", 4, ONE), Task("b", 4, ONE), Task("long", 8, ONE, priority=1)]
    assert wall(tasks, {"cores": 2}) == 8
    assert wall([*tasks[:2], Task("long", 8, ONE)], {"cores": 2}) == 12


def test_a_narrow_task_passes_a_wide_one_that_does_not_fit():
    tasks = [Task("a", 2, ONE), Task("wide", 1, {"cores": 2}), Task("b", 2, ONE)]
    assert wall(tasks, {"cores": 2}) == 3


def test_what_waits_for_itself_never_starts():
    stuck = Task("attack 0", 99, ONE, ["attack 0"])
    assert wall([TRAIN, stuck, *ATTACK[1:], REPORT], {"cores": 2}) == 8


@st.composite
def plans(draw):
    """Tasks of one core each, which need some of those before them."""
    seconds = draw(st.lists(st.integers(1, 20), min_size=1, max_size=12))
    return [
        Task(n, s, ONE, draw(st.sets(st.integers(0, n - 1), max_size=3)) if n else ())
        for n, s in enumerate(seconds)
    ]


@given(plans(), st.integers(1, 4))
def test_no_schedule_is_shorter_than_its_longest_chain_nor_longer_than_grahams_bound(tasks, cores):
    chain: dict[int, float] = {}
    for task in tasks:
        chain[task.name] = task.seconds + max((chain[need] for need in task.needs), default=0)
    longest, all_of_them = max(chain.values()), sum(task.seconds for task in tasks)
    found = wall(tasks, {"cores": cores})
    assert max(longest, all_of_them / cores) <= found
    assert found <= all_of_them / cores + longest * (1 - 1 / cores) + 1e-9
