import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from node_robustness.errors import UserError
from node_robustness.tables import evaluation, frame
from samples import cell, solved, write_attack, write_clean

CELL = ["experiment", "dataset", "model", "seed", "tolerance"]


def test_clean_table(tmp_path):
    path = write_clean(tmp_path, solved(), [0, 1, 2, 0], [8, 8, 14, 20])
    table = evaluation.clean_table([path])
    row = table.iloc[0]
    assert list(table.columns[:7]) == [*CELL, "n", "correct"]
    assert row[CELL].tolist() == ["tiny", "toy", "OON", 0, 0.1]
    assert (row.n, row.correct, row.accuracy, row.error) == (4, 3, 0.75, 0.25)
    assert (row.accuracy_low, row.accuracy_high) == pytest.approx((0.194120, 0.993691), abs=1e-6)
    assert (row.error_low, row.error_high) == pytest.approx((0.006309, 0.805880), abs=1e-6)
    assert (row.nfe_mean, row.nfe_min, row.nfe_median, row.nfe_max) == (12.5, 8, 11, 20)
    assert row.nfe_sd == pytest.approx(math.sqrt((2 * 4.5**2 + 1.5**2 + 7.5**2) / 3))


def test_clean_table_without_an_ode_has_no_tolerance_and_no_evaluations(tmp_path):
    row = evaluation.clean_table(
        [write_clean(tmp_path, solved("RES", tolerance=None), [0, 1], None)]
    ).iloc[0]
    assert row.accuracy == 1
    assert np.isnan([row.tolerance, row.nfe_mean, row.nfe_sd, row.nfe_max]).all()


def test_rows_are_in_natural_order_whatever_the_order_of_the_paths(tmp_path):
    coordinates = [
        ("cifar10", "OON", 2, 1e-4),
        ("cifar10", "OON", 2, 10.0),
        ("cifar10", "OON", 2, None),
        ("cifar10", "OON", 10, 1.0),
        ("cifar100", "OON", 0, 1.0),
    ]
    paths = [
        write_clean(tmp_path, solved(m, s, t, dataset=d), [0, 1], None)
        for d, m, s, t in coordinates
    ]
    table = evaluation.clean_table(paths)
    assert table.dataset.tolist() == ["cifar10"] * 4 + ["cifar100"]
    assert table.seed.tolist() == [2, 2, 2, 10, 0]
    np.testing.assert_array_equal(table.tolerance[:3], [1e-4, 10, np.nan])
    pd.testing.assert_frame_equal(table, evaluation.clean_table(reversed(paths)))


def test_nfe_table_counts_images(tmp_path):
    paths = [
        write_clean(tmp_path, solved(), [0, 1, 2, 0], [8, 8, 20, 14]),
        write_clean(tmp_path, solved("RES", tolerance=None), [0], None),
    ]
    table = evaluation.nfe_table(paths)
    assert table[["nfe", "images"]].to_numpy().tolist() == [[8, 2], [14, 1], [20, 1]]
    assert table.model.tolist() == ["OON"] * 3


def test_attack_table(tmp_path):
    path = write_attack(tmp_path, cell(), [True, True, True, False], [True, False, True, False])
    row = evaluation.attack_table([path]).iloc[0]
    assert (row.attack, row.gradient, row.norm, row.epsilon) == ("bim", "direct", "linf", 0.1)
    assert (row.n, row.attacked, row.successes, row.robust) == (4, 3, 2, 1)
    assert row.success_rate == pytest.approx(2 / 3)
    assert (row.success_low, row.success_high) == pytest.approx((0.094299, 0.991596), abs=1e-6)
    assert row.robust_accuracy == 0.25
    assert (row.robust_low, row.robust_high) == pytest.approx((0.006309, 0.805880), abs=1e-6)
    # Over the first and the third image.
    assert (row.iterations_mean, row.perturbation_linf_mean, row.perturbation_l2_mean) == (
        2,
        0.5,
        1,
    )
    assert (row.nfe_clean_mean, row.nfe_adversarial_mean) == (20, 40)


def test_images_that_an_attack_skipped_are_broken_but_not_its_successes(tmp_path):
    attacked, success = [True, False, True, False], [True, False, False, False]
    path = write_attack(tmp_path, cell(), attacked, success, skipped=[False, True, False, False])
    row = evaluation.attack_table([path]).iloc[0]
    assert (row.n, row.attacked, row.skipped, row.successes, row.robust) == (4, 2, 1, 1, 1)
    assert (row.success_rate, row.robust_accuracy) == (0.5, 0.25)


def test_attack_table_without_successes_or_attacked_images(tmp_path):
    paths = [
        write_attack(tmp_path, cell(epsilon=0.1), [True, False], [False, False]),
        write_attack(tmp_path, cell(epsilon=0.2), [False, False], [False, False]),
        write_attack(tmp_path, cell(model="RES", tolerance=None), [True], [True]),
    ]
    table = evaluation.attack_table(paths)
    np.testing.assert_array_equal(table.success_rate, [0, np.nan, 1])
    np.testing.assert_array_equal(table.robust_accuracy, [0.5, 0, 0])
    np.testing.assert_array_equal(table.iterations_mean, [np.nan, np.nan, 1])
    np.testing.assert_array_equal(table.nfe_clean_mean, [np.nan] * 3)


@pytest.mark.parametrize(
    "make", [evaluation.clean_table, evaluation.nfe_table, evaluation.attack_table]
)
def test_tables_of_no_files_are_empty_and_typed(make, tmp_path):
    table = make([])
    frame.write_table(table, tmp_path / "t.csv", tmp_path / "t.parquet", {})
    assert len(table) == 0
    read = pd.read_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read, table)
    assert pd.read_csv(tmp_path / "t.csv").columns.tolist() == table.columns.tolist()


def test_a_file_of_another_kind_is_named(tmp_path):
    path = write_clean(tmp_path, solved(), [0], None)
    with pytest.raises(UserError, match=path.name):
        evaluation.attack_table([path])


def test_written_tables_read_back_and_repeat_byte_for_byte(tmp_path):
    paths = [
        write_attack(tmp_path, cell(epsilon=1 / 3, seed=seed), [True] * 3, [True, False, False])
        for seed in (0, 1)
    ]
    table = evaluation.attack_table(paths)
    for place in ("a", "b"):
        frame.write_table(
            table, tmp_path / place / "t.csv", tmp_path / place / "t.parquet", {"made by": "test"}
        )
    for name in ("t.csv", "t.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    parquet = tmp_path / "a/t.parquet"
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), table)
    metadata = pq.read_schema(parquet).metadata
    assert json.loads(metadata[b"node_robustness"]) == {"made by": "test"}
    assert ",0.3333333333," in (tmp_path / "a/t.csv").read_text()
    np.testing.assert_allclose(pd.read_csv(tmp_path / "a/t.csv").epsilon, table.epsilon)


def test_of_equally_good_epochs_the_first_is_the_one_that_was_kept(tmp_path):
    path = tmp_path / "results/e/digits/OON/seed-3/history.csv"
    path.parent.mkdir(parents=True)
    header = ",".join(["epoch", "learning_rate", "train_loss", "train_accuracy"])
    header += ",validation_loss,validation_accuracy,nfe_mean,seconds"
    rows = ["1,.1,2,.2,2,.3,20,9", "2,.1,1,.6,1,.9,24,9", "3,.1,.5,.8,1.1,.9,26,9"]
    path.write_text("\n".join([header, *rows]) + "\n")
    (row,) = evaluation.training_table([path]).to_dict("records")
    assert row == {
        "experiment": "e",
        "dataset": "digits",
        "model": "OON",
        "seed": 3,
        "epochs": 3,
        "best_epoch": 2,
        "validation_accuracy": 0.9,
        "validation_loss": 1.0,
        "train_accuracy": 0.6,
        "train_loss": 1.0,
        "nfe_mean": 24.0,
    }
