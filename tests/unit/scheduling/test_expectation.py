"""What jobs took corrects what similar jobs are expected to take."""

import pytest

from node_robustness.scheduling.expectation import Expectation

ATTACK = ("computing", "attack", "attack A")
OTHER_ATTACK = ("computing", "attack", "attack B")
TRAINING = ("computing", "train", "train A")


def test_without_jobs_the_rates_count():
    assert Expectation().seconds(ATTACK, 10, rated=True) == 10
    assert Expectation().seconds(ATTACK, 10, rated=False) is None


def test_a_job_that_ran_takes_as_long_again():
    expectation = Expectation()
    expectation.learn(ATTACK, expected=10, taken=40)
    assert expectation.seconds(ATTACK, 10, rated=True) == 40
    assert expectation.jobs == 1


def test_near_jobs_are_corrected_more_than_others():
    expectation = Expectation()
    expectation.learn(ATTACK, expected=10, taken=40)
    near, far = (expectation.seconds(groups, 10, rated=True) for groups in (OTHER_ATTACK, TRAINING))
    assert near is not None
    assert far is not None
    assert 10 < far < near < 40
    assert expectation.seconds(("tables", "tables of x"), 10, rated=True) == 10


def test_many_jobs_outweigh_the_rates():
    expectation = Expectation()
    for n in range(50):
        expectation.learn(("computing", "attack", f"attack {n}"), expected=1, taken=3)
    assert expectation.seconds(OTHER_ATTACK, 1, rated=True) == pytest.approx(3, rel=0.05)


def test_large_jobs_weigh_more_than_small_ones():
    expectation = Expectation()
    expectation.learn(ATTACK, expected=100, taken=200)
    expectation.learn(OTHER_ATTACK, expected=1, taken=10)
    assert expectation.seconds(("computing", "C"), 1, rated=False) == pytest.approx(210 / 101)


def test_on_an_unknown_device_the_first_job_is_all_that_is_known():
    expectation = Expectation()
    expectation.learn(ATTACK, expected=10, taken=1)
    assert expectation.seconds(TRAINING, 50, rated=False) == 5
    assert expectation.seconds(("tables", "tables of x"), 10, rated=False) is None
    assert expectation.has_seen("attack")
    assert not expectation.has_seen("train")
