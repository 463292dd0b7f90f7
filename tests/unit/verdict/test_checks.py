"""Each check sees the fault that it is there for, and no other does."""

import numpy as np
import pytest

from node_robustness.verdict import checks, protocols
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

N = 20
SILENT = np.array([1] + [0] * (N - 1))


def outcomes(folder, attacks, audit=None, reevaluated=(), clean=None):
    table = checks.check_table(
        [clean or write_evaluation(folder, N)],
        protocols.read_attacked(attacks),
        [audit] if audit else [],
        reevaluated,
    )
    return table.set_index("check")


def failed(table) -> list[str]:
    return table.index[table.outcome == "failed"].tolist()


def test_a_sound_evaluation_passes(tmp_path):
    table = outcomes(tmp_path, write_suite(tmp_path, N, 0.9, 0.5), write_audit(tmp_path))
    assert set(table.outcome[table.supports]) <= {"passed", "not measured"}
    # Nothing was evaluated again.
    assert table.index[table.outcome == "not measured"].tolist() == ["adversarials_confirmed"]


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("gradients_exist", {"gradient_norm": np.repeat([[0.0], [1.0]], 4, 0) * np.ones(3)}),
        ("gradients_exist", {"gradient_norm": np.full((8, 3), np.nan)}),
        ("gradients_precise", {"precision_cosine": np.full((8, 3), 0.5)}),
        ("gradients_computed", {"finite_difference_frozen": np.ones((8, 3))}),
        ("gradients_describe", {"finite_difference": -np.ones((8, 3))}),
        ("adjoint_agrees", {"cosine": np.full((8, 3, 3), 0.2)}),
        ("iterations_help", {"single_step_success": np.ones(8, bool)}),
        ("iterations_suffice", {}),
        ("epsilon_breaks_all", {"large_epsilon_success": np.zeros(8, bool)}),
        ("predictions_stable", {"neighbours_changed": np.full(8, 0.3)}),
        ("batch_invariant", {"alone_prediction_differs": np.arange(8) == 0}),
        ("planted_broken", {"planted_success": np.arange(8) > 0}),
    ],
)
def test_an_audit_that_finds_a_fault(tmp_path, check, changes):
    if check.startswith("iterations"):
        changes = changes | {"iterations_success": np.repeat([[False, True]], 8, 0)}
    audit = write_audit(tmp_path, changes=changes)
    table = outcomes(tmp_path, write_suite(tmp_path, N, 0.9, 0.5), audit)
    expected = {check, "iterations_suffice"} if check.startswith("iterations") else {check}
    assert set(failed(table)) == expected


def test_an_attack_that_loses_with_epsilon(tmp_path):
    paths = [
        write_attempt(tmp_path, cell(epsilon=e), sizes_leaving(left, N, e))
        for e, left in ((0.1, 0.5), (0.2, 0.9))
    ]
    table = outcomes(tmp_path, paths)
    assert failed(table) == ["epsilon_monotone"]
    assert table.value["epsilon_monotone"] == pytest.approx(0.4)


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


@pytest.mark.parametrize(
    "changes",
    [
        # An adversarial that was not claimed, one that is none, and one that is too large.
        {"adversarial_predictions": np.ones(N, int)},
        {"adversarial_predictions": np.zeros(N, int)},
        {"perturbation_linf": np.full(N, 0.5, np.float32)},
    ],
)
def test_claims_that_do_not_agree(tmp_path, changes):
    path = write_attempt(tmp_path, cell(), sizes_leaving(0.5, N), **changes)
    assert failed(outcomes(tmp_path, [path])) == ["claims_agree"]


def test_an_adversarial_beyond_epsilon_need_not_be_claimed(tmp_path):
    sizes = sizes_leaving(0.5, N)
    path = write_attempt(
        tmp_path,
        cell(),
        sizes,
        adversarial_predictions=np.ones(N, int),
        perturbation_linf=np.where(np.isfinite(sizes), sizes, 0.2).astype(np.float32),
    )
    assert failed(outcomes(tmp_path, [path])) == []


def test_adversarials_that_a_second_solve_does_not_confirm(tmp_path):
    attack = write_attempt(tmp_path, cell(), sizes_leaving(0.5, N))
    success = np.arange(N) >= 10
    arrays = {
        "labels": np.zeros(N, int),
        "success": success,
        "tolerances": np.array([0.1, 1.0]),
        "adversarial_predictions": np.stack([success & (np.arange(N) != 15), success], 1).astype(
            int
        ),
    }
    reevaluated = write(tmp_path / "reevaluated.h5", "reevaluated", cell(), arrays)
    table = outcomes(tmp_path, [attack], reevaluated=[reevaluated])
    assert failed(table) == ["adversarials_confirmed"]
    assert table.value["adversarials_confirmed"] == pytest.approx(0.1)


def test_solves_that_fail(tmp_path):
    path = write_attempt(
        tmp_path, cell(), sizes_leaving(0.5, N), adversarial_predictions=np.repeat([0, -1], 10)
    )
    table = outcomes(tmp_path, [path])
    assert failed(table) == ["solver_succeeds"]
    assert table.value["solver_succeeds"] == 0.5


def test_a_model_without_an_ode_has_no_solver_to_check(tmp_path):
    where = {"model": "RES", "tolerance": None}
    clean = write_evaluation(tmp_path, N, **where)
    table = outcomes(tmp_path, write_suite(tmp_path, N, 0.9, 0.5, **where), clean=clean)
    assert {check.name for check in checks.CHECKS if check.ode_only}.isdisjoint(table.index)
    assert not failed(table)


def test_without_an_audit_nothing_is_claimed(tmp_path):
    table = outcomes(tmp_path, [])
    measured = table.index[table.outcome != "not measured"].tolist()
    assert measured == ["solver_succeeds"]
    assert solved()["model"] in set(table.model)
