import numpy as np
import pytest

from node_robustness.statistics import proportions
from node_robustness.statistics.intervals import auc_with_interval, median_with_interval
from node_robustness.tables import trajectory_summary
from node_robustness.tables.frame import CELL
from node_robustness.tables.trajectories import image_table
from samples import cell, write_trajectory

N = 8


def summary(folder, success, settings=None, **changes):
    path = write_trajectory(folder, settings or cell(), success, **changes)
    return trajectory_summary.summary_table(image_table([path])).set_index("group")


def test_medians_with_the_intervals_of_each_group(tmp_path):
    factors = np.arange(2.0, 2 + N)
    distance = np.stack([np.ones(N), np.ones(N), factors], axis=1)
    changes = {"attack__distance__l2": distance, "times": [0, 0.5, 1]}
    success = [True] * 7 + [False]
    table = summary(tmp_path, success, **changes)
    won = table.loc["success"]
    assert won.n == 7
    found = (won.amplification, won.amplification_low, won.amplification_high)
    assert found == tuple(median_with_interval(factors[:7]))
    assert table.loc["failed"].amplification == factors[7]
    assert np.isnan(table.loc["failed"].amplification_low)
    # Image by image, not of the medians: all grow by exp(0.5) under noise.
    assert won.over_noise == pytest.approx(np.median(factors[:7]) / np.exp(0.5), rel=1e-6)
    assert np.isnan(table.loc["noise"].over_noise)


def test_flips_are_counted_and_timed(tmp_path):
    flips = [0.25, 0.5, 0.75, np.nan]
    table = summary(tmp_path, [True] * 4, attack__flip_time__head=flips)
    won, noise = table.loc["success"], table.loc["noise"]
    assert (won.flipped, won.flipped_rate, won.flip_head) == (3, 0.75, 0.5)
    assert (won.flipped_low, won.flipped_high) == proportions.interval(3, 4)
    assert (noise.flipped, noise.flipped_rate) == (0, 0)
    assert np.isnan(noise.flip_head)


def test_the_detectors_suspect_more_evaluations_and_a_shorter_first_step(tmp_path):
    changes = {"clean__nfe": [8, 14, 8, 14], "attack__nfe": [14, 20, 14, 8]}
    table = summary(tmp_path, [True, True, True, False], **changes)
    won = table.loc["success"]
    found = (won.nfe_auc, won.nfe_auc_low, won.nfe_auc_high)
    assert found == tuple(auc_with_interval([8, 14, 8, 14], [14, 20, 14]))
    # The first steps of adversarial examples are half as long as those of clean images.
    assert (won.first_step_auc, table.loc["noise"].first_step_auc) == (1, 0.5)


def test_a_model_without_an_ode_has_no_detector(tmp_path):
    table = summary(tmp_path, [True, False], cell(model="RES", tolerance=None))
    assert table.filter(like="auc").isna().all(axis=None)
    assert table.index.tolist() == ["success", "failed", "noise"]


def test_roc_curves_go_from_end_to_end(tmp_path):
    path = write_trajectory(tmp_path, cell(), [True] * 3 + [False])
    table = trajectory_summary.roc_table(image_table([path]))
    assert set(table.score) == {"nfe", "first_step"}
    for _, curve in table.groupby(["group", "score"]):
        rates = curve[["false_positive_rate", "true_positive_rate"]]
        assert rates.iloc[0].tolist() == [0, 0]
        assert rates.iloc[-1].tolist() == [1, 1]


def test_nothing_followed():
    images = image_table([])
    assert trajectory_summary.summary_table(images).empty
    assert trajectory_summary.roc_table(images).empty


def test_every_row_names_its_cell(tmp_path):
    path = write_trajectory(tmp_path, cell(), [True])
    row = trajectory_summary.summary_table(image_table([path])).iloc[0]
    assert row[list(CELL)].tolist() == list(cell().values())[: len(CELL)]
