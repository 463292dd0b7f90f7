"""Each check sees the fault that it is there for, and no other does; each keeps to its bound."""

import numpy as np
import pytest

from node_robustness.statistics import proportions
from node_robustness.verdict import checks, measures, protocols
from node_robustness.verdict.checks import CHECKS, FAILED, NOT_MEASURED, PASSED, UNDECIDED
from samples import (
    SUITE,
    cell,
    sizes_leaving,
    solved,
    write,
    write_attempt,
    write_audit,
    write_evaluation,
    write_suite,
)

N = 100
PINTOR = (
    "unavailable_gradients",
    "unstable_predictions",
    "silent_success",
    "incomplete_optimisation",
    "transferability",
    "unconstrained_failure",
)


def rows(folder, attacks, audit=None, reevaluated=(), clean=None, n=N):
    return checks.check_table(
        [clean or write_evaluation(folder, n)],
        protocols.read_attacked(attacks),
        [audit] if audit else [],
        reevaluated,
    )


def outcomes(*arguments, **options):
    table = rows(*arguments, **options)
    assert table.check.is_unique
    return table.set_index("check")


def failed(table) -> list[str]:
    return table.index[table.outcome == FAILED].tolist()


def write_confirmed(folder, wrong_again, n=N, **where):
    """Adversarial examples of every image, of which the first few are right in a second solve."""
    arrays = {
        "labels": np.zeros(n, int),
        "success": np.ones(n, bool),
        "tolerances": np.array([0.1, 1.0]),
        "adversarial_predictions": np.stack([np.arange(n) >= wrong_again, np.ones(n)], 1).astype(
            int
        ),
    }
    return write(folder / "reevaluated.h5", "reevaluated", cell(**where), arrays)


def test_a_sound_evaluation_passes(tmp_path):
    table = outcomes(
        tmp_path,
        write_suite(tmp_path, N, 0.9, 0.5),
        write_audit(tmp_path),
        [write_confirmed(tmp_path, 0)],
    )
    assert set(table.outcome) == {PASSED}
    assert (table.reason == "").all()
    assert (table.n >= 16).all()
    assert (table.low <= table.value).all()
    assert (table.value <= table.high).all()
    assert (table.low < table.high).sum() >= len(table) - 4  # medians of equal values


def test_the_six_indicators_of_attack_failure_are_rows(tmp_path):
    table = outcomes(tmp_path, [], write_audit(tmp_path))
    assert set(PINTOR) <= set(table.index)


def late(n=N):
    """Losses of Auto-PGD whose adversarial examples come after ten of twelve steps."""
    losses = np.full((n, 13), 0.5, np.float32)
    losses[60:, 11:] = np.nan
    return losses


def rising(n=N, steps=12):
    losses = np.tile(np.linspace(0.1, 1, steps + 1, dtype=np.float32), (n, 1))
    losses[60:, 3:] = np.nan
    return losses


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("unavailable_gradients", {"gradient_norm": np.repeat([[0.0], [1.0]], 50, 0) * np.ones(3)}),
        ("unavailable_gradients", {"gradient_norm": np.full((N, 3), np.nan)}),
        ("unavailable_gradients", {"linf__apgd__no_gradient": np.arange(N) < 20}),
        ("gradients_precise", {"precision_cosine": np.full(16, 0.5)}),
        ("gradients_describe", {"finite_difference": -np.ones((16, 3))}),
        # A gradient of a function that is flat.
        ("gradients_describe", {"finite_difference": np.zeros((16, 3))}),
        ("gradients_describe", {"linf__apgd__slope_error": np.full(N, 0.9)}),
        ("gradients_describe", {"linf__apgd__slope_error": np.full(N, np.inf)}),
        ("adjoint_agrees", {"cosine": np.full((N, 3, 3), 0.2)}),
        ("adjoint_agrees", {"linf__paper__cosine": np.full(N, 0.2)}),
        ("unstable_predictions", {"neighbours_changed": np.full(N, 0.1)}),
        ("unstable_predictions", {"neighbours_variation": np.full(N, 0.3)}),
        ("unstable_predictions", {"neighbours_variation": np.full(N, np.nan)}),
        ("silent_success", {"linf__apgd__reached": np.ones(N, bool)}),
        ("silent_success", {"linf__paper__reached": np.ones(N, bool)}),
        ("incomplete_optimisation", {"linf__apgd__loss": rising()}),
        ("paper_incomplete", {"linf__paper__loss": rising(steps=8)}),
        ("iterations_help", {"linf__single_step_success": np.ones(N, bool)}),
        ("iterations_suffice", {"linf__apgd__loss": late()}),
        ("unconstrained_failure", {"large_epsilon_success": np.arange(N) < 80}),
        ("paper_breaks_all", {"paper_large_epsilon_success": np.arange(N) < 80}),
        ("held_steps", {"linf__held__survives": np.arange(N) % 4 == 0}),
    ],
)
def test_an_audit_that_finds_a_fault(tmp_path, check, changes):
    audit = write_audit(tmp_path, changes=changes)
    table = outcomes(tmp_path, write_suite(tmp_path, N, 0.9, 0.5), audit)
    assert failed(table) == [check]
    assert table.failure[check]


@pytest.mark.parametrize(
    ("n", "cases", "outcome"),
    [
        (100, 0, PASSED),
        (59, 0, PASSED),
        (58, 0, UNDECIDED),
        (100, 1, PASSED),
        (100, 2, UNDECIDED),
        (100, 9, UNDECIDED),
        (100, 10, FAILED),
        (10, 2, UNDECIDED),
    ],
)
def test_a_share_passes_and_fails_by_its_bound(tmp_path, n, cases, outcome):
    changes = {"large_epsilon_success": np.arange(n) >= cases}
    row = outcomes(tmp_path, [], write_audit(tmp_path, n, changes=changes)).loc[
        "unconstrained_failure"
    ]
    assert (row.outcome, row.n, row.value) == (outcome, n, cases / n)
    assert (row.low, row.high) == proportions.interval(cases, n, 0.9)
    assert (row.reason != "") == (outcome == UNDECIDED)


@pytest.mark.parametrize(
    ("n", "cases", "outcome"),
    [(N, 0, PASSED), (N, 1, PASSED), (N, 2, UNDECIDED), (N, 5, FAILED), (400, 6, UNDECIDED)],
)
def test_a_share_of_which_less_is_tolerated(tmp_path, n, cases, outcome):
    changes = {"gradient_norm": (np.arange(n) >= cases)[:, None] * np.ones(3)}
    table = outcomes(tmp_path, [], write_audit(tmp_path, n, changes=changes))
    assert table.outcome["unavailable_gradients"] == outcome


@pytest.mark.parametrize(
    ("cosines", "outcome"),
    [
        (np.linspace(0.93, 1, 16), PASSED),
        (np.linspace(0.8, 1, 16), UNDECIDED),
        (np.linspace(0.6, 0.8, 16), FAILED),
        (np.full(3, 0.99), UNDECIDED),
    ],
)
def test_a_median_passes_and_fails_by_its_bound(tmp_path, cosines, outcome):
    audit = write_audit(tmp_path, changes={"precision_cosine": cosines})
    row = outcomes(tmp_path, [], audit).loc["gradients_precise"]
    assert (row.outcome, row.n) == (outcome, len(cosines))
    assert (row.reason != "") == (outcome == UNDECIDED)


def test_every_norm_has_its_row(tmp_path):
    changes = {"l2_rms__single_step_success": np.ones(N, bool)}
    audit = write_audit(tmp_path, norms=("linf", "l2_rms"), changes=changes)
    attacks = write_suite(tmp_path, N, 0.9, 0.5) + write_suite(tmp_path, N, 0.9, 0.5, norm="l2_rms")
    table = rows(tmp_path, attacks, audit)
    own = table[table.check == "iterations_help"].set_index("norm")
    assert own.outcome.to_dict() == {"linf": PASSED, "l2_rms": FAILED}
    for check in CHECKS:
        norms = table.norm[table.check == check.name].tolist()
        assert norms == (["l2_rms", "linf"] if check.by_norm else [""]), check.name
    assert table.outcome[table.check == "white_box_stronger"].tolist() == [PASSED, PASSED]


def test_an_attack_that_loses_with_epsilon(tmp_path):
    paths = [
        write_attempt(tmp_path, cell(epsilon=e), sizes_leaving(left, N, e))
        for e, left in ((0.1, 0.5), (0.2, 0.9))
    ]
    table = outcomes(tmp_path, paths)
    assert failed(table) == ["epsilon_monotone"]
    assert table.value["epsilon_monotone"] == pytest.approx(0.4)
    assert table.low["epsilon_monotone"] > 0.3


@pytest.mark.parametrize(
    ("attack", "check"), [("square", "white_box_stronger"), ("noise", "noise_weaker")]
)
def test_what_only_a_weak_attack_breaks(tmp_path, attack, check):
    paths = [
        write_attempt(tmp_path, cell("apgd_ce") | SUITE["apgd_ce"], sizes_leaving(0.9, N)),
        write_attempt(tmp_path, cell(attack) | SUITE[attack], sizes_leaving(0.5, N)),
    ]
    table = outcomes(tmp_path, paths)
    assert failed(table) == [check]
    assert table.value[check] == pytest.approx(0.4)


def budget(attack, steps, **changes):
    return cell(attack) | {"iterations": steps} | changes


@pytest.mark.parametrize(
    ("weaker", "expected"),
    [
        (budget("pgd", 100, method="pgd"), FAILED),
        # 4 runs of 5 steps.
        (budget("pgd", 5, method="pgd", restarts=4), FAILED),
        (budget("apgd_t", 3, method="apgd", targets=9), FAILED),
        (budget("pgd", 10, method="pgd"), NOT_MEASURED),
        (budget("pgd", 5, method="pgd"), PASSED),
        (budget("pgd", 100, method="pgd", gradient="adjoint"), NOT_MEASURED),
        (budget("fab_t", 100, method="fab"), NOT_MEASURED),
        (budget("square", 100, method="square", gradient="none"), NOT_MEASURED),
        (budget("pgd", 100, method="pgd", epsilon=0.2), NOT_MEASURED),
    ],
)
def test_a_larger_budget_that_breaks_fewer(tmp_path, weaker, expected):
    epsilon = weaker["epsilon"]
    paths = [
        write_attempt(tmp_path, budget("bim", 10), sizes_leaving(0.5, N)),
        write_attempt(tmp_path, weaker, sizes_leaving(0.7, N, epsilon)),
    ]
    row = outcomes(tmp_path, paths).loc["larger_budget_finds_more"]
    assert row.outcome == expected
    if expected == FAILED:
        assert row.value == pytest.approx(0.2)
        assert row.low > 0.05


def test_what_a_larger_budget_left_out_counts_as_broken_by_it(tmp_path):
    skipped = np.arange(N) >= N // 2
    skips = {"skips": {"broken_by": {"bim": 0.1}, "within": 0.1}}
    paths = [
        write_attempt(tmp_path, budget("bim", 10), sizes_leaving(0.5, N)),
        write_attempt(
            tmp_path,
            budget("apgd", 100, method="apgd") | skips,
            np.full(N, np.inf),
            attacked=~skipped,
            skipped=skipped,
        ),
    ]
    assert outcomes(tmp_path, paths).outcome["larger_budget_finds_more"] == PASSED


def test_adversarial_examples_that_a_second_solve_does_not_confirm(tmp_path):
    attack = write_attempt(tmp_path, cell(), sizes_leaving(0.5, N))
    table = outcomes(tmp_path, [attack], reevaluated=[write_confirmed(tmp_path, 10)])
    assert failed(table) == ["transferability"]
    assert table.value["transferability"] == pytest.approx(0.1)


@pytest.mark.parametrize("cases", [1, 50])
def test_a_single_solve_that_fails_is_a_failure(tmp_path, cases):
    path = write_attempt(
        tmp_path,
        cell(),
        sizes_leaving(0.5, N),
        adversarial_predictions=np.where(np.arange(N) >= N - cases, -1, np.arange(N) >= N // 2),
    )
    table = outcomes(tmp_path, [path])
    assert failed(table) == ["solver_succeeds"]
    assert table.value["solver_succeeds"] == cases / N


def test_a_solver_that_always_fails(tmp_path):
    clean = write(
        tmp_path / "clean.h5",
        "clean",
        solved(),
        {
            "index": np.arange(4),
            "labels": np.zeros(4, int),
            "predictions": np.full(4, -1),
            "nfe": np.ones(4, int),
            "status": np.ones(4, int),
        },
    )
    audit = write_audit(tmp_path, 4, changes={"correct": np.zeros(4, bool)})
    table = outcomes(tmp_path, [], audit, clean=clean)
    assert table.value["solver_succeeds"] == 1
    assert "solver_succeeds" in failed(table)
    row = table.loc["iterations_help"]
    assert (row.outcome, row.n) == (NOT_MEASURED, 0)
    assert "none is classified correctly" in row.reason
    assert table.outcome["unavailable_gradients"] != NOT_MEASURED


def test_a_model_without_an_ode_has_no_solver_to_check(tmp_path):
    where = {"model": "RES", "tolerance": None}
    clean = write_evaluation(tmp_path, N, **where)
    table = outcomes(tmp_path, write_suite(tmp_path, N, 0.9, 0.5, **where), clean=clean)
    assert {check.name for check in CHECKS if check.ode_only}.isdisjoint(table.index)
    assert not failed(table)


def test_without_an_audit_nothing_is_claimed(tmp_path):
    table = outcomes(tmp_path, [])
    measured = table.index[table.outcome != NOT_MEASURED].tolist()
    assert measured == ["solver_succeeds"]
    assert (table.reason[table.outcome == NOT_MEASURED] != "").all()
    assert "turn audit on" in table.reason["unavailable_gradients"]
    assert "noise" in table.reason["noise_weaker"]


def test_one_image_decides_nothing(tmp_path):
    audit = write_audit(tmp_path, 1)
    attacks = write_suite(tmp_path, 1, 1.0, 1.0)
    table = outcomes(tmp_path, attacks, audit, [write_confirmed(tmp_path, 0, 1)], n=1)
    # Nothing broke it, so that no step could be held.
    assert table.index[table.outcome == NOT_MEASURED].tolist() == ["held_steps"]
    assert set(table.outcome) == {UNDECIDED, NOT_MEASURED}
    assert (table.reason != "").all()
    assert "1 image is too few" in table.reason["iterations_help"]


def test_the_worst_of_several_decides():
    def fails(item):
        return item.low > 0.5

    level = measures.Measured(0.1, 100, 0.05, 0.2)
    unsure = measures.Measured(0.0, 2, 0.0, 0.8)
    bad = measures.Measured(0.7, 100, 0.6, 0.75)
    unbounded = measures.Measured(0.0, 3, np.nan, np.nan)
    assert measures.worst([level, unsure], fails, most=True) == unsure
    assert measures.worst([bad, level, unsure], fails, most=True) == bad
    assert measures.worst([level, unbounded], fails, most=True) == unbounded
    assert measures.worst([level, unsure], lambda item: item.high < 0, most=False) == unsure
    assert measures.worst([], fails, most=True).n == 0
