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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), "tiny")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Opened:
    """A tab, and what went wrong in its pages or was asked of the network."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.page = browser.new_context(**context).new_page()
        self.events: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.events.append(str(error)))
        self.page.on("request", self._asked)

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.events.append(message.text)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("data:", "blob:", "file:", "about:")):
            self.events.append(request.url)

    def look(self, viewport: dict[str, int], color_scheme: str) -> None:
        """Show the page in a window of this size and in this colour scheme."""
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(color_scheme=color_scheme)
        self.page.wait_for_function("width => innerWidth === width", arg=viewport["width"])

    def load(self, address: str) -> None:
        """Load a page, also where its address differs from that of the last one after # alone."""
        self.page.goto("about:blank")
        self.page.goto(address)

    def unfold(self) -> None:
        """Open every topic, and wait for its charts."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('[data-chart]')]"
            ".every(chart => chart.querySelector('svg.marks'))",
            timeout=15_000,
        )

    def complaints(self) -> list[str]:
        """What happened since the last call; no page may complain or use the network."""
        found, self.events = self.events, []
        return found


@pytest.fixture(scope="module")
def _tab(browser: Any) -> Opened:
    """A tab that loads one page after another: a new one takes longer than a page."""
    return Opened(browser)


@pytest.fixture(scope="module")
def _all_charts(browser: Any, report: Path) -> Opened:
    """A tab with the report, all of whose topics are open: its charts take longer than all else."""
    tab = Opened(browser, viewport=DESK)
    tab.load(report.as_uri())
    tab.unfold()
    return tab


@pytest.fixture
def opened(browser: Any, report: Path, _tab: Opened) -> Iterator[Any]:
    """Loads the report, or another page; a later call replaces the page of an earlier one."""
    tabs = [_tab]

    def make(
        address: str = "",
        path: Path = report,
        viewport: dict[str, int] = DESK,
        color_scheme: str = "light",
        **context: Any,
    ) -> Opened:
        if context:
            tabs.append(Opened(browser, **context))
        tabs[-1].load(path.as_uri() + address)
        tabs[-1].look(viewport, color_scheme)
        return tabs[-1]

    yield make
    for tab in tabs[1:]:
        tab.page.context.close()
    assert [event for tab in tabs for event in tab.complaints()] == []


@pytest.fixture
def unfolded(_all_charts: Opened) -> Iterator[Any]:
    """Shows the report with all topics open and no panel; menus are as other tests left them."""

    def make(viewport: dict[str, int] = DESK, color_scheme: str = "light") -> Opened:
        _all_charts.page.evaluate("go('')")
        _all_charts.page.mouse.move(2, 2)
        _all_charts.look(viewport, color_scheme)
        return _all_charts

    yield make
    assert _all_charts.complaints() == []
