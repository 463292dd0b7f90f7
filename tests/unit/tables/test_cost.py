import numpy as np

from node_robustness.statistics import proportions
from node_robustness.tables.cost import cost_table
from samples import write_cost


def test_how_much_more_work_an_attack_causes(tmp_path):
    clean, attacked = [14] * 6 + [20, 20], [14, 14, 21, 28, 28, 28, 30, 60]
    changes = {
        "nfe_noise": np.array([14] * 7 + [26], np.int32),
        "attacked_predictions": np.array([0] * 6 + [1, 1]),
        "success": np.array([False] * 7 + [True]),
    }
    (row,) = cost_table([write_cost(tmp_path, clean, attacked, changes)]).itertuples()
    assert (row.norm, row.epsilon, row.n, row.level) == ("linf", 0.1, 8, "this network")
    assert (row.nfe_clean_mean, row.nfe_clean_max) == (15.5, 20)
    assert (row.nfe_noise_mean, row.nfe_noise_max) == (15.5, 26)
    assert (row.nfe_attacked_mean, row.nfe_attacked_max) == (27.875, 60)
    # Ratios of 1, 1, 1.5, 1.5, 2, 2, 2 and 3.
    assert (row.ratio, row.ratio_max) == (1.75, 3)
    assert (row.ratio_low, row.ratio_high) == (1, 3)
    assert row.noise_ratio == 1
    assert row.increased == 0.75
    assert (row.increased_low, row.increased_high) == proportions.interval(6, 8)
    assert (row.kept, row.successes) == (0.75, 1)
    assert (row.kept_low, row.kept_high) == proportions.interval(6, 8)


def test_one_image_and_none(tmp_path):
    (row,) = cost_table([write_cost(tmp_path, [14], [20])]).itertuples()
    assert row.ratio == 20 / 14
    assert np.isnan(row.ratio_low)
    assert cost_table([]).empty
