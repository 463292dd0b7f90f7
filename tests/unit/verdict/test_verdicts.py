"""Verdicts on cells of which the truth is known."""

import numpy as np
import pytest

from node_robustness.verdict import checks, comparisons, gains, protocols, verdicts
from samples import cell, sizes_leaving, write_attempt, write_audit, write_evaluation, write_suite

VANISHING = {"gradient_norm": np.zeros((8, 3))}


def decide(folder, attacks, n, audit=True, where=({},), paper="bim_adjoint", changes=None):
    """Verdicts and gains of attack files, whose models are all well behaved."""
    groups = protocols.read_attacked(attacks)
    clean = [write_evaluation(folder, n, **w) for w in where]
    audits = [write_audit(folder, changes=changes or {}, **w) for w in where] if audit else []
    checked = checks.check_table(clean, groups, audits, [])
    items = comparisons.replicated(groups)
    found = verdicts.verdict_table(items, checked, paper)
    return found, gains.gain_table(items, found, paper, {"OON": 0.1})


def one(folder, left_by_paper, left, n, **settings):
    paths = write_suite(folder, n, left_by_paper, left)
    (row,) = decide(folder, paths, n, **settings)[0].itertuples()
    return row


def test_a_large_gap_is_masked(tmp_path):
    row = one(tmp_path, 0.9, 0.1, 100, changes=VANISHING)
    assert (row.verdict, row.because) == ("masked", "gap")
    assert (row.paper, row.strongest) == pytest.approx((0.9, 0.1))
    assert row.gap == pytest.approx(0.8)
    assert "90.0 %" in row.reason
    assert "80.0 points" in row.reason
    assert "Gradients are neither zero nor missing" in row.reason


@pytest.mark.parametrize(
    "changes",
    [
        VANISHING,
        {"precision_cosine": np.full((8, 3), 0.3)},
        {"finite_difference": -np.ones((8, 3))},
        {"cosine": np.full((8, 3, 3), 0.5)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_large_gap_is_masked_where_gradients_are_not_sound(tmp_path, changes):
    assert one(tmp_path, 0.9, 0.1, 100, changes=changes).verdict == "masked"


def test_a_large_gap_along_sound_gradients_is_a_weak_attack(tmp_path):
    row = one(tmp_path, 0.9, 0.4, 100)
    assert (row.verdict, row.because) == ("undecided", "weak_attack")
    assert row.p_masked < 1e-6
    broken = one(tmp_path / "broken", 0.9, 0.0, 100)
    assert (broken.verdict, broken.because) == ("undecided", "no_robustness")


def with_another_gradient(folder, left, **changes):
    """The paper's attack leaves 90 of 100 images, the like of it along direct gradients others."""
    paths = write_suite(folder, 100, 0.9, 0.4)
    like = cell("bim_direct", gradient="direct") | changes
    return [*paths, write_attempt(folder, like, sizes_leaving(left, 100))]


def test_the_same_steps_along_a_better_gradient_tell_masking(tmp_path):
    (row,) = decide(tmp_path, with_another_gradient(tmp_path, 0.6), 100)[0].itertuples()
    assert row.verdict == "masked"
    assert "the gradient of bim_direct break 30.0 points more" in row.reason


@pytest.mark.parametrize(("left", "changes"), [(0.86, {}), (0.6, {"iterations": 20})])
def test_other_steps_or_a_little_more_tell_nothing(tmp_path, left, changes):
    paths = with_another_gradient(tmp_path, left, **changes)
    (row,) = decide(tmp_path, paths, 100)[0].itertuples()
    assert (row.verdict, row.because) == ("undecided", "weak_attack")


def test_the_adjoint_is_no_matter_to_an_attack_that_does_not_follow_it(tmp_path):
    changes = {"cosine": np.full((8, 3, 3), 0.5)}
    paths = with_another_gradient(tmp_path, 0.9)
    (row,) = decide(tmp_path, paths, 100, paper="bim_direct", changes=changes)[0].itertuples()
    assert (row.verdict, row.because) == ("undecided", "weak_attack")


def test_no_gap_under_a_strong_suite_holds(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 200)
    assert (row.verdict, row.because, row.gap) == ("holds", "gap", 0)
    assert row.p_holds == pytest.approx(0.9**200)


def test_sound_attacks_of_different_strength_do_not_stand_in_the_way(tmp_path):
    """Ten gradient steps leave some points more than the strongest attack on an honest model."""
    row = one(tmp_path, 0.735, 0.69, 200)
    assert (row.verdict, row.gap) == ("holds", pytest.approx(0.045))


def test_too_few_images_are_undecided(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 30)
    assert (row.verdict, row.because) == ("undecided", "images")
    # 0.9^36 is just below 2.5 %.
    assert "Without any gap, 36 images" in row.reason
    assert 0.9**36 < 0.025 < 0.9**35


def test_a_gap_that_may_be_small_is_undecided(tmp_path):
    row = one(tmp_path, 0.74, 0.6, 50)
    assert (row.verdict, row.because) == ("undecided", "images")


def test_where_nothing_is_robust_nothing_holds(tmp_path):
    row = one(tmp_path, 0.0, 0.0, 400)
    assert (row.verdict, row.because) == ("undecided", "no_robustness")


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("apgd", "direct gradients"),
        ("pgd_surrogate", "surrogate"),
        ("square", "square or transfer"),
    ],
)
def test_a_weak_suite_never_holds_and_says_what_to_add(tmp_path, left_out, named):
    paths = [p for p in write_suite(tmp_path, 300, 0.6, 0.6) if left_out not in p.name]
    (row,) = decide(tmp_path, paths, 300)[0].itertuples()
    assert (row.verdict, row.because) == ("undecided", "attack_suite")
    assert named in row.reason


def test_the_papers_attack_alone_never_holds(tmp_path):
    paths = [write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0.9, 1000))]
    (row,) = decide(tmp_path, paths, 1000)[0].itertuples()
    assert (row.verdict, row.because, row.gap) == ("undecided", "attack_suite", 0)


def test_a_model_without_an_ode_needs_no_surrogate(tmp_path):
    where = {"model": "RES", "tolerance": None}
    paths = write_suite(tmp_path, 200, 0.6, 0.6, **where)
    (row,) = decide(tmp_path, paths, 200, where=[where])[0].itertuples()
    assert row.verdict == "holds"


def test_a_failed_check_is_undecided(tmp_path):
    changes = {"planted_success": np.zeros(8, bool)}
    row = one(tmp_path, 0.6, 0.6, 200, changes=changes)
    assert (row.verdict, row.because) == ("undecided", "checks")
    assert "planted weak model" in row.reason


def test_what_was_not_measured_is_undecided(tmp_path):
    row = one(tmp_path, 0.6, 0.6, 200, audit=False)
    assert (row.verdict, row.because) == ("undecided", "checks")
    assert "not measured" in row.reason


def test_a_failed_check_does_not_hide_masking(tmp_path):
    row = one(tmp_path, 0.9, 0.1, 100, audit=False)
    assert row.verdict == "masked"


def test_without_the_papers_attack_there_is_no_verdict(tmp_path):
    row = one(tmp_path, 0.9, 0.1, 100, paper=None)
    assert (row.verdict, row.because) == ("undecided", "no_paper")
    assert np.isnan(row.p_masked)


def test_many_cells_need_more_evidence_each(tmp_path):
    """A gap of 18 of 100 is masked alone, but not as one of eight."""
    alone = one(tmp_path / "a", 0.78, 0.6, 100, changes=VANISHING)
    assert alone.verdict == "masked"
    taus = [float(t) for t in range(1, 9)]
    paths = write_suite(tmp_path, 100, 0.78, 0.6, tolerance=taus[0])
    for tau in taus[1:]:
        paths += write_suite(tmp_path, 100, 0.6, 0.6, tolerance=tau)
    where = [{"tolerance": tau} for tau in taus]
    found = decide(tmp_path, paths, 100, where=where, changes=VANISHING)[0]
    assert found.verdict.tolist() == ["undecided"] * 8
    assert found.p_masked[0] == pytest.approx(8 * alone.p_masked)


def test_seeds_count_together_and_each_check_of_each(tmp_path):
    where = [{"seed": 0}, {"seed": 1}]
    paths = [p for w in where for p in write_suite(tmp_path, 100, 0.9, 0.1, **w)]
    (row,) = decide(tmp_path, paths, 100, where=where, changes=VANISHING)[0].itertuples()
    assert (row.seeds, row.n, row.verdict) == (2, 100, "masked")


def two_seeds(folder, first, second, n=100):
    """The verdict over two seeds, each (paper's, strongest) robust accuracy."""
    paths = write_suite(folder, n, *first, seed=0) + write_suite(folder, n, *second, seed=1)
    (row,) = decide(folder, paths, n, where=[{"seed": 0}, {"seed": 1}])[0].itertuples()
    return row


def test_seeds_that_disagree_are_undecided(tmp_path):
    row = two_seeds(tmp_path, (0.9, 0.1), (0.9, 0.9))
    assert (row.gap, row.verdict, row.because) == (pytest.approx(0.4), "undecided", "seeds")
    assert "leaves 10.0 % and 90.0 % of the images of the 2 networks" in row.reason
    assert "The gap of 40.0 points may still be 10.0 points or less" in row.reason
    assert "100 images of 2 networks that differ (gaps of 80.0 points and 0.0 points)" in row.reason


def test_small_gaps_of_seeds_that_disagree_are_undecided_for_the_seeds(tmp_path):
    row = two_seeds(tmp_path, (0.9, 0.9), (0.9, 0.8))
    assert (row.gap, row.verdict, row.because) == (pytest.approx(0.05), "undecided", "seeds")
    assert "(gaps of 0.0 points and 10.0 points) count as" in row.reason
    assert row.reason.endswith("too few to rule out a gap of 10.0 points. More seeds would help.")


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.1), (0.12, 0.12)])
def test_what_no_seed_leaves_is_no_matter_of_the_seeds(tmp_path, first, second):
    row = two_seeds(tmp_path, (first, first), (second, second))
    assert (row.verdict, row.because) == ("undecided", "no_robustness")


def gain(folder, before, after, n=200):
    """Verdict on the gain from tau 0.1 to 1; either end is (paper's, strongest) robust accuracy."""
    paths = write_suite(folder, n, *before, tolerance=0.1)
    paths += write_suite(folder, n, *after, tolerance=1.0)
    where = [{"tolerance": 0.1}, {"tolerance": 1.0}]
    (row,) = decide(folder, paths, n, where=where)[1].itertuples()
    return row


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.3, 0.3), (0.8, 0.3), "masked"),
        ((0.3, 0.3), (0.8, 0.5), "masked"),
        ((0.3, 0.3), (0.8, 0.8), "holds"),
        ((0.8, 0.8), (0.8, 0.8), "absent"),
        ((0.8, 0.8), (0.3, 0.3), "absent"),
        ((0.3, 0.3), (0.38, 0.34), "undecided"),
    ],
)
def test_gains_of_a_larger_tolerance(tmp_path, before, after, verdict):
    row = gain(tmp_path, before, after)
    assert row.verdict == verdict
    assert (row.tolerance, row.reference) == (1.0, 0.1)
    assert row.paper == pytest.approx(after[0] - before[0])
    assert row.strongest == pytest.approx(after[1] - before[1])
    assert row.hidden == pytest.approx(row.paper - row.strongest)


def test_models_are_compared_on_the_same_images(tmp_path):
    paths = write_suite(tmp_path, 100, 0.9, 0.4, tolerance=0.1)
    paths += write_suite(tmp_path, 100, 0.5, 0.4, model="RES", tolerance=None)
    items = comparisons.replicated(protocols.read_attacked(paths))
    table = comparisons.comparison_table(items, "bim_adjoint", {"OON": 0.1})
    assert table.kind.tolist() == ["model", "model"]
    assert table.reference_model.tolist() == ["RES", "RES"]
    paper, strongest = table.itertuples()
    assert (paper.protocol, paper.direction, strongest.direction) == ("paper", 1, 0)
    assert paper.difference == pytest.approx(0.4)
    assert (paper.gained, paper.lost) == pytest.approx((0.4, 0))
    assert paper.p == pytest.approx(2 * 0.5**40)
    assert strongest.p == 1


def test_the_reference_is_the_training_tolerance_else_the_smallest(tmp_path):
    taus = (0.01, 0.1, 1.0)
    paths = [p for tau in taus for p in write_suite(tmp_path, 4, 0.5, 0.5, tolerance=tau)]
    items = comparisons.replicated(protocols.read_attacked(paths))
    assert comparisons.reference_tolerance(items, 0.1) == 0.1
    assert comparisons.reference_tolerance(items, 0.2) == 0.01
    table = comparisons.comparison_table(items, "bim_adjoint", {"OON": 0.1})
    assert set(table.tolerance) == {0.01, 1.0}
    assert set(table.reference_tolerance) == {0.1}


def test_an_experiment_without_attacks_has_no_verdicts():
    assert verdicts.verdict_table([], checks.check_table([], [], [], []), "bim").empty
    assert gains.gain_table(
        [], verdicts.verdict_table([], checks.check_table([], [], [], []), None), None, {}
    ).empty
    assert comparisons.comparison_table([], None, {}).empty


def test_what_was_not_measured_says_why(tmp_path):
    audit_off = one(tmp_path / "off", 0.6, 0.6, 200, audit=False).reason
    assert "(there was no audit; turn audit on" in audit_off
    assert "attacks)" not in audit_off
    none_correct = one(tmp_path / "on", 0.6, 0.6, 200, changes={"correct": np.zeros(8, bool)})
    assert "(the audit had no image for them" in none_correct.reason
    assert "turn audit on" not in none_correct.reason
    paths = [p for p in write_suite(tmp_path, 200, 0.6, 0.6) if "noise" not in p.name]
    (without,) = decide(tmp_path, paths, 200)[0].itertuples()
    assert without.reason == (
        "These checks were not measured (there was no attack of method noise; add one to the "
        "attacks): Attacks break what random noise breaks."
    )


def test_of_a_model_that_is_never_right_nothing_is_said(tmp_path):
    paths = [
        write_attempt(tmp_path, cell("bim_adjoint", "adjoint"), sizes_leaving(0, 8), [False] * 8)
    ]
    (row,) = decide(tmp_path, paths, 8, audit=False)[0].itertuples()
    assert (row.verdict, row.because) == ("undecided", "no_correct")
    assert row.reason == (
        "No image is classified correctly without an attack: nothing was attacked."
    )


def test_the_papers_attack_in_another_norm_is_not_to_be_added(tmp_path):
    paths = write_suite(tmp_path, 100, 0.9, 0.1)
    (row,) = decide(tmp_path, paths, 100, paper="cw")[0].itertuples()
    assert row.because == "no_paper"
    assert row.reason.startswith("cw, the paper's attack here, has no cell with this norm")
    (row,) = decide(tmp_path, paths, 100, paper=None)[0].itertuples()
    assert "name one of them under paper_attack" in row.reason
