"""Verdicts on cells of which the truth is known."""

import math

import numpy as np
import pytest

from node_robustness.statistics import proportions
from node_robustness.verdict import checks, protocols, verdicts
from samples import cell, sizes_leaving, write_attempt, write_audit, write_evaluation, write_suite


def decide(folder, attacks, n, audit=True, where=({},), paper="bim_adjoint", changes=None):
    """Verdicts on attack files, whose models are all well behaved."""
    groups = protocols.read_attacked(attacks)
    clean = [write_evaluation(folder, n, **w) for w in where]
    audits = [write_audit(folder, n=100, changes=changes or {}, **w) for w in where if audit]
    checked = checks.check_table(clean, groups, audits, [])
    return verdicts.verdict_table(protocols.protocol_table(groups, paper), checked)


def one(folder, left_by_paper, strongest, n, corrected=None, **settings):
    paths = write_suite(folder, n, left_by_paper, strongest, corrected)
    (row,) = decide(folder, paths, n, **settings).itertuples()
    return row


def test_what_every_attack_breaks_is_broken_and_the_procedure_shows_it(tmp_path):
    row = one(tmp_path, 0.02, 0.0, 200)
    assert (row.verdict, row.procedure, row.level) == ("broken", "shows", "this network")
    assert row.p_broken == pytest.approx(0.9**200)
    assert "leave at most 1.8 %" in row.reason


def test_the_procedure_may_hide_that_a_network_is_broken(tmp_path):
    row = one(tmp_path, 0.9, 0.0, 200, corrected=0.3)
    assert (row.verdict, row.procedure) == ("broken", "hides")
    assert (row.masked, row.weak) == pytest.approx((0.6, 0.3))
    assert "60.0 points by masked gradient and 30.0 points by weak search" in row.reason


def test_a_broken_network_needs_neither_a_strong_suite_nor_an_audit(tmp_path):
    path = write_attempt(tmp_path, cell("bim_direct"), sizes_leaving(0, 100))
    (row,) = decide(tmp_path, [path], 100, audit=False).itertuples()
    assert (row.verdict, row.procedure) == ("broken", "")
    assert math.isnan(row.paper)


def test_what_the_papers_own_steps_break_along_another_gradient_is_masked(tmp_path):
    row = one(tmp_path, 0.9, 0.4, 200, corrected=0.5)
    assert (row.verdict, row.procedure) == ("masked", "hides")
    assert (row.paper, row.corrected, row.strongest) == pytest.approx((0.9, 0.5, 0.4))
    assert (row.gap, row.masked, row.weak) == pytest.approx((0.5, 0.4, 0.1))
    assert (row.masked_low, row.masked_high) == pytest.approx(proportions.interval(80, 200))
    assert "40.0 points are masked gradient" in row.reason


def test_neither_a_weak_suite_nor_a_missing_audit_hides_masking(tmp_path):
    paths = [p for p in write_suite(tmp_path, 200, 0.9, 0.4, 0.4) if "bim" in p.name]
    (row,) = decide(tmp_path, paths, 200, audit=False).itertuples()
    assert row.verdict == "masked"
    assert "too weak" in row.lacks


def test_a_large_gap_that_no_gradient_explains_is_under_searched(tmp_path):
    row = one(tmp_path, 0.9, 0.4, 200, corrected=0.89)
    assert (row.verdict, row.procedure) == ("under-searched", "hides")
    assert (row.masked, row.weak) == pytest.approx((0.01, 0.49))
    # The bound counts, not the estimate: of fewer images one percent may be five.
    few = one(tmp_path / "few", 0.9, 0.4, 100, corrected=0.89)
    assert (few.verdict, few.because) == ("undecided", "images")
    assert few.needed == proportions.images_needed(0.01, 0.05, "below")
    assert 100 < few.needed < 200


def test_failed_checks_of_gradients_are_named_where_search_is_the_reason(tmp_path):
    changes = {"gradient_norm": np.zeros((100, 3))}
    row = one(tmp_path, 0.9, 0.4, 200, corrected=0.9, changes=changes)
    assert row.verdict == "under-searched"
    assert "But these checks failed: " in row.reason


def test_both_causes_are_neither(tmp_path):
    row = one(tmp_path, 0.9, 0.4, 400, corrected=0.7)
    assert (row.verdict, row.because) == ("undecided", "mixed")
    assert "20.0 points are masked gradient and 30.0 points weak search" in row.reason


def test_where_no_other_gradient_was_followed_the_cause_is_not_known(tmp_path):
    paths = [p for p in write_suite(tmp_path, 200, 0.9, 0.4) if "bim_direct" not in p.name]
    (row,) = decide(tmp_path, paths, 200).itertuples()
    assert (row.verdict, row.because) == ("undecided", "no_corrected")
    assert math.isnan(row.masked)


def test_no_gap_under_a_strong_saturated_suite_survives(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 200)
    assert (row.verdict, row.procedure, row.lacks) == ("survives", "shows", "")
    assert row.p_survives == pytest.approx(0.9**200)
    assert row.added == 0


def test_attacks_of_different_strength_do_not_stand_in_the_way(tmp_path):
    """Ten gradient steps leave some points more than the strongest attack on an honest model."""
    assert one(tmp_path, 0.735, 0.69, 200).verdict == "survives"


@pytest.mark.parametrize(
    "left_out", ["apgd_ce", "apgd_t", "apgd_surrogate", "square"], ids=lambda name: name
)
def test_under_a_weak_suite_nothing_survives(tmp_path, left_out):
    paths = [
        p
        for p in write_suite(tmp_path, 300, 0.6, 0.6)
        if f"attack-tiny-toy-OON-0-0.1-{left_out}-" not in p.name
    ]
    assert len(paths) == 6
    (row,) = decide(tmp_path, paths, 300).itertuples()
    assert (row.verdict, row.because) == ("undecided", "attacks")
    assert f"({left_out})" in row.reason


def test_a_model_without_an_ode_needs_no_surrogate(tmp_path):
    where = {"model": "RES", "tolerance": None}
    paths = write_suite(tmp_path, 200, 0.6, 0.6, **where)
    (row,) = decide(tmp_path, paths, 200, where=[where]).itertuples()
    assert row.verdict == "survives"
    # It has one gradient, which is not masked.
    assert (row.masked, row.corrected) == (0, row.paper)


def test_where_the_last_attack_still_breaks_images_nothing_survives(tmp_path):
    paths = [p for p in write_suite(tmp_path, 300, 0.6, 0.6) if "square" not in p.name]
    square = cell("square") | {"method": "square", "gradient": None, "queries": 1000}
    paths.append(write_attempt(tmp_path, square, sizes_leaving(0.59, 300)))
    (row,) = decide(tmp_path, paths, 300).itertuples()
    assert (row.verdict, row.because) == ("undecided", "saturation")
    assert row.added == pytest.approx(0.01)
    assert "still added 1.0 points" in row.reason


def test_a_failed_check_is_undecided(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 200, changes={"neighbours_changed": np.ones(100, np.float32)})
    assert (row.verdict, row.because) == ("undecided", "checks")
    assert "Predictions are stable around the image" in row.reason


def test_what_was_not_measured_has_not_passed(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 200, audit=False)
    assert (row.verdict, row.because) == ("undecided", "checks")
    assert "were not measured" in row.reason


def test_too_few_images_are_undecided_and_how_many_would_do_is_said(tmp_path):
    """The gap needs 36, and the checks 59: the first at which a share of none is below 5 %."""
    assert 0.9**36 < 0.025 < 0.9**35
    assert 0.95**59 < 0.05 < 0.95**58
    row = one(tmp_path / "few", 0.6, 0.6, 30)
    assert (row.verdict, row.because, row.needed) == ("undecided", "images", 59)
    assert "59 would show that it survives, once every check passes" in row.reason
    row = one(tmp_path / "more", 0.6, 0.6, 58)
    assert (row.verdict, row.because) == ("undecided", "checks")
    assert "rest on too few images to pass" in row.reason
    assert "(add an" not in row.reason  # what they need ran, on too few images
    assert one(tmp_path / "enough", 0.6, 0.6, 59).verdict == "survives"


def test_no_number_of_images_is_named_where_attacks_are_missing(tmp_path):
    paths = [p for p in write_suite(tmp_path, 30, 0.6, 0.6) if "square" not in p.name]
    (row,) = decide(tmp_path, paths, 30).itertuples()
    assert (row.verdict, row.because) == ("undecided", "attacks")
    assert math.isnan(row.needed)
    assert "No number of images shows without them that it survives" in row.reason
    assert "it takes at least 59" in row.reason


def test_with_one_image_nothing_is_claimed(tmp_path):
    for shares in ((1.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        row = one(tmp_path / str(shares), *shares, 1)
        assert (row.verdict, row.because) == ("undecided", "no_accuracy")


def test_of_a_model_that_is_never_right_nothing_is_said(tmp_path):
    paths = [
        write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0, 8), [False] * 8)
    ]
    (row,) = decide(tmp_path, paths, 8, audit=False).itertuples()
    assert (row.verdict, row.because) == ("undecided", "no_correct")
    assert row.reason == (
        "No image is classified correctly without an attack: nothing was attacked."
    )


def test_a_model_that_guesses_is_not_broken(tmp_path):
    right = np.arange(200) < 20
    paths = [write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0, 200), right)]
    (row,) = decide(tmp_path, paths, 200).itertuples()
    assert (row.verdict, row.because) == ("undecided", "no_accuracy")


def test_without_the_papers_attack_there_is_no_verdict_on_what_is_left(tmp_path):
    for paper in (None, "cw"):
        row = one(tmp_path / str(paper), 0.9, 0.4, 200, paper=paper)
        assert (row.verdict, row.because) == ("undecided", "no_paper")
        assert math.isnan(row.p_masked)
        assert row.procedure == ""


def test_many_settings_need_more_evidence_each(tmp_path):
    """Eleven of a hundred images masked are enough alone, and not as one of eight of two models."""
    alone = one(tmp_path / "a", 0.85, 0.74, 100, corrected=0.74)
    assert alone.verdict == "masked"
    where = [{"model": name, "tolerance": float(t)} for name in ("OON", "TON") for t in range(1, 5)]
    paths = write_suite(tmp_path, 100, 0.85, 0.74, 0.74, **where[0])
    for setting in where[1:]:
        paths += write_suite(tmp_path, 100, 0.7, 0.7, **setting)
    found = decide(tmp_path, paths, 100, where=where)
    assert found.verdict[0] == "undecided"
    assert found.p_masked[0] == pytest.approx(8 * alone.p_masked)


def two(folder, first, second, n=200):
    """The verdict on two networks, each with (paper's, strongest, corrected) robust accuracy."""
    paths = write_suite(folder, n, *first, seed=0) + write_suite(folder, n, *second, seed=1)
    (row,) = decide(folder, paths, n, where=[{"seed": 0}, {"seed": 1}]).itertuples()
    return row


def test_of_two_networks_each_has_to_show_it(tmp_path):
    row = two(tmp_path, (0.9, 0.4, 0.4), (0.8, 0.3, 0.3))
    assert (row.verdict, row.networks, row.agree) == ("masked", 2, 2)
    assert row.level == "these 2 networks"
    assert row.masked == pytest.approx(0.5)
    low, high = proportions.interval([60, 80], [200, 200])
    assert (row.strongest_low, row.strongest_high) == (low[0], high[1])
    # Two networks say nothing of networks trained like them.
    assert math.isnan(row.agree_low)
    weaker = two(tmp_path / "weaker", (0.9, 0.4, 0.4), (0.8, 0.74, 0.76))
    assert weaker.p_masked > 0.025


def test_networks_that_differ_are_said_to_differ(tmp_path):
    row = two(tmp_path, (0.9, 0.0, 0.1), (0.9, 0.9, 0.9))
    assert (row.verdict, row.because, row.agree) == ("undecided", "networks", 0)
    assert "by themselves 1 broken and 1 survives" in row.reason
    assert math.isnan(row.needed)


def test_five_networks_bound_their_share(tmp_path):
    seeds = range(5)
    paths = [p for s in seeds for p in write_suite(tmp_path, 100, 0.0, 0.0, seed=s)]
    (row,) = decide(tmp_path, paths, 100, where=[{"seed": s} for s in seeds]).itertuples()
    assert (row.verdict, row.agree) == ("broken", 5)
    assert row.agree_low == pytest.approx(0.025 ** (1 / 5))


def test_an_experiment_without_attacks_has_no_verdicts():
    none = checks.check_table([], [], [], [])
    assert verdicts.verdict_table(protocols.protocol_table([], "bim"), none).empty
