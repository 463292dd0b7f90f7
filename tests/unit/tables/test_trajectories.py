import h5py
import numpy as np
import pandas as pd
import pytest

from node_robustness.errors import UserError
from node_robustness.tables import frame, shares, trajectories
from samples import cell, solved, write_probe, write_trajectory

TIMES = [0.0, 1.0]


def bands(path, group):
    table = trajectories.trajectory_table([path])
    return table[table.group == group].reset_index()


def test_bands_are_over_the_images_of_each_group(tmp_path):
    curves = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0], [4.0, 10.0], [50.0, 60.0]])
    success = [True] * 5 + [False]
    changes = {"attack__distance__l2": curves, "attack__distance__cosine": 1 - curves / 100}
    path = write_trajectory(tmp_path, cell(), success, TIMES, **changes)
    won = bands(path, "success")
    assert won.t.tolist() == TIMES
    assert won.n.tolist() == [5, 5]
    assert won.l2_mean.tolist() == [2, 4]
    assert won.l2_median.tolist() == [2, 3]
    assert won.l2_q25.tolist() == [1, 2]
    assert won.l2_q75.tolist() == [3, 4]
    np.testing.assert_allclose(won.l2_q05, [0.2, 1.2])
    np.testing.assert_allclose(won.l2_q95, [3.8, 8.8])
    np.testing.assert_allclose(won.cosine_mean, [0.98, 0.96])
    assert bands(path, "failed").l2_mean.tolist() == [50, 60]
    assert bands(path, "noise").n.tolist() == [6, 6]


def test_clean_images_have_margins_and_steps_alone(tmp_path):
    changes = {"clean__margin__head": [[1.0, 5.0], [3.0, 7.0]]}
    path = write_trajectory(tmp_path, cell(), [True, False], TIMES, **changes)
    clean = bands(path, "clean")
    assert clean.margin_head_mean.tolist() == [2, 6]
    assert clean.step_median.notna().all()
    assert clean.filter(regex="l2|cosine|rate|flipped").isna().all(axis=None)


def test_what_is_not_a_number_is_left_out(tmp_path):
    rate = [[np.nan, 1.0], [np.nan, 3.0], [np.nan, np.inf]]
    jacobian = [[np.nan, 0.5], [np.nan, np.nan], [np.nan, 0.0]]
    changes = {"attack__growth__rate": rate, "attack__growth__jacobian": jacobian}
    won = bands(write_trajectory(tmp_path, cell(), [True] * 3, TIMES, **changes), "success")
    np.testing.assert_array_equal(won.rate_mean, [np.nan, 2])
    np.testing.assert_array_equal(won.jacobian_mean, [np.nan, 0.25])
    # The rest is that of each image, not of the means.
    np.testing.assert_array_equal(won.nonlinear_mean, [np.nan, 0.5])


def test_what_was_measured_of_some_images_is_told_with_their_number(tmp_path):
    nan = np.nan
    changes = {
        "attack__growth__jacobian": [[1.0, 1.0], [nan, nan], [nan, nan]],
        "attack__distance__l2": [[2.0, 4.0], [1.0, 1.0], [0.0, 1.0]],
        # A perturbation that is nothing has no ratio.
        "attack__tight__l2": [[3.0, 4.0], [nan, nan], [0.0, 3.0]],
    }
    won = bands(write_trajectory(tmp_path, cell(), [True] * 3, TIMES, **changes), "success")
    assert won.n.tolist() == [3, 3]
    assert won.n_split.tolist() == [1, 1]
    assert won.tight_l2_median.tolist() == [1.5, 2]


def test_a_reader_that_there_is_not_has_seen_no_decision_leave(tmp_path):
    changes = {f"{run}__margin__probe": np.full((2, 2), np.nan) for run in ("attack", "noise")}
    changes["attack__flip_time__probe"] = [np.nan, np.nan]
    won = bands(write_trajectory(tmp_path, cell(), [True] * 2, TIMES, **changes), "success")
    assert won.flipped_probe.isna().all()
    assert won.flipped_head.tolist() == [0, 1]


def test_probes_are_told_at_every_time(tmp_path):
    paths = [write_probe(tmp_path, solved(tolerance=tau)) for tau in (10.0, 0.1)]
    table = trajectories.probe_table(paths)
    assert table.tolerance.tolist() == [0.1] * 5 + [10] * 5
    assert table.head_accuracy[:5].tolist() == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert (table.accuracy == 0.9).all()


def test_decisions_have_left_from_their_flip_time_on(tmp_path):
    times = np.linspace(0, 1, 51)
    # In single precision 0.1 is more than in double.
    flips = np.array([0.1, 0.5, np.nan, 1.0], np.float32)
    changes = {"attack__flip_time__head": flips}
    path = write_trajectory(tmp_path, cell(), [True, True, False, True], times, **changes)
    shares = bands(path, "success").set_index("t").flipped_head
    expected = {0.08: 0, 0.1: 1 / 3, 0.48: 1 / 3, 0.5: 2 / 3, 0.98: 2 / 3, 1.0: 1}
    np.testing.assert_allclose(shares.loc[list(expected)], list(expected.values()))
    assert bands(path, "failed").flipped_head.tolist() == [0] * 51


def test_steps_cover_the_times_up_to_the_end_of_the_solve(tmp_path):
    nodes = [0, 0.2, 0.75, 1.25, 0, 0.3, 0.6]
    changes = {"attack__nodes__t": nodes, "attack__nodes__offsets": [0, 4, 7]}
    path = write_trajectory(tmp_path, cell(), [True, True], **changes)
    won = bands(path, "success")
    steps = np.array([[0.2, 0.55, 0.55, 0.55, 0.5], [0.3, 0.3, 0.3, np.nan, np.nan]])
    np.testing.assert_allclose(won.step_median, np.nanmedian(steps, axis=0))
    # Ends at .2 | .3 | .6, .75 | 1.25: the last ones lie at or beyond the last time.
    np.testing.assert_allclose(won.nodes, [0, 0.5, 0.5, 1, 0.5])


def test_a_residual_body_is_followed_without_steps(tmp_path):
    path = write_trajectory(tmp_path, cell(model="RES", tolerance=None), [True, False])
    won = bands(path, "success")
    assert won.l2_median.notna().all()
    assert won[["step_median", "nodes", "jacobian_median"]].isna().all(axis=None)
    images = trajectories.image_table([path])
    assert np.isnan(images.tolerance).all()
    assert images.filter(regex="nfe|first_step").isna().all(axis=None)


def test_an_empty_cell_keeps_its_times(tmp_path):
    path = write_trajectory(tmp_path, cell(), [])
    table = trajectories.trajectory_table([path])
    assert table.groupby("group").t.apply(list).tolist() == [[0, 0.25, 0.5, 0.75, 1]] * 4
    assert (table.n == 0).all()
    known = [*frame.CELL, "group", "t", "n", "n_split"]
    assert table.drop(columns=known).isna().all(axis=None)
    assert trajectories.image_table([path]).empty


def test_one_row_an_image(tmp_path):
    nan = np.nan
    changes = {
        "attack__distance__l2": [[2.0, 3.0, 8.0], [0.0, 1.0, 1.0]],
        "attack__growth__rate": [[1.0, 5.0, 2.0], [nan, nan, nan]],
        "attack__flip_time__head": [0.5, nan],
        "noise__distance__l2": [[2.0, 2.0, 3.0], [1.0, 1.0, 1.0]],
        "attack__nodes__t": [0, 0.125, 1, 0],
        "attack__nodes__offsets": [0, 3, 4],
        "index": [7, 3],
    }
    path = write_trajectory(tmp_path, cell(), [True, False], [0, 0.5, 1], **changes)
    won, failed = trajectories.image_table([path]).itertuples()
    assert (won.group, failed.group) == ("success", "failed")
    assert (won.amplification_attack, won.amplification_noise) == (4, 1.5)
    assert (won.peak_growth_attack, won.peak_t_attack) == (5, 0.5)
    assert (won.flip_head_attack, won.first_step_attack) == (0.5, 0.125)
    # No perturbation at t = 0 has no factor, no rate no peak, and no step no size.
    unknown = ("amplification_attack", "peak_growth_attack", "peak_t_attack", "first_step_attack")
    assert np.isnan([getattr(failed, name) for name in unknown]).all()
    assert np.isnan(failed.flip_head_attack)


OF_TRAJECTORIES = [
    trajectories.trajectory_table,
    trajectories.image_table,
    shares.share_table,
    shares.patch_table,
]


@pytest.mark.parametrize("make", OF_TRAJECTORIES)
def test_rows_do_not_depend_on_the_order_of_the_paths(make, tmp_path):
    paths = [
        write_trajectory(tmp_path, cell(model=model, tolerance=tau), [True, False])
        for model, tau in (("RES", None), ("OON", 10.0), ("OON", 0.001), ("MIX", 1.0))
    ]
    table = make(paths)
    pd.testing.assert_frame_equal(table, make(reversed(paths)))
    assert list(dict.fromkeys(table.model)) == ["MIX", "OON", "RES"]
    assert table.tolerance.dropna().drop_duplicates().tolist() == [1, 0.001, 10]


@pytest.mark.parametrize("make", [*OF_TRAJECTORIES, trajectories.probe_table])
def test_of_no_files_they_are_empty_and_typed(make, tmp_path):
    table = make([])
    frame.write_table(table, tmp_path / "t.csv", tmp_path / "t.parquet", {})
    assert table.empty
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), table)


@pytest.mark.parametrize("make", OF_TRAJECTORIES)
def test_another_schema_version_is_refused(make, tmp_path):
    path = write_trajectory(tmp_path, cell(), [True])
    with h5py.File(path, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(UserError, match=f"{path.name}.*schema version 99"):
        make([path])
