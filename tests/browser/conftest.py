"""A browser, and the page of a report in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from samples import write_report  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESK = {"width": 1280, "height": 800}


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), "tiny")


@pytest.fixture(scope="session")
def browser() -> Iterator["playwright.Browser"]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Opened:
    """A page, and what went wrong in it or was asked of the network."""

    def __init__(self, browser: Any, report: Path, address: str = "", **context: Any) -> None:
        self.page = browser.new_context(**({"viewport": DESK} | context)).new_page()
        self.events: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.events.append(str(error)))
        self.page.on("request", self._asked)
        self.page.goto(report.as_uri() + address)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.events.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:", "file:")):
            self.events.append(request.url)

    def unfold(self) -> None:
        """Open every topic, and wait for its charts."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('[data-chart]')]"
            ".every(chart => chart.querySelector('svg.marks'))",
            timeout=15_000,
        )


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Any]:
    """Opens the report, or another page; no page may complain or use the network."""
    pages: list[Opened] = []

    def make(address: str = "", path: Path = report, **context: Any) -> Opened:
        pages.append(Opened(browser, path, address, **context))
        return pages[-1]

    yield make
    for page in pages:
        page.page.context.close()
    assert [event for page in pages for event in page.events] == []
