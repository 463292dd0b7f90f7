"""The charts of the report: drawn when their topic opens, with menus, tooltips and their data."""

import csv
import io
import json
from pathlib import Path

import pytest

from node_robustness.figures.catalogue import FIGURES
from samples import measured_report

SHOWN = [name for name, entry in FIGURES.items() if entry.section != "summary"]


def chart(page, name: str) -> str:
    return f"[data-chart={name}] svg.marks"


def test_every_chart_is_drawn_once_its_topic_opens(opened):
    report = opened()
    assert report.page.locator("[data-chart] svg").count() == 0
    report.page.locator("#models > summary").click()
    report.page.locator(chart(report.page, "models")).wait_for()
    assert report.page.locator(chart(report.page, "trajectories")).count() == 0
    report.unfold()
    drawn = [c.get_attribute("data-chart") for c in report.page.locator("[data-chart]").all()]
    assert sorted(drawn) == sorted(SHOWN)
    for name in drawn:
        assert report.page.locator(f"{chart(report.page, name)} path").count() > 0


@pytest.mark.parametrize(
    ("name", "marks", "text"),
    [
        ("success", ".mark-symbol.role-mark path", "Model"),
        ("verdicts", ".mark-rect.role-mark path", "Because"),
        ("attack_suite", ".mark-rect.role-mark path", "By this attack alone"),
        ("checks", ".mark-rect.role-mark path", "A failure means"),
    ],
)
@pytest.mark.parametrize("place", [None, {"x": 18, "y": 18}], ids=["its centre", "its corner"])
def test_a_mark_shows_its_tooltip(opened, name, marks, text, place):
    if "symbol" in marks and place is not None:
        return  # A point has no corner.
    report = opened()
    report.unfold()
    mark = report.page.locator(f"{chart(report.page, name)} {marks}").last
    mark.hover(force=True, position=place)
    tip = report.page.locator("#tip")
    tip.wait_for()
    assert text in tip.inner_text()
    box, window = tip.bounding_box(), report.page.viewport_size
    assert 0 <= box["x"] <= box["x"] + box["width"] <= window["width"]
    assert 0 <= box["y"] <= box["y"] + box["height"] <= window["height"]
    report.page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


MENUS = {
    "trajectories": ["Distance", "Show"],
    "growth": ["Tolerance τ", "Show"],
    "margins": ["Tolerance τ", "Show"],
    "shares": ["Show"],
    "patches": ["Patch", "Show"],
    "adaptive_cost": ["Tolerance τ", "Show"],
    "images": ["Model", "Tolerance τ", "Show", "Image"],
}


ONE_CHOICE = {("shares", "Show"), ("patches", "Show")}


def choose(page, name: str, menu: str, choice: str | None = None) -> None:
    """Choose from a list of a figure, another one than is chosen by default, and wait for it."""
    before = page.locator(chart(page, name)).inner_html()
    item = page.locator(f"#menu-{name} label", has_text=f"{menu}: ").locator("select")
    labels = [option.inner_text() for option in item.locator("option").all()]
    chosen = item.evaluate("select => select.options[select.selectedIndex].text")
    item.select_option(label=choice or next(text for text in labels if text != chosen))
    page.wait_for_function(
        "([chart, before]) => document.querySelector(chart).innerHTML !== before",
        arg=[chart(page, name), before],
    )


@pytest.mark.parametrize("name", MENUS)
def test_every_menu_changes_its_figure(opened, name):
    report = opened()
    report.unfold()
    labels = report.page.locator(f"#menu-{name} label").all()
    assert [label.inner_text().split(":")[0] for label in labels] == MENUS[name]
    # From the last: a model without an ODE, which is then chosen, has no tolerance.
    for menu in reversed(MENUS[name]):
        if (name, menu) not in ONE_CHOICE:
            choose(report.page, name, menu)


def test_the_page_of_an_image_is_chosen_by_model_tolerance_condition_and_image(opened):
    report = opened()
    report.unfold()
    page = report.page
    drawn = page.locator(chart(page, "images"))
    assert "Test image 0: zero taken for one" in drawn.text_content()
    choose(page, "images", "Image", "1")
    assert "Test image 1: one taken for two" in drawn.text_content()
    # At the smaller epsilon that image stays what it is, and in both models.
    choose(page, "images", "Show", "toy, bim, L∞ norm, ε = 0.1")
    choose(page, "images", "Tolerance τ", "1")
    assert "OON, τ = 1. Test image 1: one stays so" in drawn.text_content()
    choose(page, "images", "Model", "RES")
    assert "RES, no ODE. Test image 1: one stays so" in drawn.text_content()
    assert drawn.locator("image").count() == 5


def saved(page, name: str, label: str) -> tuple[str, bytes]:
    with page.expect_download() as download:
        page.locator(f".saves[data-figure={name}] button", has_text=label).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def test_the_data_of_every_figure_are_saved_as_csv(opened):
    report = opened()
    report.unfold()
    saved_since = 0
    for name in SHOWN:
        datasets = measured_report()[1][name].get("datasets", {})
        saved_since += len(datasets)
        if saved_since > 9:  # Chromium refuses more than ten downloads at once
            report.page.wait_for_timeout(1_100)
            saved_since = len(datasets)
        for number, (_, data) in enumerate(sorted(datasets.items()), start=1):
            mark = f" {number}" if len(datasets) > 1 else ""
            file, found = saved(report.page, name, f"Data{mark} (CSV)")
            assert file == f"{name}{mark.replace(' ', '-')}.csv"
            assert rows(found.decode()) == rows(data)
            assert len(rows(data)) > 1


def test_a_picture_is_what_was_chosen(opened):
    report = opened()
    report.unfold()
    choose(report.page, "growth", "Show")
    title = report.page.locator(f"{chart(report.page, 'growth')} .role-title-text text").first
    file, found = saved(report.page, "growth", "SVG")
    assert file == "growth.svg"
    assert title.text_content() in found.decode()
    file, found = saved(report.page, "growth", "PNG")
    assert (file, found[:4]) == ("growth.png", b"\x89PNG")


def test_a_chart_that_cannot_be_drawn_says_so(opened, report, tmp_path):
    broken = tmp_path / "report.html"
    text = report.read_text()
    start = text.index('id="spec-models">') + len('id="spec-models">')
    end = text.index("</script>", start)
    broken.write_text(text[:start] + json.dumps({"mark": "no", "datasets": {}}) + text[end:])
    opened_report = opened("#models", broken)
    opened_report.page.get_by_text("This chart cannot be drawn").wait_for()
    assert len(opened_report.events) == 1
    opened_report.events.clear()
