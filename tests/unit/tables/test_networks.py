"""The table of networks, and how it names the tolerances of other tables."""

import math

import pytest

from node_robustness.tables.frame import tau_of, tau_words, without_tolerance
from node_robustness.tables.networks import own_tolerances
from samples import own_tables, tiny_tables


@pytest.fixture(scope="module")
def networks():
    return own_tables()["networks"].set_index("model")


def test_every_network_has_a_row(networks):
    assert networks.kind.to_dict() == {
        "RES": "built-in",
        "plain": "own",
        "steps": "own",
        "theirs": "own",
    }
    assert networks.ode.to_dict() == {"RES": False, "plain": False, "steps": True, "theirs": True}
    assert networks.audit_level.fillna(-1).tolist() == [-1, 0, 1, 1]


def test_own_models_say_how_they_are_solved(networks):
    theirs = networks.loc["theirs"]
    assert theirs.module == "models/theirs.py"
    assert (theirs.solves, theirs.ways) == ("net.1 (dopri5); net.5 (dopri5)", "broadcast; vmap")
    assert (theirs.own_rtol, theirs.own_atol) == (0.01, 0.001)
    assert networks.loc["steps", ["own_rtol", "own_atol"]].isna().all()
    assert theirs.evaluations == "10; 20"
    assert networks.loc["steps"].ways == "image by image"
    assert (networks.loc["RES", ["module", "solves", "ways", "limits", "failed"]] == "").all()


def test_what_cannot_be_measured_is_said_once_a_network(networks):
    assert networks.loc["steps"].limits == (
        "torchdiffeq solves image by image, because it has events. Its solve cannot be followed."
    )
    assert networks.loc["theirs"].limits == ""


def test_failed_checks_are_quoted(networks):
    assert networks.checks.to_dict() == {"RES": 0, "plain": 2, "steps": 3, "theirs": 2}
    assert networks.loc["theirs"].failed == "A <b>gradient</b> is 0."
    # What limits it is said once.
    assert networks.loc["steps"].failed == "A <b>gradient</b> is 0."


def test_own_settings_correspond_to_the_larger_tolerance(networks):
    assert own_tolerances(networks.reset_index()) == {"theirs": 0.01}


def test_tables_say_what_stands_for_a_tolerance():
    for name, table in own_tables().items():
        if {"model", "tolerance"} <= {*table.columns}:
            found = set(zip(table.model, table.tau, strict=True))
            assert found <= {
                *(("RES", "no ODE"), ("plain", "no ODE"), ("steps", "own")),
                *(("theirs", tau) for tau in ("0.001", "0.1", "own")),
            }, name
    assert set(tiny_tables()["clean"].tau) == {"0.01", "1", "no ODE"}


def test_a_tolerance_is_a_number_own_or_none():
    assert [tau_of(tau, ode) for tau, ode in ((0.1, True), (None, True), (math.nan, False))] == [
        *("0.1", "own", "no ODE")
    ]
    assert [*map(tau_words, ("0.1", "own", "no ODE"))] == ["τ = 0.1", "own settings", "no ODE"]
    assert without_tolerance(own_tables()["clean"]) == ["RES", "plain", "steps"]


def test_files_without_results_have_no_rows():
    tables = own_tables()
    for name in ("trajectories", "trajectory_images", "dynamics", "audit", "shares"):
        assert "steps" not in set(tables[name].model), name
        assert "theirs" in set(tables[name].model), name
