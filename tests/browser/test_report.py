"""The report in a browser: it draws its charts, asks nothing of the network, and fits a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from samples import write_report  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

FIGURES = [
    *("verdicts", "trajectories", "growth", "margins", "shares", "patches"),
    *("adaptive_cost", "images"),
    *("models", "tolerances", "attack_suite", "curves", "audit", "loss_curves"),
    *(
        "matrix",
        "randomisation",
        "detection",
        "adjoint_sweep",
        "cost",
        "checks",
        "clean",
        "nfe",
        "success",
        "examples",
        "costs",
    ),
]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), "tiny")


@pytest.fixture(scope="module")
def browser() -> Iterator["playwright.Browser"]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


def opened(browser: "playwright.Browser", report: Path, **context: object) -> tuple[object, list]:
    """The page once its charts are drawn, and what went wrong or was asked of the network."""
    page = browser.new_context(**context).new_page()
    events: list[str] = []
    page.on("console", lambda m: events.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on(
        "request",
        lambda r: None if r.url.startswith(("data:", "blob:")) else events.append(r.url),
    )
    page.goto(report.as_uri())
    charts = page.locator("[data-chart]").count()
    page.wait_for_function(
        "n => document.querySelectorAll('[data-chart] svg.marks').length === n", arg=charts
    )
    return page, events


def test_draws_every_chart_without_network_or_errors(browser, report):
    page, events = opened(browser, report)
    assert events == [report.as_uri()]
    drawn = [item.get_attribute("data-chart") for item in page.locator("[data-chart]").all()]
    assert drawn == FIGURES
    for name in drawn:
        assert page.locator(f"[data-chart={name}] svg.marks path").count() > 0


def test_shows_a_tooltip(browser, report):
    page, _ = opened(browser, report)
    page.locator("[data-chart=success] svg.marks .mark-symbol.role-mark path").last.hover(
        force=True
    )
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "Model" in tooltip.inner_text()


def test_the_verdict_is_on_the_first_screen(browser, report):
    page, _ = opened(browser, report, viewport={"width": 1280, "height": 900})
    assert page.locator("#answer").bounding_box()["y"] < 450


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("verdicts", "Because"),
        ("attack_suite", "By this attack alone"),
        ("checks", "A failure means"),
    ],
)
@pytest.mark.parametrize("place", [None, {"x": 18, "y": 18}], ids=["its words", "its corner"])
def test_all_of_a_field_shows_its_tooltip(browser, report, name, text, place):
    page, _ = opened(browser, report)
    field = page.locator(f"[data-chart={name}] svg.marks .mark-rect.role-mark path").last
    # Without a place at its centre; its box is wider by the mitres of its white outline.
    field.hover(force=True, position=place)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert text in tooltip.inner_text()


MENUS = {
    "trajectories": ["Distance", "Show"],
    "growth": ["Tolerance τ", "Show"],
    "margins": ["Tolerance τ", "Show"],
    "shares": ["Show"],
    "patches": ["Patch", "Show"],
    "adaptive_cost": ["Tolerance τ", "Show"],
    "images": ["Model", "Tolerance τ", "Show", "Image"],
}


def choose(page, name: str, menu: str, choice: str | None = None) -> None:
    """Choose from a list of a figure, another one than is chosen by default, and wait for it."""
    chart = f"[data-chart={name}] svg.marks"
    before = page.locator(chart).inner_html()
    item = page.locator(f"#menu-{name} label", has_text=f"{menu}: ").locator("select")
    labels = [option.inner_text() for option in item.locator("option").all()]
    chosen = item.evaluate("select => select.options[select.selectedIndex].text")
    item.select_option(label=choice or next(text for text in labels if text != chosen))
    page.wait_for_function(
        "([chart, before]) => document.querySelector(chart).innerHTML !== before",
        arg=[chart, before],
    )


@pytest.mark.parametrize("name", MENUS)
def test_every_menu_changes_its_figure(browser, report, name):
    page, events = opened(browser, report)
    labels = page.locator(f"#menu-{name} label").all()
    assert [label.inner_text().split(":")[0] for label in labels] == MENUS[name]
    # From the last: a model without an ODE, which is then chosen, has no tolerance.
    for menu in reversed(MENUS[name]):
        choose(page, name, menu)
    assert events == [report.as_uri()]


def test_the_page_of_an_image_is_chosen_by_model_tolerance_condition_and_image(browser, report):
    page, events = opened(browser, report)
    chart = page.locator("[data-chart=images] svg.marks")
    assert "Test image 0: zero taken for one" in chart.text_content()
    choose(page, "images", "Image", "1")
    assert "Test image 1: one taken for two" in chart.text_content()
    # At the smaller epsilon that image stays what it is, and in both models.
    choose(page, "images", "Show", "toy, bim, L∞ norm, ε = 0.1")
    choose(page, "images", "Tolerance τ", "1")
    assert "OON, τ = 1. Test image 1: one stays so" in chart.text_content()
    choose(page, "images", "Model", "RES")
    assert "RES, no ODE. Test image 1: one stays so" in chart.text_content()
    assert chart.locator("image").count() == 5
    assert events == [report.as_uri()]


def test_the_section_on_the_dynamics_is_told_in_sentences(browser, report):
    page, _ = opened(browser, report)
    section = page.locator("section[aria-labelledby=dynamics]")
    assert "restores the decision on" in section.locator("ul").inner_text()
    assert section.locator("[data-chart]").count() == len(MENUS)


@pytest.mark.parametrize("width", [400, 1280])
def test_fits_the_window(browser, report, width):
    page, _ = opened(browser, report, viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_shows_images_without_javascript(browser, report):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    assert page.locator("noscript img").count() == len(FIGURES)
