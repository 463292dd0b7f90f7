"""Settings counted by what was found: the tables that open the topics of the report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node_robustness.report import findings
from node_robustness.report import tables as report_tables
from node_robustness.report.reservations import obstacles
from node_robustness.statistics import proportions
from node_robustness.statistics.proportions import Estimate, interval
from node_robustness.tables import evaluation
from samples import cell, masked_tables, named, tiny_tables, write_attack


def shown(name, tables):
    """The rows of a table of the report, as text by column."""
    table = report_tables.show(name, tables)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_verdicts_are_counted_with_the_largest_gap():
    solved, plain = shown("verdict_counts", masked_tables())
    assert (solved["Model"], solved["Level"], solved["Settings"]) == ("OON", "this network", "2")
    assert (solved["Masked gradient"], solved["Undecided"], solved["Broken"]) == ("1", "1", "0")
    assert solved["Largest hidden gap at"] == "τ = 1, L∞ ε = 0.1"
    assert [solved[name].split(" (")[0] for name in "PRMW"] == [
        *("90.0 %", "34.7 %", "50.0 %", "5.3 %")
    ]
    assert (plain["Model"], plain["Largest hidden gap at"], plain["P"]) == ("RES", "–", "–")


def test_broken_settings_that_the_procedure_hides_are_counted():
    verdicts = masked_tables()["verdicts"].assign(verdict="broken", procedure="hides")
    verdicts.loc[0, "procedure"] = "shows"
    solved, _ = shown("verdict_counts", {"verdicts": verdicts})
    assert (solved["Broken"], solved["Of these hidden"]) == ("2", "1")


def test_why_settings_are_undecided_is_counted():
    found = shown("undecided", masked_tables())
    because = {row["Because"]: row for row in found}
    assert because["there are too few images"]["Settings"] == "1"
    needed = masked_tables()["verdicts"].needed.max()
    assert because["there are too few images"]["Images needed"] == f"{needed:,.0f}"
    assert shown("undecided", {"verdicts": masked_tables()["verdicts"].iloc[:0]}) == []


def test_models_are_compared_under_both_procedures():
    paper, strongest = shown("model_counts", masked_tables())
    assert (paper["Model"], paper["Compared with"]) == ("OON", "RES")
    assert (paper["Under"], strongest["Under"]) == ("paper's procedure", "strongest attack")
    assert (paper["Level"], paper["Settings"]) == ("these 2 networks", "2")
    assert (paper["More robust"], strongest["More robust"]) == ("2", "0")
    assert paper["Largest difference at"] == "τ = 1, L∞ ε = 0.1"
    assert (paper["Robust"], paper["Compared"]) == ("90.0 %", "30.0 %")
    assert paper["Difference"].startswith("+60.0 (")


def test_a_ranking_that_the_procedure_reverses_is_counted():
    models = masked_tables()["models"]
    turned = models.assign(paper=0.2, strongest=-0.3, reversed=True)
    rows = shown("model_counts", {"models": turned})
    assert [row["Reversed"] for row in rows] == ["2", "2"]
    assert [row["Difference"].split(" (")[0] for row in rows] == ["+20.0", "−30.0"]
    assert {row["Reversed"] for row in shown("model_counts", {"models": models})} == {"0"}


def test_without_the_papers_attack_there_is_no_row_of_its_procedure():
    models = masked_tables()["models"].assign(paper_claim="", paper=np.nan)
    (own,) = shown("model_counts", {"models": models})
    assert own["Under"] == "strongest attack"


def test_the_claim_on_tolerances_is_counted():
    (own,) = shown("tolerance_counts", masked_tables())
    assert (own["Model"], own["Level"], own["Over τ"]) == ("OON", "this network", "0.01")
    assert (own["Settings"], own["Masked gradient"], own["Real"]) == ("1", "1", "0")
    assert own["Largest gain at"] == "τ = 1, L∞ ε = 0.1"
    assert own["Paper’s procedure"].startswith("+50.0 (")
    assert own["Strongest attack"].startswith("+0.7 (")
    unknown = masked_tables()["tolerances"].assign(paper=np.nan)
    (own,) = shown("tolerance_counts", {"tolerances": unknown})
    assert (own["Largest gain at"], own["Paper’s procedure"]) == ("–", "–")


def test_several_networks_are_named_as_such():
    tables = masked_tables(150, seeds=(0, 1))
    assert shown("model_counts", tables)[0]["Level"] == "these 4 networks"
    assert shown("verdict_counts", tables)[0]["Level"] == "these 2 networks"


def test_what_stands_in_the_way_of_every_answer_is_said():
    verdicts = masked_tables()["verdicts"].assign(verdict="undecided", because="no_paper")
    assert obstacles(verdicts)[0] == (
        "Nothing is said of the robustness of OON on toy: the paper's attack did not run."
    )
    assert obstacles(verdicts.iloc[:0]) == [
        "No attack ran: nothing is known of the robustness of these models."
    ]


def attack_table(folder: Path, rows):
    """One row for each (model, tolerance, gradient, seed, successes of 40)."""
    paths = [
        write_attack(
            folder,
            cell(f"bim_{gradient}", gradient, model=model, tolerance=tolerance, seed=seed),
            [True] * 40,
            [i < successes for i in range(40)],
        )
        for model, tolerance, gradient, seed, successes in rows
    ]
    return named(evaluation.attack_table(paths))


def test_findings_compare_no_attacks_that_left_out_images(tmp_path):
    rows = [
        ("OON", tolerance, gradient, 0, 20)
        for tolerance in (0.01, 1.0)
        for gradient in ("adjoint", "direct")
    ]
    table = attack_table(tmp_path, [*rows, ("RES", None, "direct", 0, 20)])
    counts = [len(table), len(findings.tolerance_changes(table))]
    counts += [len(findings.native_changes(table)), len(findings.gradient_changes(table))]
    assert counts == [5, 2, 1, 1]
    table["attack"] = "bim_" + table.gradient
    table.loc[(table.gradient == "direct") & (table.tolerance == 1), "skipped"] = 1
    assert [c.gradient for c in findings.tolerance_changes(table)] == ["adjoint"]
    assert findings.native_changes(table) == findings.gradient_changes(table) == []


def test_a_change_is_clear_where_every_network_shows_it(tmp_path):
    def changed(*networks: tuple[int, int]):
        rows = [
            ("OON", tolerance, "direct", seed, successes)
            for seed, counts in enumerate(networks)
            for tolerance, successes in zip((0.01, 1.0), counts, strict=True)
        ]
        (change,) = findings.tolerance_changes(attack_table(tmp_path, rows))
        return change

    both = changed((5, 25), (10, 30))
    one, other = (proportions.difference(*pair) for pair in ((25, 40, 5, 40), (30, 40, 10, 40)))
    assert both.before == pytest.approx((7.5 / 40, *interval(5, 40)[:1], interval(10, 40)[1]))
    assert both.change == pytest.approx((0.5, min(one.low, other.low), max(one.high, other.high)))
    assert both.direction == 1
    assert changed((25, 5), (30, 10)).direction == -1
    assert changed((5, 25), (10, 10)).direction == 0


def test_less_than_five_points_are_never_clear():
    sure = Estimate(0.049, 0.04, 0.06)
    change = findings.RateChange(("toy",), "OON", sure, sure, sure)
    assert change.direction == 0
    assert replace(change, change=Estimate(0.05, 0.04, 0.06)).direction == 1
    assert replace(change, change=Estimate(-0.05, -0.06, -0.04)).direction == -1


def test_networks_of_two_models_are_not_paired(tmp_path):
    """Every network of one model is compared with every network of the other."""
    rows = [("RES", None, "direct", seed, n) for seed, n in ((0, 2), (1, 30))]
    rows += [("OON", 0.01, "direct", seed, n) for seed, n in ((0, 20), (1, 40), (2, 40))]
    ((reference, change),) = findings.native_changes(attack_table(tmp_path, rows))
    assert reference == "RES"
    assert change.change.value == pytest.approx((100 / 3 - 16) / 40)
    assert change.change.low == proportions.difference(20, 40, 30, 40).low < 0
    assert change.change.high == proportions.difference(40, 40, 2, 40).high
    assert change.direction == 0


def test_findings_of_one_tolerance_compare_none(tmp_path):
    table = attack_table(tmp_path, [("OON", 0.01, "direct", 0, 3)])
    assert findings.extremes(table) is None
    assert findings.tolerance_changes(table) == []


def counted(folder, rows):
    return [
        (one.compared, one.gradients, one.settings, one.more, one.less)
        for one in findings.directions(attack_table(folder, rows))
    ]


def test_directions_compare_models_tolerances_and_gradients(tmp_path):
    rows = [
        ("RES", None, "direct", 0, 30),
        ("OON", 0.01, "adjoint", 0, 20),
        ("OON", 0.01, "direct", 0, 10),
        ("OON", 1.0, "adjoint", 0, 2),
        ("OON", 1.0, "direct", 0, 16),
    ]
    assert counted(tmp_path, rows) == [
        ("OON, τ = 0.01, against RES", "direct", 1, 0, 1),
        ("OON, τ = 1 against τ = 0.01", "adjoint", 1, 0, 1),
        ("OON, τ = 1 against τ = 0.01", "direct", 1, 0, 0),
        ("OON, τ = 1, against adjoint gradients", "direct", 1, 1, 0),
    ]
    said = findings.cautions(attack_table(tmp_path, rows))
    assert said[-1] == "An attack that fails with them is no evidence of robustness."


def test_directions_name_attacks_without_gradients(tmp_path):
    rows = [("RES", None, "none", 0, 9), ("OON", 0.01, "none", 0, 30), ("OON", 1.0, "none", 0, 1)]
    assert counted(tmp_path, rows) == [
        ("OON, τ = 0.01, against RES", "none", 1, 1, 0),
        ("OON, τ = 1 against τ = 0.01", "none", 1, 0, 1),
    ]
    (caution,) = findings.cautions(attack_table(tmp_path, rows))
    assert caution == "That these attacks fail more often is no evidence that others would."


def test_directions_name_the_networks(tmp_path):
    rows = [
        (model, tolerance, "direct", seed, successes)
        for seed in (0, 1)
        for model, tolerance, successes in (("RES", None, 9), ("OON", 0.01, 30), ("OON", 1.0, 1))
    ]
    native, tolerances = findings.directions(attack_table(tmp_path, rows))
    assert native.of == "these 2 networks of OON, these 2 networks of RES"
    assert (tolerances.of, tolerances.less) == ("these 2 networks of OON", 1)


def test_cautions_where_only_adjoint_gradients_attacked(tmp_path):
    rows = [("OON", 0.01, "adjoint", 0, 30), ("OON", 1.0, "adjoint", 0, 1)]
    said = findings.cautions(attack_table(tmp_path, rows))
    assert "This run has no attack with direct gradients to compare them with." in said


def test_no_caution_without_a_fall(tmp_path):
    rows = [("OON", 0.01, "direct", 0, 30), ("OON", 1.0, "direct", 0, 30)]
    assert findings.cautions(attack_table(tmp_path, rows)) == []


def test_of_no_attacks_nothing_is_counted():
    attacks = tiny_tables()["attacks"].iloc[:0]
    assert findings.directions(attacks) == []
    assert findings.cautions(attacks) == []
