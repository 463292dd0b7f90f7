"""Verdicts on models of the user: the tolerances are compared with the author's settings."""

import pytest

from node_robustness.verdict.pairs import Reference, References
from samples import own_tables


def test_larger_tolerances_are_compared_with_the_own_settings():
    (row,) = own_tables()["tolerances"].itertuples()
    assert (row.model, row.tolerance, row.tau) == ("theirs", 0.1, "0.1")
    assert row.reference != row.reference  # NaN stands for the own settings
    assert (row.paper, row.strongest) == (pytest.approx(0.5), 0)
    assert row.claim == "masked"


def test_the_reference_of_a_model():
    references = References({"OON": 0.1, "theirs": 0.1}, {"theirs": 0.01, "other": 0.01})
    assert references.of("theirs", [0.001, 0.1, None]) == Reference(None, 0.01)
    # Without a run at its own settings it is a model like any other.
    assert references.of("theirs", [0.001, 0.1]) == Reference(0.1, 0.1)
    assert references.of("OON", [0.001, 0.1, 1.0]) == Reference(0.1, 0.1)
    assert references.of("MIX", [1.0, 0.001]) == Reference(0.001, 0.001)
    assert references.of("RES", [None]) is None
    below = Reference(None, 0.01)
    assert [below.below(tau) for tau in (None, 0.001, 0.01, 0.1)] == [False, False, False, True]


def test_models_with_an_ode_are_compared_with_those_without_at_every_tolerance():
    found = own_tables()["models"]
    assert set(zip(found.model, found.tau, found.reference_model, strict=True)) == {
        (model, tau, reference)
        for model, taus in {"theirs": ["0.001", "0.1", "own"], "steps": ["own"]}.items()
        for tau in taus
        for reference in ("RES", "plain")
    }


def test_every_setting_has_a_verdict():
    verdicts = own_tables()["verdicts"].set_index(["model", "tau"])
    assert verdicts.index.is_unique
    assert verdicts.verdict["theirs", "0.1"] == "masked"
    assert verdicts.verdict["theirs", "own"] == "under-searched"


def test_checks_say_what_an_audit_lacks():
    checks = own_tables()["checks"]
    steps = checks[(checks.model == "steps") & (checks.check == "gradients_describe")]
    assert steps.outcome.tolist() == ["not measured"]
    assert steps.reason.tolist() == ["Its solve cannot be followed."]
