import numpy as np
import pytest

from node_robustness.statistics import proportions
from node_robustness.tables import audit
from samples import cell, write_audit, write_detection, write_randomised, write_reevaluated


def test_audit_pairs_the_sources(tmp_path):
    cosine = np.full((4, 3, 3), 0.5)
    cosine[:, 0, 1] = [0.1, 0.2, 0.3, np.nan]
    derivative = np.ones((4, 3, 2))
    derivative[:, 1] = 3.0
    changes = {
        "index": np.arange(4),
        "cosine": cosine,
        "sign_agreement": np.full((4, 3, 3), 0.75),
        "derivative": derivative,
        "finite_difference": np.ones((4, 2)),
        "finite_difference_frozen": np.zeros((4, 2)),
    }
    table = audit.audit_table([write_audit(tmp_path, 4, changes=changes)])
    table = table.set_index(["source", "reference"])
    assert table.index.tolist()[:3] == [
        ("adjoint", "direct"),
        ("tight", "direct"),
        ("tight", "adjoint"),
    ]
    pair = table.loc[("adjoint", "direct")]
    assert pair.n == 3
    assert (pair.cosine_mean, pair.cosine_median) == pytest.approx((0.2, 0.2))
    assert pair.sign_agreement_mean == 0.75
    assert np.isnan(pair.error_mean)
    assert table.loc[("direct", "finite differences")].error_median == 0
    assert table.loc[("adjoint", "finite differences")].error_median == 2
    # Nothing can be said relative to differences that are zero.
    assert table.loc[("direct", "finite differences, steps held")].n == 0


def test_losses_are_the_highest_so_far_of_all_images(tmp_path):
    losses = np.array(
        [
            [0.1, 0.3, 0.2, 0.4],  # never broken
            [0.2, 1.0, np.nan, np.nan],  # broken by the second iterate
            [0.3, 0.3, 0.3, 2.0],  # broken by the last one
            [np.nan] * 4,  # misclassified as it is
        ]
    )
    changes = {
        "correct": np.arange(4) < 3,
        "linf__apgd__loss": losses,
        "success__apgd_linf": np.array([False, True, True, False]),
    }
    table = audit.loss_table([write_audit(tmp_path, 4, changes=changes)])
    own = table[table.attack == "apgd"]
    assert own.iteration.tolist() == [0, 1, 2, 3]
    assert own.n.tolist() == [3] * 4
    assert own.broken.tolist() == [0, 1, 1, 2]
    assert own.loss_median.tolist() == pytest.approx([0.2, 0.3, 0.3, 1.0])
    assert own.loss_q25.tolist() == pytest.approx([0.15, 0.3, 0.3, 0.7])
    assert set(table.attack) == {"paper", "apgd"}
    assert set(table.epsilon) == {0.1}


def test_without_a_correct_image_there_is_no_loss(tmp_path):
    changes = {"correct": np.zeros(4, bool)}
    assert audit.loss_table([write_audit(tmp_path, 4, changes=changes)]).empty


def test_held_steps(tmp_path):
    adversarial = np.arange(20) < 10
    changes = {
        "linf__held__adversarial": adversarial,
        "linf__held__survives": np.arange(20) < 9,
        "linf__held__crosses": np.arange(20) < 7,
        "linf__held__jump": np.where(np.arange(20) < 7, 0.5, np.nan),
        "linf__held__change": np.where(adversarial, -2.0, np.nan),
    }
    (row,) = audit.held_table([write_audit(tmp_path, 20, changes=changes)]).itertuples()
    assert (row.norm, row.epsilon, row.n, row.survive, row.cross) == ("linf", 0.1, 10, 9, 7)
    assert (row.survive_rate, row.cross_rate) == (0.9, 0.7)
    assert (row.survive_rate_low, row.survive_rate_high) == proportions.interval(9, 10)
    assert (row.jump, row.jump_share) == (0.5, 0.25)
    where = {"model": "RES", "tolerance": None}
    assert audit.held_table([write_audit(tmp_path, **where)]).empty
    none = {"linf__held__adversarial": np.zeros(20, bool)}
    for name in ("survives", "crosses"):
        none[f"linf__held__{name}"] = np.zeros(20, bool)
    none["linf__held__jump"] = np.full(20, np.nan)
    (row,) = audit.held_table([write_audit(tmp_path, 20, changes=none)]).itertuples()
    assert row.n == 0
    assert np.isnan([row.survive_rate, row.survive_rate_low, row.jump]).all()


def test_a_gradient_of_a_flat_function_is_infinitely_wrong():
    arrays = {
        "sources": np.array(["direct"]),
        "derivative": np.array([[[1.0, 2.0]], [[0.0, 0.0]]]),
        "finite_difference": np.zeros((2, 2)),
    }
    errors = audit.derivative_errors(arrays, "direct", "finite_difference")
    assert np.isinf(errors[0])
    assert np.isnan(errors[1])


def test_matrix_evaluates_at_every_tolerance(tmp_path):
    path = write_reevaluated(
        tmp_path,
        cell(),
        tolerances=[0.1, 1.0],
        success=[True, True, False, False],
        clean=[[0, 0], [0, 1], [0, 0], [1, 1]],
        adversarial=[[1, 0], [1, 1], [0, 0], [1, 0]],
    )
    own, other = audit.matrix_table([path]).itertuples()
    assert (own.evaluated_at, own.accuracy, own.robust_accuracy) == (0.1, 0.75, 0.25)
    assert (own.successes, own.kept, own.kept_rate) == (2, 2, 1)
    # The second image is wrong at the other tolerance as it is, the last one there alone.
    assert (other.evaluated_at, other.accuracy, other.robust_accuracy) == (1.0, 0.5, 0.5)
    assert (other.kept, other.kept_rate_low, other.kept_rate_high) == (
        1,
        *proportions.interval(1, 2),
    )


def test_randomisation_averages_over_draws(tmp_path):
    wrong = {"clean": [0, 0.5], "fixed": [0.5, 1], "fresh": [1, 1], "eot": [1, 1]}
    path = write_randomised(tmp_path, wrong)
    table = audit.randomisation_table([path])
    assert table.attacker.tolist() == ["clean", "fixed", "fresh", "eot"]
    assert table.accuracy.tolist() == [0.75, 0.25, 0, 0]
    assert table.accuracy_low.between(0, table.accuracy).all()
    assert table.accuracy_high.between(table.accuracy, 1).all()
    assert "tolerance" not in table


def test_detection_counts_those_that_fool_the_classifier(tmp_path):
    path = write_detection(
        tmp_path,
        clean=[0.0, 0.1, 0.2, 0.3],
        plain=[0.9, 0.8, 0.0, 0.7],
        adaptive=[0.0, 0.1, 0.2, 0.3],
        fooled=[True, True, False, True],
    )
    table = audit.detection_table([path])
    assert [*zip(table.attacker, table.detector, strict=True)] == [
        (attacker, detector)
        for attacker in ("plain", "confident", "adaptive")
        for detector in ("disagreement", "confidence")
    ]
    plain, against, *_, adaptive, _ = table.itertuples()
    assert (plain.attacker, plain.clean, plain.adversarial) == ("plain", 4, 3)
    assert (plain.auc, plain.detected) == (1, 1)
    assert (against.auc, against.detected) == (0, 0)
    assert (adaptive.adversarial, adaptive.detected) == (4, 0)
    assert plain.detected_high == 1
    assert adaptive.detected_low == 0
    assert adaptive.detected_high == pytest.approx(1 - 0.025 ** (1 / 4))
    assert adaptive.auc == 0.5
    points = audit.roc_table([path])
    assert set(points.attacker) == {"plain", "confident", "adaptive"}
    assert set(points.detector) == {"disagreement", "confidence"}
    rates = points[["false_positive_rate", "true_positive_rate"]]
    assert (rates.min() == 0).all()
    assert (rates.max() == 1).all()


def test_detection_without_adversarials_is_unknown(tmp_path):
    scores = [0.0, 0.5]
    path = write_detection(tmp_path, scores, scores, scores, [False, False])
    assert audit.detection_table([path]).auc.isna().tolist() == 4 * [True] + 2 * [False]
    assert audit.roc_table([path]).attacker.unique().tolist() == ["adaptive"]


def test_nothing_measured_is_an_empty_table():
    for make in (
        audit.audit_table,
        audit.matrix_table,
        audit.randomisation_table,
        audit.detection_table,
        audit.roc_table,
    ):
        assert make([]).empty


def test_a_model_without_an_ode_has_one_source(tmp_path):
    path = write_audit(tmp_path, model="RES", tolerance=None)
    table = audit.audit_table([path])
    assert set(table.source) == {"direct"}
    assert table.cosine_mean.isna().all()
