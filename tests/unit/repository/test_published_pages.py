"""The pages in docs/results are what their files make, and the README says what they say."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from node_robustness.report import markdown
from node_robustness.report.catalogue import FIGURES, TABLES

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "docs/results").glob("*.md"))
PICTURES = sorted((ROOT / "docs").rglob("*.svg"))


def test_mnist_is_among_them():
    assert "mnist" in {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_made_again_from_its_files_a_page_is_the_same(page):
    folder = page.with_suffix("")
    assert {path.stem for path in folder.glob("*.csv")} <= set(TABLES)
    assert markdown.render(page.stem, folder) == page.read_text(encoding="utf-8")


def test_every_figure_is_published():
    published = {path.relative_to(ROOT / "docs").as_posix() for path in PICTURES}
    assert published >= {f"results/{page.stem}/{name}.svg" for page in PAGES for name in FIGURES}


@pytest.mark.parametrize("picture", PICTURES, ids=[path.stem for path in PICTURES])
def test_every_picture_is_a_drawing(picture):
    """A viewer shows nothing at all of an SVG that is not well-formed XML."""
    drawing = ET.parse(picture).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(drawing.iter())) > 20


def test_the_readme_quotes_the_page():
    """Every percentage and every count of its answer is in the page's summary."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    answer = readme.partition("## The answer on MNIST\n")[2].partition("\n## ")[0]
    answer = " ".join(answer.split())
    page = (ROOT / "docs/results/mnist.md").read_text(encoding="utf-8")
    summary = page.partition("## In short\n")[2].partition("\n## ")[0]
    rates = re.findall(r"[+−\d.]+(?= %| points)", answer)
    counts = re.findall(r"\d+ of \d+ settings, clearly less in \d+", answer)
    assert len(rates) > 3
    assert counts
    assert set(rates) <= set(re.findall(r"[+−\d.]+(?= %| points)", summary))
    assert all(count in summary for count in counts)
