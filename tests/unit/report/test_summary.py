import pandas as pd
import pytest

from node_robustness.report.summary import NOT_MEASURED, asked, claims
from samples import masked_tables, tiny_tables


def said(tables):
    return {claim.key: claim for claim in claims(tables)}


def test_what_was_asked_is_one_sentence():
    tables = masked_tables(seeds=(0, 1))
    assert asked(tables) == (
        "How robust are OON and RES (2 networks each) on toy to perturbations of L∞ ε = 0.1, at 2 "
        "solver tolerances from τ = 0.01 to 1, under 7 attacks on 150 test images?"
    )
    nothing = tables["attacks"].iloc[:0]
    assert asked(tables | {"attacks": nothing}).startswith("How accurate are OON and RES (2 ")
    assert asked({name: tables[name].iloc[:0] for name in ("clean", "attacks")}) == (
        "Nothing was measured."
    )


def test_the_three_claims_in_their_order():
    found = claims(masked_tables())
    assert [claim.key for claim in found] == ["models", "tolerances", "dynamics"]
    assert all(claim.question.endswith("?") and claim.paper for claim in found)
    assert all(claim.answer.count(".") == 1 and claim.answer.endswith(".") for claim in found)
    assert all(len(claim.answer) < 250 for claim in found)


def test_what_was_not_measured_is_said_with_its_reason():
    tables = masked_tables()
    for key, why in {"models": "have no setting in common", "tolerances": "two tolerances"}.items():
        own = said(tables | {key: tables[key].iloc[:0]})[key]
        assert (own.answer, own.sure, own.figure) == (NOT_MEASURED, "not measured", None)
        assert why in own.how_sure
    empty = {name: tables[name].iloc[:0] for name in ("verdicts", "models", "tolerances")}
    assert [claim.how_sure for claim in claims(empty)][:2] == ["No attack ran."] * 2


def test_a_masked_gain_is_not_called_protection():
    own = said(masked_tables())["tolerances"]
    assert own.answer.startswith("A larger tolerance is not shown to protect in the one setting: ")
    assert "in 1 it mainly spoils the gradient that the paper's attack follows" in own.answer
    assert own.sure == "shown"
    assert own.how_sure == (
        "Of this network, 150 test images; exact tests, corrected for all settings."
    )


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_more_robust_is_said_of_as_many_settings_as_show_it(shown):
    tables = masked_tables()
    strongest = ["more"] * shown + ["undecided"] * (2 - shown)
    own = said(tables | {"models": tables["models"].assign(strongest_claim=strongest)})["models"]
    start = {
        0: "No ODE net is shown to be more robust in any of 2 settings",
        1: "OON is more robust than RES in 1 of 2 settings",
        2: "OON is more robust than RES in all 2 settings",
    }
    assert own.answer.startswith(start[shown])
    assert own.sure == ["not shown", "in part", "shown"][shown]


def test_nothing_left_is_nothing_to_compare():
    tables = masked_tables()
    models = tables["models"].assign(strongest_robust=0.0, strongest_reference=0.0)
    tolerances = tables["tolerances"].assign(because="nothing_left")
    found = said(tables | {"models": models, "tolerances": tolerances})
    assert {found[key].sure for key in ("models", "tolerances")} == {"not shown"}
    assert "leaves no image to compare in any of 2 settings" in found["models"].answer


def dynamics(*kinds):
    row = {"dataset": "toy", "model": "OON", "n": 40, "level": "this network", "because": ""}
    return pd.DataFrame([row | {"claim": claim} for claim in kinds])


def test_the_part_to_blame():
    tables = tiny_tables()
    assert said(tables)["dynamics"].answer == NOT_MEASURED
    own = said(tables | {"dynamics": dynamics("before", "spread", "undecided")})["dynamics"]
    assert own.answer == (
        "No part of the dynamics is pinpointed in any of 3 settings: in 1 more than half of the "
        "harm to the decision is done before the dynamics begin, in 1 it is spread over them."
    )
    assert (own.sure, "undecided in 1 of 3" in own.how_sure) == ("in part", True)
    own = said(tables | {"dynamics": dynamics("pinpointed", "pinpointed")})["dynamics"]
    assert "more than half of the harm in all 2 settings" in own.answer
    none = dynamics("undecided").assign(because="no_adversarial")
    assert (
        "No adversarial example was found" in said(tables | {"dynamics": none})["dynamics"].answer
    )
