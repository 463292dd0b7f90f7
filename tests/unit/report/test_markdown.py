"""The page of results: made from a folder of small files alone, and again the same."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from node_robustness.config.presets import PRESETS
from node_robustness.figures import catalogue as figures
from node_robustness.report import markdown, panels, summary
from node_robustness.report.topics import TOPICS
from node_robustness.tables import catalogue as tables
from samples import masked_tables


def test_the_page_needs_its_folder_alone(folder, page, tmp_path):
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    shutil.rmtree(folder)
    assert markdown.render("tiny", moved) == page


def test_of_trajectories_the_medians_travel(folder, tmp_path):
    whole = pd.read_csv(tmp_path / "trajectories.csv")
    thin = pd.read_csv(folder / "trajectories.csv")
    medians = [name for name in whole if name.endswith("_median")]
    assert len(thin) == len(whole)
    assert [name for name in thin if re.search("_(mean|median|q..)$", name)] == medians
    for name in thin:
        if whole[name].dtype == float:
            assert thin[name].to_numpy() == pytest.approx(whole[name], rel=1e-3, nan_ok=True)
        else:
            pd.testing.assert_series_equal(thin[name], whole[name])


def test_figures_travel_as_they_are(folder, tmp_path):
    """Also one that has the name of a table of which the medians alone travel."""
    collected = markdown.read_tables(folder)
    for name in figures.ON_PAGE:
        own, copy = (where / f"{name}.svg" for where in (tmp_path, folder))
        assert copy.exists() == figures.has_rows(name, collected)
        assert not copy.exists() or copy.read_bytes() == own.read_bytes()


def test_every_figure_of_the_page_is_shown_once_and_no_other(folder, page):
    collected = {name: pd.read_csv(folder / f"{name}.csv") for name in tables.ON_PAGE}
    known = [name for name in figures.ON_PAGE if figures.has_rows(name, collected)]
    assert len(known) > 3
    assert sorted(re.findall(r"!\[[^]]*\]\(tiny/(\w+)\.svg\)", page)) == sorted(known)


def test_names_of_machines_stay_at_home(folder):
    for path in (folder / "manifest.json", *folder.glob("*.csv")):
        assert "desk of somebody" not in path.read_text()


def test_every_link_leads_somewhere(folder, page):
    links = set(re.findall(r"\]\((tiny/[^)]+\.\w+)\)", page))
    assert {f"tiny/{name}.csv" for name in tables.ON_PAGE} | {"tiny/manifest.json"} <= links
    for link in links:
        assert (folder.parent / link).is_file()


def test_rows_are_whole(page):
    assert "nan" not in page.lower().replace("nanoseconds", "")
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1


def test_what_it_says_of_masked_robustness():
    collected = masked_tables()
    table = markdown.report_tables.show("success", collected)
    rows = {(row[1], row[3]): row for row in table.rows}
    # Of 150 images all are right; under the paper's attack 10 % fall at tau = 1, at the best 65 %.
    paper, strongest = rows["OON", "1"][-2:]
    assert paper.startswith("10.0 % (")
    assert strongest.startswith("65.3 % (")


def test_limits_are_named(folder, page):
    assert "1 epoch of training (the paper: 25). Accuracy on validation images: OON 75.0 %." in (
        page
    )
    assert "Of the standard attacks " in page
    assert "cpu (x86_64) with 2 processors" in page
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mnist"', "null"))
    alone = markdown.render("tiny", folder)
    assert "the paper: 25" not in alone
    assert "The paper's success rates were not available" in page
    assert "The paper's success rates were not available" not in alone
    assert "Difference" in page
    assert "Accuracy on clean test images: the paper" not in alone


def test_an_attack_is_not_missed_where_it_has_no_norm(folder, monkeypatch):
    """Carlini and Wagner's attack is of L2."""
    monkeypatch.setitem(PRESETS, "standard", [*PRESETS["standard"], "cw"])
    assert "cw" not in _missing(markdown.render("tiny", folder))
    attacks = pd.read_csv(folder / "attacks.csv")
    attacks.assign(norm="l2").to_csv(folder / "attacks.csv", index=False)
    assert "cw" in _missing(markdown.render("tiny", folder))


def _missing(page: str) -> str:
    return re.search("Of the standard attacks (.*) did not run", page)[1]


def test_the_first_screen_answers_the_three_claims(folder, page):
    first = page.split("## Verdicts at a glance")[0]
    found = summary.claims(markdown.read_tables(folder))
    assert len(found) == 3
    rows = [line.strip("| ").split(" | ") for line in first.splitlines() if line.startswith("|")]
    assert rows[0] == [claim.question for claim in found]
    assert rows[2] == [f"The paper says: {claim.paper}" for claim in found]
    assert rows[-2] == [f"**{claim.answer}**" for claim in found]
    for claim, said in zip(found, rows[-1], strict=True):
        assert said.endswith(claim.how_sure)
        assert said.startswith(claim.sure.capitalize()) == (claim.sure != "not measured")
    assert first.count("\n") < 20


def test_the_small_figures_stand_above_the_answers(folder, page):
    first = page.split("## Verdicts at a glance")[0]
    drawn = [claim.figure for claim in summary.claims(markdown.read_tables(folder)) if claim.figure]
    assert re.findall(r"!\[[^]]+\]\(tiny/(\w+)\.svg\)", first) == drawn


def test_the_grid_has_the_settings_that_say_something(folder, page):
    """And only these; the others are counted in one line."""
    verdicts = pd.read_csv(folder / "verdicts.csv")
    known = [
        field
        for grid in panels.grid(markdown.read_tables(folder))
        for row in grid.rows
        for field in row.fields
        if field is not None
    ]
    glance = _part(page, "Verdicts at a glance")
    signs = "".join(panels.SIGNS.values())
    shown = re.findall(rf"\| ([{re.escape(signs)}] \d+ %)", glance)
    expected = [f"{field.sign} {field.strongest}" for field in known if field.says_something]
    assert sorted(shown) == sorted(expected)
    silent = len(verdicts) - len(expected)
    assert bool(silent) == ("Left out: " in glance or "no setting" in glance)


def test_a_grid_without_anything_to_say_is_one_line(folder):
    verdicts = pd.read_csv(folder / "verdicts.csv")
    verdicts.assign(verdict="broken", procedure="shows", because="broken").to_csv(
        folder / "verdicts.csv", index=False
    )
    glance = _part(markdown.render("tiny", folder), "Verdicts at a glance")
    assert "in no setting is there robustness to speak of" in glance
    assert "|" not in glance


def test_evidence_follows_by_topic(page):
    """Limits first; each topic once, in the order of the report."""
    titles = re.findall("^## (.*)$", page, re.MULTILINE)
    assert titles[:2] == ["Verdicts at a glance", "Limits of this run"]
    topics = [topic.title for topic in TOPICS.values()]
    assert titles[2:] == [title for title in topics if title in titles]
    assert {"Verdicts in detail", "Attacks", "Clean images", "What ran", "References"} <= {*titles}


def test_what_has_nothing_behind_it_is_said_first(folder):
    clean = pd.read_csv(folder / "clean.csv")
    clean.assign(correct=0, accuracy=0.0).to_csv(folder / "clean.csv", index=False)
    found = _part(markdown.render("tiny", folder), "Limits of this run")
    assert re.match(r"\s*- \w+ on toy classifies no image correctly", found)


def _part(page: str, title: str) -> str:
    return page.split(f"## {title}\n")[1].split("\n## ")[0]


def test_names_are_texts_whatever_they_look_like(folder):
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"mnist"', "null"))  # its nets have names
    page = markdown.render("tiny", folder)
    for path in (manifest, *folder.glob("*.csv")):
        path.write_text(path.read_text().replace("OON", "None").replace("RES", "inf"))
    assert markdown.render("tiny", folder) == page.replace("OON", "None").replace("RES", "inf")


def test_long_tables_are_collapsed(folder, monkeypatch):
    monkeypatch.setattr(markdown, "_ROWS_TO_SHOW", 100)
    assert "<details>" not in markdown.render("tiny", folder)
    monkeypatch.setattr(markdown, "_ROWS_TO_SHOW", 1)
    page = markdown.render("tiny", folder)
    assert page.count("<details>\n<summary>") == page.count("\n\n</details>") > 1
    assert re.search(r"\n\nVerdicts: .*\n\n<details>\n<summary>The table \(\d+ rows\)", page)
