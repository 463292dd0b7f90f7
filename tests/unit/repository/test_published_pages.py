"""Generated pages are what their files make, and the README says what their tables say."""

import json
import re
import xml.etree.ElementTree as ET
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

import performance_page
import readme_answers
from node_robustness.figures import catalogue as figures
from node_robustness.report import markdown, summary
from node_robustness.tables import catalogue as tables

ROOT = Path(__file__).parents[3]
ANSWERS = [ROOT / f"docs/results/{name}.md" for name in readme_answers.PAGES]
ANSWERS = [page for page in ANSWERS if page.exists()]
# The leaderboard answers no claim of the paper in the README.
PAGES = [*ANSWERS, *(ROOT / "docs/results").glob("defences.md")]
PICTURES = sorted((ROOT / "docs").rglob("*.svg"))


def test_these_are_all_pages_and_mnist_is_the_first():
    assert set(PAGES) == set((ROOT / "docs/results").glob("*.md"))
    assert PAGES[0].stem == "mnist"


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_made_again_from_its_files_a_page_is_the_same(page):
    folder = page.with_suffix("")
    assert {path.stem for path in folder.glob("*.csv")} <= set(tables.ON_PAGE)
    assert markdown.render(page.stem, folder) == page.read_text(encoding="utf-8")


def test_every_figure_is_published():
    published = {path.relative_to(ROOT / "docs").as_posix() for path in PICTURES}
    assert published >= {
        f"results/{page.stem}/{name}.svg"
        for page in PAGES
        for name in figures.ON_PAGE
        if figures.has_rows(name, filled(page))
    }


@cache
def filled(page):
    """The tables of a page; a stage that a run leaves out has a table without rows."""
    return {path.stem: pd.read_csv(path) for path in page.with_suffix("").glob("*.csv")}


@pytest.mark.parametrize("picture", PICTURES, ids=[path.stem for path in PICTURES])
def test_every_picture_is_a_drawing(picture):
    """A viewer shows nothing at all of an SVG that is not well-formed XML."""
    drawing = ET.parse(picture).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter())) > 20


def test_the_readme_has_the_answers_of_the_pages():
    """Each claim once: its answer, its small figure and how sure it is, from one page."""
    readme = readme_answers.README.read_text(encoding="utf-8")
    assert readme == readme_answers.render(readme), "run make docs"
    answers = readme.partition(readme_answers.BEGIN)[2].partition(readme_answers.END)[0]
    for key in ("models", "tolerances", "dynamics"):
        known = [found[key] for page in ANSWERS if (found := claims(page))[key].sure in SURE]
        claim = known[0] if known else claims(ANSWERS[0])[key]
        assert answers.count(claim.question) == 1
        assert f"**{claim.answer}**" in answers
        assert claim.how_sure in answers
    figures_shown = re.findall(r"\]\(docs/results/(\w+)/(\w+)\.svg\)", answers)
    for page, name in figures_shown:
        assert (ROOT / f"docs/results/{page}/{name}.svg").is_file()
    assert {"claim_models", "claim_tolerances"} <= {name for _, name in figures_shown}


def test_of_pages_that_measured_a_claim_the_readme_takes_mnist_first():
    """What a page did not measure comes from another."""
    answers = readme_answers.README.read_text(encoding="utf-8").partition(readme_answers.BEGIN)[2]
    mnist = claims(ROOT / "docs/results/mnist.md")
    assert mnist["models"].answer in answers
    assert mnist["tolerances"].answer in answers
    if (ROOT / "docs/results/digits.md").exists():
        assert mnist["dynamics"].sure == "not measured"
        assert claims(ROOT / "docs/results/digits.md")["dynamics"].answer in answers


def test_what_the_readme_says_of_the_networks_of_mnist():
    readme = " ".join(readme_answers.README.read_text(encoding="utf-8").split())
    training = pd.read_csv(ROOT / "docs/results/mnist/training.csv")
    assert (training.epochs == 2).all()
    assert (training.groupby("model").seed.nunique() == 2).all()
    assert (
        "on MNIST two of each model, with 64 filters and without dropout, for two epochs" in readme
    )
    models = json.loads((ROOT / "docs/results/mnist/manifest.json").read_text())["config"]["models"]
    assert {(models[name]["filters"], models[name]["dropout"]) for name in set(training.model)} == {
        (64, 0.0)
    }


SURE = ("shown", "in part", "not shown")


def claims(page):
    """The claims of a page by key."""
    known = summary.claims(markdown.read_tables(page.with_suffix("")))
    return {claim.key: claim for claim in known}


def test_the_page_on_performance_is_what_the_benchmarks_measured():
    page = performance_page.PAGE.read_text(encoding="utf-8")
    assert page == performance_page.render(), "run make docs"
