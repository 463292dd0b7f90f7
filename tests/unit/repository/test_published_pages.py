"""Generated pages are what their files make, and the README says what their tables say."""

import json
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
    """Each claim once, with what every page of the paper's images says of it, or else another."""
    readme = readme_answers.README.read_text(encoding="utf-8")
    assert readme == readme_answers.render(readme), "run make docs"
    lines = readme.partition(readme_answers.BEGIN)[2].partition(readme_answers.END)[0].splitlines()
    by_page = {page.stem: claims(page) for page in ANSWERS}
    for key in ("models", "tolerances", "dynamics"):
        (line,) = [line for line in lines if by_page["mnist"][key].question in line]
        known = [page for page in by_page if by_page[page][key].sure in SURE]
        papers = [page for page in known if page in readme_answers.PAPERS]
        for page in papers or known[:1]:
            said = by_page[page][key]
            assert f"[{page}](docs/results/{page}.md): {said.answer}" in line
            assert (
                f"*{'Shown in part' if said.sure == 'in part' else said.sure.capitalize()}.*"
                in line
            )
        assert line.count("](docs/results/") == len(papers or known[:1])


def test_the_figure_of_the_readme_is_made_of_those_of_the_pages():
    path = ROOT / readme_answers.FIGURE
    assert path.read_text(encoding="utf-8") == readme_answers.figure(), "run make docs"
    assert f"]({readme_answers.FIGURE})" in readme_answers.README.read_text(encoding="utf-8")
    drawing = ET.parse(path).getroot()
    panels = drawing.findall("{http://www.w3.org/2000/svg}svg")
    assert len(panels) == sum(bool(known) for known in readme_answers.answers().values())
    ends = [int(panel.get("x")) + int(panel.get("width")) for panel in panels]
    assert ends == sorted(ends)
    assert ends[-1] == int(drawing.get("width"))
    names = [element.get("id") for element in drawing.iter() if element.get("id")]
    assert len(names) == len(set(names))


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


def test_what_the_readme_says_of_the_networks_of_cifar10():
    readme = " ".join(readme_answers.README.read_text(encoding="utf-8").split())
    training = pd.read_csv(ROOT / "docs/results/cifar10/training.csv")
    assert (training.epochs == 1).all()
    assert (training.groupby("model").seed.nunique() == 2).all()
    low, high = (round(100 * value) for value in training.validation_accuracy.agg(["min", "max"]))
    assert (
        "on CIFAR-10 two of each, with 64 filters, for one epoch (the paper: 250), after which "
        f"{low} to {high} % of the validation images are classified correctly"
    ) in readme
    run = json.loads((ROOT / "docs/results/cifar10/manifest.json").read_text(encoding="utf-8"))
    assert {run["config"]["models"][name]["filters"] for name in set(training.model)} == {64}


SURE = ("shown", "in part", "not shown")


def claims(page):
    """The claims of a page by key."""
    known = summary.claims(markdown.read_tables(page.with_suffix("")))
    return {claim.key: claim for claim in known}


def test_the_page_on_performance_is_what_the_benchmarks_measured():
    page = performance_page.PAGE.read_text(encoding="utf-8")
    assert page == performance_page.render(), "run make docs"
