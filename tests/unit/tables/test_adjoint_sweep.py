import numpy as np
import pytest

from node_robustness.statistics import paired, proportions
from node_robustness.tables.adjoint_sweep import sweep_table
from samples import write_sweep


def test_every_adjoint_is_compared_with_the_direct_gradient(tmp_path):
    success = [[True, False, False], [True, True, False], [False, True, False], [False] * 3]
    correct = np.array([True, True, True, False])
    cosine = np.array([[1, 0.5, np.nan], [1, 0.7, np.nan], [1, np.nan, np.nan], [1, 0.9, np.nan]])
    changes = {"correct": correct, "cosine": cosine}
    table = sweep_table([write_sweep(tmp_path, success, changes=changes)])
    assert set(table.level) == {"this network"}
    assert set(table.attack) == {"bim_adjoint"}
    tight, loose, direct = (
        table[table.gradient == "adjoint"].iloc[0],
        table[table.gradient == "adjoint"].iloc[1],
        table[table.gradient == "direct"].iloc[0],
    )
    assert (tight.backward_tolerance, loose.backward_tolerance) == (1e-5, 10)
    assert np.isnan(direct.backward_tolerance)
    assert (direct.n, direct.correct, direct.successes, direct.robust_accuracy) == (4, 3, 2, 0.25)
    assert (direct.robust_accuracy_low, direct.robust_accuracy_high) == proportions.interval(1, 4)
    assert np.isnan(direct.difference)
    # One image is robust under the tight adjoint alone, one under the direct gradient alone.
    assert (tight.robust_accuracy, tight.difference) == (0.25, 0)
    assert (tight.difference_low, tight.difference_high) == paired.interval(1, 1, 4)
    assert tight.cosine_median == pytest.approx(0.7)
    assert (loose.robust_accuracy, loose.difference) == (0.75, 0.5)
    assert (loose.difference_low, loose.difference_high) == paired.interval(2, 0, 4)
    assert np.isnan(loose.cosine_median)


def test_nothing_swept_is_an_empty_table():
    assert sweep_table([]).empty
