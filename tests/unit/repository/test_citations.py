"""The same works are cited in CITATION.cff, in docs/verdict.md and in reports."""

from pathlib import Path

import yaml

from node_robustness.report.paper import CITATION, PRIOR_WORK

ROOT = Path(__file__).parents[3]
REFERENCES = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]


def plain(text: str) -> str:
    return " ".join(text.lower().split())


def test_the_page_on_verdicts_places_every_prior_work():
    page = plain((ROOT / "docs/verdict.md").read_text().partition("## Prior work")[2])
    for work in REFERENCES[1:]:
        assert plain(work["title"]) in page, work["title"]
        assert all(plain(author["family-names"]) in page for author in work["authors"])
        assert str(work["year"]) in page


def test_a_report_cites_what_the_project_cites():
    titles = [plain(work["title"]) for work in REFERENCES]
    for citation in (CITATION, *PRIOR_WORK):
        assert any(title in plain(citation) for title in titles), citation
