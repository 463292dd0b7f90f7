import math
import re

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_robustness.report.overviews import undecided
from node_robustness.report.summary import NOT_MEASURED, answers, asked, claims
from node_robustness.tables.frame import tau_of
from node_robustness.verdict.models import model_table
from node_robustness.verdict.tolerances import tolerance_table
from node_robustness.verdict.verdicts import verdict_table
from samples import masked_tables, named, own_tables


def said(tables):
    return {claim.key: claim for claim in claims(tables)}


def test_what_was_asked_is_one_sentence():
    tables = masked_tables(seeds=(0, 1))
    assert asked(tables) == (
        "How robust are OON (with an ODE) and RES (without), 2 networks each, on toy to "
        "perturbations of L∞ ε = 0.1, at 2 solver tolerances τ = 0.01 to 1, under 7 attacks on 150 "
        "test images?"
    )
    nothing = tables["attacks"].iloc[:0]
    assert asked(tables | {"attacks": nothing}).startswith("How accurate are OON (with an ODE)")
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
    assert own.answer.startswith("A larger tolerance is not shown to protect in the one setting; ")
    assert own.answer.endswith(
        "in 1 it mainly masks the gradient and so misleads the paper's attack."
    )
    assert own.sure == "shown"
    assert own.how_sure == (
        "Exact tests on 150 test images of this network, corrected for all settings."
    )


@pytest.mark.parametrize("shown", [0, 1, 2])
def test_more_robust_is_said_of_as_many_settings_as_show_it(shown):
    tables = masked_tables()
    strongest = ["more"] * shown + ["undecided"] * (2 - shown)
    own = said(tables | {"models": tables["models"].assign(strongest_claim=strongest)})["models"]
    start = {
        0: "Against the strongest attack no ODE net is shown to be more robust than RES in any",
        1: "Against the strongest attack OON is more robust than RES in 1 of 2 settings",
        2: "Against the strongest attack OON is more robust than RES in all 2 settings",
    }
    assert own.answer.startswith(start[shown])
    assert own.sure == ["not shown", "in part", "shown"][shown]


def test_nothing_left_is_nothing_to_compare():
    tables = masked_tables()
    models = tables["models"].assign(strongest_robust=0.0, strongest_reference=0.0)
    tolerances = tables["tolerances"].assign(because="nothing_left")
    found = said(tables | {"models": models, "tolerances": tolerances})
    assert {found[key].sure for key in ("models", "tolerances")} == {"not shown"}
    assert "the strongest attack leaves no image in any of 2 settings" in found["models"].answer


def dynamics(*kinds, tolerance=1.0, particular=1.0, patch="undecided"):
    row = {"dataset": "toy", "model": "OON", "n": 40, "level": "this network", "because": ""}
    row |= {
        "tolerance": tolerance,
        "tau": tau_of(tolerance, ode=False),
        "particular": particular,
        "patch": patch,
        "networks": 1,
    }
    return pd.DataFrame([row | {"claim": claim} for claim in kinds])


def test_the_part_to_blame():
    tables = masked_tables()
    nothing = {"dynamics": pd.DataFrame()}
    assert said(tables | nothing)["dynamics"].answer == NOT_MEASURED
    own = said(tables | {"dynamics": dynamics("before", "spread", "undecided")})["dynamics"]
    assert own.answer == (
        "No single part of the dynamics is shown to do half of the harm in any of 3 settings; in 1 "
        "most of it is owed to what enters the ODE, and in 1 it is spread."
    )
    assert own.sure == "in part"
    assert own.how_sure == (
        "Exact tests on 40 misled images of this network, corrected for all settings; beyond "
        "noise and another image's change in 1 of 1; 1 of 3 settings undecided."
    )
    own = said(tables | {"dynamics": dynamics("pinpointed", "pinpointed")})["dynamics"]
    assert own.answer.endswith("does more than half of the harm in all 2 settings.")
    own = said(tables | {"dynamics": dynamics("before", tolerance=math.nan)})["dynamics"]
    assert own.answer.endswith("in 1 most of it is owed to what enters the dynamics.")


def test_what_controls_do_too_is_not_called_particular():
    found = dynamics("pinpointed", particular=0.0)
    own = said(masked_tables() | {"dynamics": found})["dynamics"]
    assert "beyond noise and another image's change in 0 of 1" in own.how_sure
    own = said(masked_tables() | {"dynamics": found.assign(particular=math.nan)})["dynamics"]
    assert "another image" not in own.how_sure


def test_what_a_repair_shows_stands_next_to_the_shares():
    found = pd.concat([dynamics("spread", patch="necessary"), dynamics("before")])
    own = said(masked_tables() | {"dynamics": found.assign(model=["OON", "MIX"])})["dynamics"]
    assert own.answer.endswith(
        "in 1 (MIX) most of it is owed to what enters the ODE, and in 1 (OON) it is spread, though "
        "undoing one window restores most decisions in 1."
    )


def test_without_adversarial_examples_nothing_is_to_blame():
    found = dynamics("undecided").assign(because="no_adversarial")
    own = said(masked_tables() | {"dynamics": found})["dynamics"]
    assert own.answer.startswith("No adversarial example was found in the one setting")
    assert own.sure == "not shown"


def test_models_are_named_with_their_datasets_where_there_are_several():
    tables = masked_tables()
    models = pd.concat([tables["models"], tables["models"].assign(dataset="other")])
    own = said(tables | {"models": models.assign(strongest_claim="less")})["models"]
    assert "OON on toy is less robust in 2 and OON on other in 2" in own.answer


COLUMNS = {
    "models": {
        "model": ["MIX", "OON"],
        "dataset": ["toy", "other"],
        "paper_claim": ["more", "less", "equivalent", "undecided", ""],
        "strongest_claim": ["more", "less", "equivalent", "undecided"],
        "strongest_robust": [0.0, 0.5],
        "networks": [1, 5],
    },
    "tolerances": {
        "model": ["MIX", "OON"],
        "dataset": ["toy", "other"],
        "claim": ["real", "masked", "reversed", "none", "undecided"],
        "because": ["", "nothing_left"],
        "networks": [1, 5],
    },
    "dynamics": {
        "model": ["MIX", "OON"],
        "dataset": ["toy", "other"],
        "claim": ["pinpointed", "before", "spread", "undecided"],
        "because": ["", "no_adversarial"],
        "particular": [1.0, 0.0, math.nan],
        "patch": ["necessary", "sufficient", "both", "neither", "undecided"],
        "tolerance": [1.0, math.nan],
        "networks": [1, 5],
    },
}
CONSTANT = {"n": 100, "strongest_reference": 0.0, "reference_networks": 1}
CONSTANT |= {"reference_model": "RES", "level": "these networks"}
FAVOURABLE = {
    "models": ("strongest_claim", "more", "is more robust than", "are more robust than"),
    "tolerances": ("claim", "real", "A larger tolerance protects", "A larger tolerance protects"),
    "dynamics": ("claim", "pinpointed", "One part", "One part"),
}
COMPARABLE = {
    "models": lambda table: table.strongest_robust > 0,
    "tolerances": lambda table: table.because == "",
    "dynamics": lambda table: table.because == "",
}


CLAUSES = {
    "models": {
        r"more robust in (\d+) against the paper's attack": lambda left: (
            (left.paper_claim == "more") & (left.strongest_claim != "more")
        ),
    },
    "tolerances": {
        r"in (\d+) it mainly masks": lambda left: left.claim == "masked",
        r"in (\d+) it makes": lambda left: left.claim == "reversed",
    },
    "dynamics": {
        r"in (\d+)(?: \([^)]*\))? most of it is owed to what enters": lambda left: (
            left.claim == "before"
        ),
        r"in (\d+)(?: \([^)]*\))? it is spread": lambda left: left.claim == "spread",
    },
}
"""How an answer says in how many settings each thing is shown."""


@pytest.mark.parametrize("key", COLUMNS)
@given(data=st.data())
def test_an_answer_never_says_more_than_its_table(key, data):
    choices = {name: st.sampled_from(values) for name, values in COLUMNS[key].items()}
    rows = data.draw(st.lists(st.fixed_dictionaries(choices), max_size=12))
    table = pd.DataFrame([row | CONSTANT for row in rows])
    if "tolerance" in table:
        table["tau"] = [tau_of(tolerance, ode=False) for tolerance in table.tolerance]
    tables = {name: pd.DataFrame() for name in COLUMNS}
    tables["verdicts"] = masked_tables()["verdicts"]
    own = said(tables | {key: table})[key]
    assert own.answer.endswith(".")
    assert own.answer[:-1].count(".") == 0
    assert len(own.answer) < 250
    assert len(own.how_sure) < 250
    if table.empty:
        assert (own.answer, own.sure) == (NOT_MEASURED, "not measured")
        return
    column, favourable, *phrases = FAVOURABLE[key]
    left = table[COMPARABLE[key](table)]
    assert any(phrase in own.answer for phrase in phrases) == (left[column] == favourable).any()
    undecided = (left[column] == "undecided").sum()
    expected = "in part" if 0 < undecided < len(left) else "not shown"
    assert own.sure == ("shown" if len(left) and not undecided else expected)
    for phrase, rows in CLAUSES[key].items():
        found = re.findall(phrase, own.answer)
        assert found == ([str(rows(left).sum())] if rows(left).any() else [])


RUNS = {
    "one model without an ODE": lambda own: own[own.model == "RES"],
    "no model without an ODE": lambda own: own[own.model != "RES"],
    "one tolerance": lambda own: own[own.tolerance.isna() | (own.tolerance == 1.0)],
    "nothing attacked": lambda own: own.iloc[:0],
    "everything": lambda own: own,
}


@pytest.mark.parametrize("networks", [1, 2, 5])
@pytest.mark.parametrize("chosen", RUNS.values(), ids=RUNS)
def test_any_run_has_three_answers(chosen, networks):
    tables = masked_tables(seeds=tuple(range(networks)))
    clean, protocols, pairs = (tables[name] for name in ("clean", "protocols", "pairs"))
    protocols = chosen(protocols)
    there = set(zip(protocols.model, protocols.tolerance.fillna(-1), strict=True))
    references = zip(pairs.reference_model.fillna(""), pairs.reference_tolerance, strict=True)
    known = [
        (own in there)
        and (model in {"", *protocols.model})
        and (pd.isna(tau) or (own[0], tau) in there)
        for own, (model, tau) in zip(
            zip(pairs.model, pairs.tolerance.fillna(-1), strict=True), references, strict=True
        )
    ]
    verdicts = named(verdict_table(protocols, tables["checks"]))
    compared = pairs[known]
    run = {
        "clean": chosen(clean) if len(protocols) else clean,
        "attacks": chosen(tables["attacks"]),
        "verdicts": verdicts,
        "models": model_table(compared, {}),
        "tolerances": tolerance_table(compared, verdicts, {}),
    }
    assert asked(run).endswith("?")
    models, tolerances, _ = claims(run)
    measured = {
        "everything": (True, True),
        "one tolerance": (True, False),
        "no model without an ODE": (False, True),
    }.get(next(name for name, make in RUNS.items() if make is chosen), (False, False))
    assert (models.sure != "not measured", tolerances.sure != "not measured") == measured
    assert all(claim.how_sure.endswith(".") for claim in (models, tolerances))


@pytest.mark.parametrize(
    ("model", "question", "answer"),
    [
        (
            "theirs",
            "Is the robustness at own settings real?",
            "At L∞ ε = 0.1 the paper's attack leaves 40.0 %, corrected gradients 40.0 % and the "
            "strongest attack 21.3 %: ",
        ),
        (
            "plain",
            "Is the robustness real?",
            "At L∞ ε = 0.1 the paper's attack leaves 60.0 %, corrected gradients 60.0 % and the "
            "strongest attack 26.7 %: ",
        ),
    ],
)
def test_a_model_with_none_to_compare_with_is_asked_whether_it_is_robust(model, question, answer):
    tables = own_tables(models=(model,))
    first, *others = answers(tables, {})
    assert (first.question, first.topic, first.paper) == (question, "verdicts", "")
    (row,) = tables["verdicts"][tables["verdicts"].tau.isin(["own", "no ODE"])].itertuples()
    why = undecided(row.because, row.needed) if row.verdict == "undecided" else row.verdict
    assert first.answer == f"{answer}{why}."
    assert first.how_sure.startswith("Exact tests on 150 test images of this network")
    assert first.sure == ("not shown" if row.verdict == "undecided" else "shown")
    assert others == claims(tables)[1:]


def test_a_built_in_model_is_asked_at_its_training_tolerance():
    tables = masked_tables()
    verdicts = tables["verdicts"]
    tables |= {"verdicts": verdicts[verdicts.model == "OON"], "models": tables["models"].iloc[:0]}
    first, *_ = answers(tables, {"OON": {"solver": {"tolerance": 1.0}}})
    assert first.question == "Is the robustness at τ = 1 real?"
    assert first.answer.endswith("the strongest attack 34.7 %: masked.")


def test_an_undecided_verdict_says_why_and_what_it_takes():
    tables = own_tables(models=("theirs",))
    found = {"verdict": "undecided", "because": "images", "needed": 1234.0, "corrected": math.nan}
    first, *_ = answers(tables | {"verdicts": tables["verdicts"].assign(**found)}, {})
    assert first.answer == (
        "At L∞ ε = 0.1 the paper's attack leaves 40.0 % and the strongest attack 21.3 %: "
        "undecided: there are too few images; it takes at least 1,234 images."
    )
    assert first.sure == "not shown"
    assert first.how_sure.endswith("Images needed: if the shares stay so.")
    found |= {"because": "attacks", "needed": math.nan}
    first, *_ = answers(tables | {"verdicts": tables["verdicts"].assign(**found)}, {})
    assert first.answer.endswith(
        "undecided: the attacks are too weak to show that robustness survives."
    )


def test_many_settings_are_counted_by_their_verdict():
    tables = own_tables(models=("theirs", "steps"))
    verdicts = tables["verdicts"]
    own = verdicts[verdicts.tau == "own"]
    two, six = (
        pd.concat([own.assign(epsilon=epsilon / 10) for epsilon in range(1, count + 1)])
        for count in (1, 3)
    )
    first, *_ = answers(tables | {"verdicts": two}, {})
    assert first.answer.count("the strongest attack") == 2
    assert "theirs at L∞ ε = 0.1 the paper's" in first.answer
    six = six.assign(verdict=["broken"] * 2 + ["masked"] * 4)
    first, *_ = answers(tables | {"verdicts": six}, {})
    assert first.answer == "Of 6 settings: broken in 2 and masked in 4."


def test_where_models_are_compared_or_nothing_ran_the_three_claims_stay():
    tables = masked_tables()
    assert answers(tables, {}) == claims(tables)
    empty = {name: tables[name].iloc[:0] for name in ("verdicts", "models", "tolerances")}
    assert answers(empty, {}) == claims(empty)
