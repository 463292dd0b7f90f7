"""Generated pages are what their files make, and the README says what their tables say."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pandas as pd
import pytest

import performance_page
from node_robustness.figures import catalogue as figures
from node_robustness.report import markdown
from node_robustness.tables import catalogue as tables

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs/results").glob("*.md"))
PICTURES = sorted((ROOT / "docs").rglob("*.svg"))


def test_mnist_is_among_them():
    assert "mnist" in {page.stem for page in PAGES}


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


def filled(page):
    """The tables of a page; a stage that a run leaves out has a table without rows."""
    return {path.stem: pd.read_csv(path) for path in page.with_suffix("").glob("*.csv")}


@pytest.mark.parametrize("picture", PICTURES, ids=[path.stem for path in PICTURES])
def test_every_picture_is_a_drawing(picture):
    """A viewer shows nothing at all of an SVG that is not well-formed XML."""
    drawing = ET.parse(picture).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter())) > 20


def table(name):
    return pd.read_csv(ROOT / f"docs/results/mnist/{name}.csv")


def test_the_readme_says_what_the_tables_of_mnist_say():
    """Its three findings, with every percentage, change and count."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    answer = " ".join(readme.partition("## The answer on MNIST\n")[2].partition("\n## ")[0].split())
    found = table("comparisons")
    found = found[(found.kind == "model") & (found.protocol == "strongest")]
    phrases = []
    for _, rows in found.groupby("model"):
        assert not (rows.direction > 0).any()
        phrases.append(f"in none of {len(rows)} settings")
    less = found[found.direction < 0]
    assert set(less.model) == {"OON"}
    phrases.append(f"OON is clearly less robust in {len(less)} ")
    worst = found.loc[found.difference.abs().idxmax()]
    phrases.append(f"{worst.robust:.1%} against {worst.reference:.1%}")
    gains = table("gains")
    assert not (gains.strongest_low > 0).any()
    largest = gains.loc[gains.paper.idxmax()]
    assert largest.model == "OON"
    phrases += [f"{largest[protocol] * 100:+.1f} points" for protocol in ("paper", "strongest")]
    verdicts = table("verdicts").verdict.value_counts()
    phrases.append(f"holds in {verdicts.holds} of {verdicts.sum()} settings")
    phrases.append(
        f"masked gradients in {verdicts.masked} and is undecided in {verdicts.undecided}"
    )
    phrases = [phrase.replace("%", " %").replace("-", "−") for phrase in phrases]
    assert [phrase for phrase in phrases if phrase not in answer] == []
    quoted = re.findall(r"[+−]?[\d.]+(?= %| points)", answer)
    assert set(quoted) <= set(re.findall(r"[+−]?[\d.]+(?= %| points)", " ".join(phrases)))


def test_the_page_on_performance_is_what_the_benchmarks_measured():
    page = performance_page.PAGE.read_text(encoding="utf-8")
    assert page == performance_page.render(), "run make docs"
