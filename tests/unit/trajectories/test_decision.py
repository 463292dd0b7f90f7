"""Margins and flip times of decisions that are written down."""

import numpy as np
import pytest
import torch

from node_robustness.trajectories.decision import flip_times, margins

pytestmark = pytest.mark.numerical

TIMES = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)


def logits(decisions):
    """Logits [T, n, K] for decisions [n, T]."""
    return torch.nn.functional.one_hot(torch.tensor(decisions), 3).float().transpose(0, 1)


def test_margins():
    values = torch.tensor([[[1.0, 3, 2], [0, -1, 5]], [[4, 1, 4.5], [1, 1, 0]]])
    found = margins(values, torch.tensor([1, 2]))
    assert found.tolist() == [[1, -3.5], [5, -1]]
    below_zero = margins(values - 10, torch.tensor([1, 2]))
    torch.testing.assert_close(below_zero, found)
    assert margins(values * torch.nan, torch.tensor([1, 2])).isnan().all()


def test_flip_times():
    clean = [[0] * 5, [0] * 5, [0] * 5, [1, 1, 0, 0, 0], [0] * 5, [0] * 5]
    moved = [
        [0, 1, 0, 1, 1],  # for good only at 0.75
        [0, 1, 1, 1, 0],  # it comes back
        [2, 1, 2, 1, 1],  # never the clean decision
        [1, 1, 1, 1, 1],  # the clean run leaves, at 0.5
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    found = flip_times(logits(moved), logits(clean), TIMES)
    np.testing.assert_array_equal(found, [0.75, np.nan, 0, 0.5, np.nan, 1])


def test_a_failed_solve_has_not_flipped():
    # The largest of three NaN is the first, which is not the clean decision.
    moved, clean = logits([[2] * 5] * 3), logits([[1] * 5] * 3)
    moved[3:, 0] = torch.nan
    clean[4, 1] = torch.nan
    found = flip_times(moved, clean, TIMES)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 0])
