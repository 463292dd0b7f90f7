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
    models, tolerances, verdicts = (table(name) for name in ("models", "tolerances", "verdicts"))
    claims = models[models.paper_claim.notna()]
    oon, mix = (claims[claims.model == name] for name in ("OON", "MIX"))
    assert not (models.strongest_claim == "more").any()
    assert not {"more", "less"} & {*mix.paper_claim, *mix.strongest_claim}
    assert not (oon.paper_claim == "less").any()
    less = oon[oon.strongest_claim == "less"]
    worst = less.loc[less.strongest.idxmin()]
    phrases = [
        f"more robust than RES in {(oon.paper_claim == 'more').sum()} of {len(oon)} settings",
        f"less robust in {len(less)} ({worst.strongest_robust:.1%} against "
        f"{worst.strongest_reference:.1%} at worst)",
    ]
    largest = tolerances.loc[tolerances.paper.idxmax()]
    claim = tolerances.claim.value_counts()
    assert "real" not in claim
    assert set(tolerances[tolerances.claim.isin(["masked", "reversed"])].model) == {"OON"}
    assert largest.model == "OON"
    phrases += [
        f"up to {largest.paper * 100:+.1f} points for OON; the strongest attack shows "
        f"{largest.strongest * 100:+.1f} points",
        f"Of {len(tolerances)} settings the gain is real in none, masked gradient in "
        f"{claim.masked}, and reversed in {claim.reversed}",
    ]
    verdict = verdicts.verdict.value_counts()
    weak = (verdicts[verdicts.verdict == "undecided"].because == "attacks").sum()
    assert "survives" not in verdict
    phrases += [
        f"leaves less than {0.1:.0%} in {verdict.broken} of {len(verdicts)} settings",
        f"In {verdict.masked} the robustness is masked gradient, and {verdict.undecided} are "
        f"undecided, {weak} of them only",
    ]
    phrases = [phrase.replace("%", " %").replace("-", "−") for phrase in phrases]
    assert [phrase for phrase in phrases if phrase not in answer] == []
    quoted = re.findall(r"[+−]?[\d.]+(?= %| points)", answer)
    assert set(quoted) <= set(re.findall(r"[+−]?[\d.]+(?= %| points)", " ".join(phrases)))


def test_the_page_on_performance_is_what_the_benchmarks_measured():
    page = performance_page.PAGE.read_text(encoding="utf-8")
    assert page == performance_page.render(), "run make docs"
