import html
import json
import re

import pytest

from node_robustness.errors import UserError
from node_robustness.figures.catalogue import FIGURES
from node_robustness.figures.drawing import still, without_background
from node_robustness.figures.experiment import of_experiment
from node_robustness.provenance.costs import job_costs
from node_robustness.report import html as report_page
from node_robustness.report.html import render_report
from node_robustness.report.paper import ACCURACY
from node_robustness.report.tables import VIEWS
from node_robustness.report.topics import TOPICS
from node_robustness.tables.examples import example_table
from node_robustness.tables.image_pages import image_pages
from node_robustness.verdict.claims import claim, read_claim
from samples import (
    MANIFEST,
    MODELS,
    SUITE,
    masked_tables,
    measured_report,
    measured_stills,
    shared_tables,
    tiny_tables,
    write_report,
)
from vega_lite import spec_of


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(folder, "<script>alert(1)</script>").read_text()


def test_nothing_fails_where_nothing_is_broken(page):
    assert "could not be made" not in page


def test_names_and_configuration_are_escaped(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "</pre><b>" not in page


def test_names_of_classes_are_escaped(tmp_path):
    """They are the user's own, any text, and stand in the figures of images."""
    measured, charts = measured_report()
    name = "</script><img src=x onerror=alert(1)>"
    known = {key: charts[key] for key in ("examples", "images")}
    renamed = json.loads(json.dumps(known).replace("zero", name))
    assert all(renamed[key] != known[key] for key in known)
    path = tmp_path / "report.html"
    stills = dict.fromkeys(renamed, "<svg/>")
    render_report("toy", measured, renamed, MANIFEST, None, path, stills)
    text = path.read_text()
    assert name not in text
    drawn = re.search(r'<script[^>]*id="spec-examples">(.*?)</script>', text)
    assert name in json.dumps(json.loads(drawn[1]))


def test_the_page_needs_nothing_else(page):
    assert "default-src 'none'" in page
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    loaded = re.findall(r'<(?:img|script|link)[^>]*(?:src|href)="([^"]*)"', markup)
    assert loaded
    assert all(address.startswith("data:") for address in loaded)


def test_every_figure_of_the_catalogue_is_shown_once_and_no_other(page):
    shown = [name for name, entry in FIGURES.items() if entry.section != "summary"]
    assert sorted(re.findall(r'id="figure-([^"]*)"', page)) == sorted(shown)
    assert {FIGURES[name].section for name in shown} <= set(TOPICS)


def test_every_table_of_the_report_has_a_topic(page):
    assert {view.topic for view in VIEWS.values()} <= set(TOPICS)
    text = html.unescape(page)
    for name, view in VIEWS.items():
        rows = list(view.rows(measured_report()[0][view.table]))
        shown = view.in_report and len(rows) > 0
        assert (f"<caption><span>{view.described}</span>" in text) == shown, name


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
    attack = "attack|toy|OON|0|0.01|bim|L∞ norm|0.1|8.0|4.0|8.0|100|20.0|2020-01-02 03:04:05"
    assert cells[1] == attack.replace("|", "</td><td>")
    assert cells[4].startswith("prepare</td><td>–</td><td>–")
    assert "50.0 % of the time of all jobs was no model computation" in page


def test_the_answers_and_the_grid_come_before_the_evidence(page):
    places = [f'id="{name}"' for name in ("claim-models", "claim-dynamics", "grid-title", "models")]
    assert sorted(map(page.index, places)) == list(map(page.index, places))
    assert "<td>masked</td>" in page


def test_a_field_of_the_grid_leads_to_its_row_and_has_a_panel(page):
    found = re.findall(r'class="field" href="#row-([^"]*)" data-setting="([^"]*)"', page)
    assert len(found) == 3
    known = re.search(r'<script[^>]*id="panels">(.*?)</script>', page)[1]
    ids = [panel["id"] for panel in json.loads(known)]
    assert sorted(found) == sorted((name, name) for name in ids)
    for name in ids:
        row = re.search(rf'<tr id="row-{name}">(.*?)</tr>', page)[1]
        assert row.startswith("<td>toy</td><td>" + name.split("/")[1])


def test_stills_are_left_out_first_and_that_is_said(tmp_path, monkeypatch, page):
    size = len(page.encode())
    assert "Not in this page" not in page
    assert size < report_page._MOST_BYTES
    monkeypatch.setattr(report_page, "_MOST_BYTES", size - 1)
    less = write_report(tmp_path, "<script>alert(1)</script>").read_text()
    assert len(less.encode()) < size
    said = re.search("Still pictures for readers without JavaScript, (.*?): (.*?)</dd>", less)
    files = re.findall(r"figures/(\w+)\.svg", said[2])
    assert files
    for name in files:
        assert f"The file figures/{name}.svg has this picture" in less
    assert less.count('id="spec-') == page.count('id="spec-')
    assert less.count('<img src="data:image/svg') == page.count('<img src="data:image/svg') - len(
        files
    )


def test_what_was_not_measured_is_said(tmp_path):
    collected = tiny_tables()
    charts = of_experiment(collected, lambda: example_table([]), lambda: image_pages([]), MODELS)
    specs = {name: spec_of(charts[name]()) for name in ("clean", "audit")}
    collected["costs"] = job_costs([], collected)
    render_report("tiny", collected, specs, MANIFEST, None, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert 'id="figure-clean"' in page
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
    assert "<td>the paper&#39;s attack did not run</td><td>6</td>" in page


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


def test_a_claim_says_where_the_margin_is_lost():
    place = {"experiment": "tiny", "dataset": "toy", "model": "OON"}
    record = claim(masked_tables() | shared_tables(), place, "bim_adjoint")
    json.dumps(record, allow_nan=False)
    window, before = record["dynamics"]
    assert (window["claim"], window["from"], window["to"]) == ("pinpointed", 0.5, 0.75)
    assert window["share"]["low"] > 0.5
    assert (window["patch"], window["repaired"]["value"]) == ("both", 1)
    assert (before["claim"], before["from"], before["level"]) == ("before", None, "this network")


def test_a_claim_of_a_model_that_nothing_attacked():
    place = {"experiment": "tiny", "dataset": "toy", "model": "other"}
    record = claim(masked_tables(), place, None)
    assert record["images"] is None
    assert record["seeds"] == {}
    for name in ("attacks", "results", "networks", "models", "tolerances", "dynamics", "checks"):
        assert record[name] == []


def test_claims_of_another_schema_are_refused(tmp_path):
    path = tmp_path / "toy-OON.json"
    record = claim(
        masked_tables(), {"experiment": "tiny", "dataset": "toy", "model": "OON"}, "bim_adjoint"
    )
    path.write_text(json.dumps(record))
    assert read_claim(path) == record
    path.write_text(json.dumps(record | {"schema_version": 3}))
    with pytest.raises(UserError, match=r"of schema 3, and this version reads 4; delete it"):
        read_claim(path)
    for text in ("{", "[]", "{}"):
        path.write_text(text)
        with pytest.raises(UserError, match="not a claim record"):
            read_claim(path)


def test_digits_are_not_in_the_paper(page):
    assert "The paper has no results for toy" in page


def test_the_papers_values_next_to_ours(tmp_path):
    path = tmp_path / "report.html"
    render_report("tiny", measured_report()[0], {}, MANIFEST, "mnist", path)
    page = path.read_text()
    assert "could not be made" not in page
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


def test_small_figures_are_the_stills_without_their_background(tmp_path, monkeypatch):
    """What is drawn already is not drawn again, and the page is the same."""
    tables, charts = measured_report()
    some = ("clean", "verdicts", "images")
    charts = {name: charts[name] for name in charts if name.startswith("claim_") or name in some}
    stills = measured_stills()
    drawn = tmp_path / "drawn.html"
    render_report("tiny", tables, charts, MANIFEST, None, drawn)
    monkeypatch.setattr(report_page, "still", None)
    path = tmp_path / "report.html"
    render_report("tiny", tables, charts, MANIFEST, None, path, stills)
    assert path.read_text() == drawn.read_text()


def test_a_still_without_its_background_is_that_of_a_transparent_figure():
    _, charts = measured_report()
    small = [name for name in charts if name.startswith("claim_")]
    assert small
    for name in small:
        drawn, transparent = measured_stills()[name], {**charts[name], "background": "transparent"}
        assert without_background(drawn) == still(transparent) != drawn
