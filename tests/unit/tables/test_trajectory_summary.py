import numpy as np
import pytest

from node_robustness.report.dynamics import sentences
from node_robustness.statistics import proportions
from node_robustness.statistics.intervals import auc_with_interval, median_with_interval
from node_robustness.tables import trajectory_summary
from node_robustness.tables.frame import CELL
from node_robustness.tables.trajectories import image_table, probe_table, trajectory_table
from samples import cell, solved, steps_of, write_probe, write_trajectory

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


def test_repair_next_to_that_by_random_intervals(tmp_path):
    repaired = np.zeros((N, 10))
    repaired[6:] = -1
    responsible = [[0.25, 0.5]] * 4 + [[np.nan] * 2] * 4
    random = [0.5, 0.25, 0.25, np.nan] + [np.nan] * 4
    changes = {
        "causal__repaired": repaired,
        "causal__responsible": responsible,
        "causal__random_repaired": random,
    }
    won = summary(tmp_path, [True] * N, **changes).loc["success"]
    assert (won.tried, won.repaired, won.random_tried) == (6, 4, 3)
    assert (won.repaired_rate, won.random_rate) == pytest.approx((2 / 3, 1 / 3))
    assert (won.random_low, won.random_high) == pytest.approx(proportions.interval(1, 3))
    assert (won.responsible_start, won.responsible_length) == (0.25, 0.25)


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
    summary = trajectory_summary.summary_table(images)
    assert sentences(summary, trajectory_table([]), probe_table([])) == []


def said(*paths, probes=()) -> str:
    table = trajectory_summary.summary_table(image_table(paths))
    return "\n".join(sentences(table, trajectory_table(paths), probe_table(probes)))


def test_findings_say_what_the_tables_hold(tmp_path):
    text = said(write_trajectory(tmp_path, cell(), [True] * 7 + [False]))
    for part in (
        "OON on toy: from t = 0 to 1, adversarial perturbations grow by a factor of 7.4 (7.4 to "
        "7.4) and random noise of the same size by 1.6 (1.6 to 1.6) (medians at τ = 0.1, bim, "
        "ε = 0.1).",
        "clearly more than the noise in 1 of 1 setting and clearly less in none.",
        "They grow fastest at t = 0.5",
        "for good at t = 0.75 (0.75 to 0.75) as the head reads it and at t = 0.5",
        "restores the decision on 7 of 7 adversarial examples, 100.0 %",
        "lasts 0.25 (0.25 to 0.25) and starts at t = 0.5 (0.5 to 0.5) (medians)",
        "restores 0.0 % (0.0 % to 41.0 %) of the 7 for which there are others. Over all settings, "
        "random intervals restore 0.0 %, clearly fewer than the shortest interval in 1 of 1 "
        "setting; the shortest lasts 0.25 (medians).",
        "better than chance by more evaluations in 1 of 1 setting (area under the ROC curve at "
        "most 1 (0.74 to 1)",
        "what it reads earlier is not a decision of the network. No probes were fitted",
        "few accepted steps (medians: 2 at τ = 0.1)",
    ):
        assert part in text


def test_findings_say_which_solves_are_short(tmp_path):
    adaptive = write_trajectory(tmp_path, cell(), [True] * 7)
    steps = {
        key.replace("/", "__"): values
        for run in ("clean", "attack", "noise")
        for key, values in steps_of(run, [0, 0.5, 1], 7).items()
    }
    equal = write_trajectory(tmp_path, cell(model="EUL", tolerance=None), [True] * 7, **steps)
    at_tolerances = "Solves at loose tolerances have few accepted steps (medians: 2 at τ = 0.1)"
    of_equal_steps = "Solves with equal steps have few of them (2 at least)"
    for files in ([adaptive], [equal], [adaptive, equal]):
        text = said(*files)
        assert (at_tolerances in text) == (adaptive in files)
        assert (of_equal_steps in text) == (equal in files)


def test_findings_say_how_well_each_t_is_read(tmp_path):
    probes = [write_probe(tmp_path, solved(tolerance=tau)) for tau in (0.1, 1.0)]
    text = said(write_trajectory(tmp_path, cell(), [True] * 7), probes=probes)
    assert (
        "At t = 0 its accuracy on held-out validation images is 10.0 % to 10.0 %; that of linear "
        "probes fitted to states at t = 0 is 90.0 % to 90.0 %." in text
    )


def test_findings_call_no_difference_clear_that_is_none(tmp_path):
    # Noise grows as attacks do, and an attack is not felt.
    same = np.tile(np.exp([0, 0.5, 1, 1.5, 2]), (N, 1))
    changes = {"noise__distance__l2": same, "attack__distance__l2": same}
    changes |= {"attack__nfe": [18, 19] * 4, "clean__nfe": [18, 19] * 4}
    text = said(write_trajectory(tmp_path, cell(), [True] * N, **changes))
    assert "clearly more than the noise in none of 1 setting and clearly less in none." in text
    assert "by more evaluations in none of 1 setting" in text


def test_findings_name_the_cells_without_adversarials(tmp_path):
    empty = write_trajectory(tmp_path, cell(epsilon=0.01), [False, False])
    text = said(empty, write_trajectory(tmp_path, cell(), [True] * 7))
    assert (
        "No adversarial example was found in 1 of 2 followed settings, which these sentences leave "
        "out: OON at τ = 0.1, bim, ε = 0.01." in text
    )
    assert said(empty).splitlines() == [
        "No adversarial example was found in 1 of 1 followed settings, which these sentences leave "
        "out: OON at τ = 0.1, bim, ε = 0.01."
    ]


def test_every_row_names_its_cell(tmp_path):
    path = write_trajectory(tmp_path, cell(), [True])
    row = trajectory_summary.summary_table(image_table([path])).iloc[0]
    assert row[list(CELL)].tolist() == list(cell().values())[: len(CELL)]
