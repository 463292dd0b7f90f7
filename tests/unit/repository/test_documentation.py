"""The pages of the repository name files that exist, and link to pages and headings that exist."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = (
    "benchmarks",
    "docs",
    "examples",
    "profiles",
    "requirements",
    "tests",
    "tools",
    "workflow",
)
FILES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
PAGES = [path for path in FILES if path.suffix == ".md"]
PAGES += [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
PAGES += [ROOT / name / "README.md" for name in ("config", "resources", "results")]
PAGES.append(ROOT / ".github/pull_request_template.md")
_CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def heading_anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = _CODE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in heading_anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_modules_exist(page):
    """By their path, or any part of it from a folder on."""
    for name in re.findall(r"`([\w/.-]+\.(?:py|smk|sh))`", page.read_text(encoding="utf-8")):
        assert any(path.as_posix().endswith(f"/{name}") for path in FILES), name


def test_modules_of_the_api_page_exist():
    page = (ROOT / "docs/reference/api.rst").read_text(encoding="utf-8")
    names = re.findall(r"^.. automodule:: (\S+)$", page, re.MULTILINE)
    assert names
    for name in names:
        assert (ROOT / "workflow/scripts" / f"{name.replace('.', '/')}.py").is_file(), name
