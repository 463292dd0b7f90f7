import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from node_robustness.errors import UserError
from node_robustness.figures.catalogue import FIGURES
from node_robustness.provenance.costs import job_costs
from node_robustness.report import findings
from node_robustness.report.answers import answers, of_models
from node_robustness.report.html import render_report
from node_robustness.report.paper import ACCURACY
from node_robustness.statistics import proportions
from node_robustness.statistics.proportions import Estimate, interval
from node_robustness.tables import evaluation
from node_robustness.tables.examples import example_table
from node_robustness.verdict.claims import claim, read_claim
from samples import (
    MANIFEST,
    SUITE,
    cell,
    draw,
    masked_tables,
    measured_report,
    solved,
    tiny_tables,
    write_attack,
    write_clean,
    write_report,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, "<script>alert(1)</script>").read_text()


def test_names_and_configuration_are_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "</pre><b>" not in page


def test_names_of_classes_are_escaped(tmp_path):
    """They are the user's own, any text, and stand in the figures of images."""
    measured, charts = measured_report()
    name = "</script><img src=x onerror=alert(1)>"
    renamed = json.loads(json.dumps(charts).replace("zero", name))
    assert renamed["examples"] != charts["examples"]
    path = tmp_path / "report.html"
    render_report("toy", measured, renamed, MANIFEST, None, path)
    text = path.read_text()
    assert name not in text
    drawn = re.search(r'<script[^>]*id="spec-examples">(.*?)</script>', text)
    assert name in json.dumps(json.loads(drawn[1]))


def test_the_page_needs_nothing_else(page):
    assert "default-src 'none'" in page
    markup = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    loaded = re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="([^"]*)"', markup)
    assert loaded
    assert all(address.startswith("data:") for address in loaded)


def test_every_figure_of_the_catalogue_is_shown_once_and_no_other(page):
    assert sorted(re.findall(r'id="figure-([^"]*)"', page)) == sorted(FIGURES)


def test_the_page_tells_what_ran(page):
    assert "1:02:05" in page
    assert "torch 2.0" in page
    assert "not in a git checkout" in page
    assert "<code>snakemake --cores 2</code>" in page
    assert "node01, node02" in page


def test_the_page_tells_what_it_cost(page):
    assert 'id="figure-costs"' in page
    caption = "The jobs of 5, the longest first; costs.csv has all of them."
    rows = page[page.rindex(caption) :]
    cells = re.findall(r"<tr><td>(.*)</td></tr>", rows)[:5]
    assert [row.split("</td><td>")[0] for row in cells] == [
        "train",
        "attack",
        "evaluate",
        "attack",
        "prepare",
    ]
    attack = "attack|toy|OON|0|0.01|bim|L∞ norm|0.1|8.0|8.0|100|20.0|–"
    assert cells[1] == attack.replace("|", "</td><td>")
    assert cells[4].startswith("prepare</td><td>–</td><td>–")


def test_the_answer_comes_first(page):
    assert (
        page.index('id="answer"') < page.index('id="figure-verdicts"') < page.index('id="findings"')
    )
    assert "OON on toy (this network): masked gradient in 1" in html.unescape(page)
    assert (
        "at τ\u00a0=\u00a01, L∞ ε\u00a0=\u00a00.1: 90.0\u00a0% under the paper's procedure"
        in html.unescape(page)
    )
    assert "<td>masked</td>" in page


def test_what_was_not_measured_is_said(tmp_path):
    collected = tiny_tables()
    charts = draw(collected, example_table([]))
    specs = {key: json.loads(json.dumps(chart.to_dict())) for key, chart in charts.items()}
    collected["costs"] = job_costs([], collected)
    render_report("tiny", collected, specs, MANIFEST, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    line = re.search("Not measured in this run: ([^<]*)", page)[1]
    assert [part.split("(")[1] for part in line.split("; ")] == [
        "audit)",
        "matrix)",
        "randomisation)",
        "detection)",
        "adjoint_sweep)",
        "cost).",
    ]
    assert 'id="figure-audit"' not in page
    assert 'id="figure-costs"' not in page
    assert "the paper&#39;s attack did not run (6)" in page


ASKED = ("verdicts", "models", "tolerances")


def test_answers_of_masked_robustness():
    collected = masked_tables()
    text = "\n".join(answers(*(collected[key] for key in ASKED)))
    assert "Under the paper's procedure, OON against RES on toy (these 2 networks): " in text
    assert "more robust in 2 of 2 settings" in text
    assert "The largest difference is at τ = 1, L∞ ε = 0.1: 90.0 % against 30.0 %." in text
    assert "gain OON on toy (this network): masked gradient in 1 of 1 setting. The paper's" in text
    assert "+50.0 points; there the strongest attack shows +0.7 points." in text
    assert "OON on toy (this network): masked gradient in 1 and undecided in 1 of 2 " in text
    assert "90.0 % under the paper's procedure, 34.7 % under the strongest attack; 50.0 " in text
    assert "points are masked gradient, 5.3 points weak search." in text
    assert "there are too few images (1)" in text


def test_a_ranking_that_the_procedure_reverses_is_said():
    models = masked_tables()["models"]
    turned = models.assign(paper=0.2, strongest=-0.3, reversed=True)
    sentence = of_models(turned)[-1]
    assert sentence.startswith("The paper's procedure reverses the ranking of OON and RES in 2 of")
    assert sentence.endswith("+20.0 points under it, −30.0 points under the strongest attack.")
    assert "reverses" not in " ".join(of_models(models.assign(reversed=False)))


def test_what_stands_in_the_way_of_every_answer_comes_first():
    collected = masked_tables()
    verdicts = collected["verdicts"].assign(verdict="undecided", because="no_paper")
    found = answers(verdicts, collected["models"], collected["tolerances"])
    assert found[0] == (
        "Nothing is said of the robustness of OON on toy: the paper's attack did not run."
    )


def test_several_networks_are_named_as_such():
    collected = masked_tables(150, seeds=(0, 1))
    text = "\n".join(answers(*(collected[key] for key in ASKED)))
    assert "OON against RES on toy (these 4 networks)" in text
    assert "OON on toy (these 2 networks): masked gradient" in text


def test_answers_of_no_attack():
    collected = tiny_tables()
    empty = [collected[key].iloc[:0] for key in ASKED]
    assert answers(*empty) == ["No attack ran: nothing is known of the robustness of these models."]


def test_a_claim_travels_with_what_it_rests_on():
    collected = masked_tables()
    place = {"experiment": "tiny", "dataset": "toy", "model": "OON"}
    record = claim(collected, place, "bim_adjoint")
    json.dumps(record, allow_nan=False)
    assert (record["dataset"], record["model"], record["images"]["n"]) == ("toy", "OON", 150)
    assert {entry["attack"] for entry in record["attacks"]} == set(SUITE)
    apgd = next(entry for entry in record["attacks"] if entry["attack"] == "apgd_ce")
    assert apgd["parameters"] == SUITE["apgd_ce"]
    assert (apgd["norm"], apgd["epsilon"]) == ("linf", 0.1)
    small, large = record["results"]
    assert (large["tolerance"], large["verdict"], large["reliable"]) == (1.0, "masked", False)
    assert large["strongest"]["value"] == pytest.approx(0.35, abs=0.01)
    assert large["masked"]["value"] == pytest.approx(0.5, abs=0.01)
    assert "masked gradient" in large["footnote"]
    assert (large["level"], large["networks"], large["agree"]) == ("this network", 1, 1)
    assert small["verdict"] == "undecided"
    assert small["needed"] > 150
    (tolerance,) = record["tolerances"]
    assert (tolerance["claim"], tolerance["reliable"]) == ("masked", False)
    (_, model) = record["models"]
    assert (model["paper_claim"], model["level"]) == ("more", "these 2 networks")
    assert [network["seed"] for network in record["networks"]] == [0, 0]
    assert record["populations"] == []
    failed = [check for check in record["checks"] if check["outcome"] == "failed"]
    assert [(c["check"], c["tolerance"]) for c in failed] == [
        ("adjoint_agrees", 1.0),
        ("transferability", 1.0),
    ]


def test_a_claim_of_a_model_that_nothing_attacked():
    place = {"experiment": "tiny", "dataset": "toy", "model": "other"}
    record = claim(masked_tables(), place, None)
    assert record["images"] is None
    assert record["seeds"] == {}
    for name in ("attacks", "results", "networks", "models", "tolerances", "checks"):
        assert record[name] == []


def test_claims_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "toy-OON.json"
    record = claim(
        masked_tables(), {"experiment": "tiny", "dataset": "toy", "model": "OON"}, "bim_adjoint"
    )
    path.write_text(json.dumps(record))
    assert read_claim(path) == record
    path.write_text(json.dumps(record | {"schema_version": 2}))
    with pytest.raises(UserError, match=r"of schema 2, and this version reads 3; delete it"):
        read_claim(path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(UserError, match="not a claim record"):
            read_claim(path)


def test_digits_are_not_in_the_paper(page):
    assert "The paper has no results for toy" in page


def test_the_papers_values_next_to_ours(tmp_path):
    page = write_report(tmp_path, "tiny", "mnist").read_text()
    # RES: 3 of 4 images are right, the paper reports 99.6 %.
    row = "<td>toy</td><td>RES</td><td>–</td><td>99.6 %</td><td>4</td><td>1</td><td>75.0 % ("
    assert row in page
    assert "<td>−24.6</td>" in page
    assert "WIFS" in page


def test_papers_figures_are_complete():
    for models in ACCURACY.values():
        assert list(models) == ["RES", "MIX", "OON"]
        assert list(models["RES"]) == [None]
        assert all(0.88 < value < 1 for by in models.values() for value in by.values())


def attack_table(folder: Path, rows):
    """One row for each (model, tolerance, gradient, seed, successes of 40)."""
    return evaluation.attack_table(
        write_attack(
            folder,
            cell(f"bim_{gradient}", gradient, model=model, tolerance=tolerance, seed=seed),
            [True] * 40,
            [i < successes for i in range(40)],
        )
        for model, tolerance, gradient, seed, successes in rows
    )


def said(folder: Path, rows) -> str:
    clean = [
        write_clean(folder, solved("OON", tolerance=t), p, None)
        for t, p in [(0.01, [0, 1]), (1.0, [0, 0])]
    ]
    return "\n".join(findings.sentences(evaluation.clean_table(clean), attack_table(folder, rows)))


def test_findings_compare_models_tolerances_and_gradients(tmp_path):
    rows = [
        ("RES", None, "direct", 0, 30),
        ("OON", 0.01, "adjoint", 0, 20),
        ("OON", 0.01, "direct", 0, 10),
        ("OON", 1.0, "adjoint", 0, 2),
        ("OON", 1.0, "direct", 0, 16),
    ]
    text = said(tmp_path, rows)
    assert "2 clean test images of toy: OON 100.0 % at τ = 0.01 and 50.0 % at τ = 1." in text
    assert "gradients succeed on OON clearly more often than on RES in none of 1 setting" in text
    assert "adjoint gradients on this network of OON falls clearly in 1 of 1 setting and" in text
    assert "direct gradients on this network of OON falls clearly in none of 1 setting and" in text
    assert "adjoint gradients in 1 of 1 comparison and clearly less often in none, each" in text
    assert "masked" in text
    assert "no evidence of robustness" in text


def test_findings_say_where_gradients_agree():
    audit = pd.DataFrame(
        [
            ("OON", "adjoint", "direct", 0.001, 0.99, 0.95),
            ("OON", "adjoint", "direct", 10.0, 0.25, 0.5),
            ("OON", "tight", "direct", 1.0, 0.1, 0.1),
            ("OON", "adjoint", "finite differences", 1.0, np.nan, np.nan),
            ("RES", "adjoint", "direct", np.nan, np.nan, np.nan),
        ],
        columns=[
            *("model", "source", "reference", "tolerance"),
            *("cosine_median", "sign_agreement_median"),
        ],
    ).assign(dataset="toy")
    assert findings.of_gradients(audit) == [
        "OON on toy: adjoint gradients agree best with direct ones at τ = 0.001 (median cosine "
        "0.99, 95.0 % of the pixels with the same sign) and worst at τ = 10 (median cosine 0.25, "
        "50.0 % of the pixels with the same sign)."
    ]
    assert findings.of_gradients(audit[:0]) == []


def test_detection_is_described_by_detector_and_attack():
    rows = [
        ("plain", "disagreement", 0.9),
        ("plain", "disagreement", 0.95),
        ("adaptive", "disagreement", 0.5),
        ("plain", "confidence", 0.99),
        ("adaptive", "confidence", np.nan),
    ]
    table = pd.DataFrame(rows, columns=["attacker", "detector", "auc"])
    table = table.assign(dataset="toy", model="OON")
    assert findings.of_detection(table) == [
        "OON on toy, each network and tolerance by itself: the disagreement of tolerances has an "
        "area under the ROC curve of 0.90 to 0.95 against attacks that stop at their first success "
        "and 0.50 against attacks that know the disagreement; the confidence of the classifier "
        "alone has one of 0.99 against attacks that stop at their first success. 0.5 is chance."
    ]
    assert findings.of_detection(table.assign(auc=np.nan)) == []


def test_findings_warn_where_only_adjoint_gradients_attacked(tmp_path):
    text = said(tmp_path, [("OON", 0.01, "adjoint", 0, 30), ("OON", 1.0, "adjoint", 0, 1)])
    assert "no attack with direct gradients" in text


def test_findings_name_attacks_without_gradients(tmp_path):
    rows = [("RES", None, "none", 0, 9), ("OON", 0.01, "none", 0, 30), ("OON", 1.0, "none", 0, 1)]
    text = said(tmp_path, rows)
    assert "attacks without gradients succeed on OON clearly more often than on RES in 1" in text
    assert "rate of attacks without gradients on this network of OON falls clearly in 1 of" in text


def test_findings_do_not_warn_without_a_fall(tmp_path):
    text = said(tmp_path, [("OON", 0.01, "direct", 0, 30), ("OON", 1.0, "direct", 0, 30)])
    assert "Caution" not in text


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


def test_findings_name_the_networks(tmp_path):
    rows = [("RES", None, "direct", 0, 1)]
    rows += [("OON", t, "direct", seed, n) for t, n in ((0.01, 40), (1.0, 1)) for seed in (0, 1)]
    text = said(tmp_path, rows)
    assert "clearly less often in none (these 2 networks of OON, this network of RES)." in text
    assert "direct gradients on these 2 networks of OON falls clearly in 1 of 1 setting" in text


def test_findings_of_one_tolerance_compare_none(tmp_path):
    table = attack_table(tmp_path, [("OON", 0.01, "direct", 0, 3)])
    assert findings.extremes(table) is None
    assert findings.tolerance_changes(table) == []


def test_findings_of_no_attacks():
    collected = tiny_tables()
    assert findings.sentences(collected["clean"], collected["attacks"].iloc[:0]) == [
        "Accuracy on 4 clean test images of toy: OON 75.0 % at τ = 0.01 and 75.0 % at τ = 1; "
        "RES 75.0 %."
    ]
