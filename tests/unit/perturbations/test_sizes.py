import numpy as np
import pytest

from node_robustness.errors import UserError
from node_robustness.perturbations.sizes import broken_within
from samples import cell, write_attempt

INF = np.inf


def test_images_that_some_attack_broke_within_an_epsilon(tmp_path):
    paths = [
        write_attempt(tmp_path, cell("bim", norm="l2_rms", epsilon=0.1), [0.1, INF, INF, INF]),
        write_attempt(
            tmp_path, cell("bisection", norm="l2_rms", epsilon=0.3), [INF, 0.1, 0.2, INF]
        ),
    ]
    index = np.arange(4)
    assert broken_within(paths, 0.1, index).tolist() == [True, True, False, False]
    assert broken_within(paths, 0.3, index).tolist() == [True, True, True, False]
    assert not broken_within([], 0.3, index).any()


def test_images_are_not_taken_for_others(tmp_path):
    path = write_attempt(tmp_path, cell(), [0.1, INF])
    with pytest.raises(UserError, match="other images"):
        broken_within([path], 0.1, np.array([1, 0]))
