"""The pages in docs/results are what their files make, and the README says what they say."""

import re
from pathlib import Path

import pytest

from node_robustness import results_page
from node_robustness.published import TABLES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs/results").glob("*.md"))


def test_mnist_is_among_them():
    assert "mnist" in {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_made_again_from_its_files_a_page_is_the_same(page):
    folder = page.with_suffix("")
    assert {path.stem for path in folder.glob("*.csv")} <= set(TABLES)
    assert results_page.render(page.stem, folder) == page.read_text(encoding="utf-8")


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
