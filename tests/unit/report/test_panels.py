import json

import pandas as pd

from node_robustness.report.panels import SIGNS, grid, panels
from node_robustness.verdict.verdicts import VERDICTS
from samples import masked_tables, measured_report


def test_a_grid_has_every_setting_once():
    tables = masked_tables()
    (own,) = grid(tables)
    assert (own.dataset, own.columns) == ("toy", ["L∞ ε = 0.1"])
    assert [(row.model, row.tau) for row in own.rows] == [
        ("OON", "0.01"),
        ("OON", "1"),
        ("RES", "no ODE"),
    ]
    fields = [field for row in own.rows for field in row.fields]
    assert [field.id for field in fields] == [
        "toy/OON/tau-0.01/linf/0.1",
        "toy/OON/tau-1/linf/0.1",
        "toy/RES/tau-none/linf/0.1",
    ]
    assert fields[1].verdict == "masked"
    assert fields[1].about == (
        "OON at τ = 1, L∞ ε = 0.1: masked, 35 % robust under the strongest attack"
    )
    assert set(SIGNS) == set(VERDICTS)
    assert len(set(SIGNS.values())) == len(VERDICTS)


def test_a_setting_that_was_not_attacked_is_an_empty_field():
    tables = masked_tables()
    other = tables["verdicts"].iloc[:1].assign(epsilon=0.3, norm="l2")
    verdicts = pd.concat([tables["verdicts"], other], ignore_index=True)
    (own,) = grid({"verdicts": verdicts})
    assert own.columns == ["L∞ ε = 0.1", "L2 ε = 0.3"]
    assert [[field is None for field in row.fields] for row in own.rows] == [
        [False, False],
        [False, True],
        [False, True],
    ]


def test_fields_in_which_nothing_is_left_say_nothing():
    verdicts = masked_tables()["verdicts"].iloc[:1]
    cases = {
        ("broken", "shows", "broken"): False,
        ("broken", "hides", "broken"): True,
        ("undecided", "open", "no_correct"): False,
        ("undecided", "open", "images"): True,
    }
    for (verdict, procedure, because), says in cases.items():
        own = verdicts.assign(verdict=verdict, procedure=procedure, because=because)
        assert grid({"verdicts": own})[0].rows[0].fields[0].says_something is says


def test_an_attack_is_not_said_to_break_what_it_skipped():
    tables, _ = measured_report()
    attacks = tables["attack_suite"].assign(attacked=3, successes=1)
    for panel in panels(tables | {"attacks": attacks}, {}):
        assert {(own["tried"], own["broken"]) for own in panel["deciding"]} == {(3, 1)}


def test_a_panel_has_what_is_known_of_its_setting():
    tables, charts = measured_report()
    found = panels(tables, charts)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    fields = [f for own in grid(tables) for row in own.rows for f in row.fields if f]
    assert [panel["id"] for panel in found] == [field.id for field in fields]
    own = found[1]
    assert (own["title"], own["verdict"], own["images"]) == (
        "OON at τ = 1, L∞ ε = 0.1",
        "masked",
        150,
    )
    assert own["robust"]["paper"]["value"] == 0.9
    assert own["robust"]["paper"]["low"] < 0.9 < own["robust"]["paper"]["high"]
    assert own["networks"] == []
    assert own["masked"]["value"] == 0.5
    alone = [attack["alone"] for attack in own["deciding"]]
    assert alone == sorted(alone, reverse=True)
    outcomes = [check["outcome"] for check in own["checks"]]
    assert outcomes[0] != "passed"
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == "passed")
    assert [claim["claim"] for claim in own["claims"]] == ["more → undecided", "masked"]
    assert own["shares"] == []
    curve = next(one for one in own["trajectory"] if one["group"] == "success")
    assert len(curve["t"]) == len(curve["distance"]) == len(curve["margin"]) == 5
    assert "results/tiny/toy/OON/seed-0/tau-1/clean.h5" in own["files"]
    assert "results/tiny/toy/OON/seed-0/tau-1/bim/linf/eps-0.1/trajectory.h5" in own["files"]


def test_the_pictures_of_a_panel_are_those_of_its_setting():
    tables, charts = measured_report()
    by_id = {panel["id"]: panel["examples"] for panel in panels(tables, charts)}
    pictures = by_id["toy/RES/tau-none/linf/0.1"][0]["pictures"]
    assert [picture["part"] for picture in pictures] == ["clean", "perturbation", "adversarial"]
    assert all(picture["url"].startswith("data:image/png;base64,") for picture in pictures)
    assert by_id["toy/OON/tau-1/linf/0.1"] == []


def test_several_networks_have_a_row_each():
    found = panels(masked_tables(seeds=(0, 1)), {})
    assert [network["seed"] for network in found[0]["networks"]] == [0, 1]


def test_shares_are_fractions_with_their_intervals():
    tables = masked_tables()
    row = {"dataset": "toy", "model": "OON", "seed": 0, "tolerance": 1.0, "attack": "bim"}
    row |= {"norm": "linf", "epsilon": 0.1, "perturbation": "strong", "player": "h(0)", "n": 20}
    row |= {"start": float("nan"), "end": 0.0, "fraction": 0.4, "fraction_low": 0.3}
    shares = pd.DataFrame([row | {"fraction_high": 0.5}])
    _, own, plain = panels(tables | {"shares": shares}, {})
    assert plain["shares"] == []
    (share,) = own["shares"]
    assert (share["value"], share["low"], share["start"]) == (0.4, 0.3, None)
