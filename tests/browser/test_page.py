"""The report as readers use it: first screen, panels, search, tables, charts, print.

All tests of the page are in this file, so that one process makes the report and draws its charts.
"""

import csv
import io
import json
import re
import unicodedata
import zlib
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe

from node_robustness.figures.catalogue import FIGURES
from node_robustness.report.html import render_report
from node_robustness.report.topics import TOPICS
from samples import MANIFEST, measured_report, own_tables

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 768, "height": 1024}


def inside(page, locator) -> bool:
    """Whether all of an element is in the window."""
    box, window = locator.bounding_box(), page.viewport_size
    return (
        box["x"] >= 0
        and box["y"] >= 0
        and box["x"] + box["width"] <= window["width"]
        and box["y"] + box["height"] <= window["height"]
    )


class TestFirstScreen:
    def test_claims_and_the_head_of_the_grid_need_no_scrolling(self, opened):
        page = opened().page
        assert page.locator(".claim").count() == 3
        for claim in page.locator(".claim").all():
            assert inside(page, claim)
            for part in ("h2", ".answer", ".sure"):
                assert claim.locator(part).inner_text().strip()
        assert page.locator(".claim svg").count() >= 2
        assert inside(page, page.locator(".asked"))
        assert inside(page, page.locator(".grid thead").first)

    def test_a_model_with_none_to_compare_with_needs_none_either(self, opened, tmp_path):
        tables = own_tables(models=("theirs",))
        verdicts = tables["verdicts"].assign(verdict="undecided", because="images", needed=1234.0)
        three = [verdicts.assign(epsilon=epsilon) for epsilon in (0.05, 0.1, 0.2)]
        tables |= {"verdicts": pd.concat(three), "costs": tables["clean"].iloc[:0]}
        path = tmp_path / "report.html"
        render_report("theirs", tables, {}, MANIFEST, None, path)
        page = opened(path=path).page
        (first, *_) = claims = page.locator(".claim").all()
        assert "real?" in first.locator("h2").inner_text()
        assert first.locator(".answer").inner_text().count("it takes at least 1,234 images.") == 3
        assert len(claims) == 3
        assert all(inside(page, claim) for claim in claims)
        assert inside(page, page.locator(".grid thead").first)

    def test_the_evidence_of_a_claim_is_a_click_away(self, opened):
        page = opened().page
        page.locator(".claim .sure a").first.click()
        assert page.locator("#models").get_attribute("open") is not None
        assert page.locator("#models").bounding_box()["y"] < 200
        page.go_back()
        assert page.url.endswith("report.html")

    @pytest.mark.parametrize("size", [PHONE, TABLET, {"width": 1280, "height": 800}])
    def test_the_contents_stay_in_view(self, opened, size):
        page = opened(viewport=size).page
        page.locator("#ran > summary").click()
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        assert page.evaluate("scrollY") > 100
        assert inside(page, page.locator("nav a").first)
        names = [link.inner_text() for link in page.locator("nav a").all()]
        assert names == [topic.title for topic in TOPICS.values()]


def first_field(page):
    return page.locator(".field:visible").first


class TestPanel:
    @pytest.mark.parametrize("key", ["click", "Enter", " "])
    def test_a_field_opens_it_and_escape_gives_the_focus_back(self, opened, key):
        page = opened().page
        field = first_field(page)
        setting = field.get_attribute("data-setting")
        if key == "click":
            field.click()
        else:
            field.focus()
            page.keyboard.press(key)
        panel = page.locator("#panel")
        assert panel.is_visible()
        assert page.url.endswith("#" + setting)
        assert page.evaluate("document.activeElement.id") == "panel-title"
        page.keyboard.press("Escape")
        assert panel.is_hidden()
        assert page.evaluate("document.activeElement.dataset.setting") == setting
        assert "#" not in page.url

    def test_it_shows_what_is_known_of_the_setting(self, opened):
        page = opened("#toy/OON/tau-1/linf/0.1").page
        text = page.locator("#panel").inner_text()
        for part in ("masked on toy", "P, paper’s", "90.0 %", "R, strongest", "34.7 %"):
            assert part in text
        heads = page.locator("#panel h3").all_inner_texts()
        assert {"Robust accuracy", "Attacks that decided", "Checks", "Along the ODE"} <= {*heads}
        assert "results/tiny/toy/OON/seed-0/tau-1/clean.h5" in text
        assert page.locator("#panel svg.plot path.curve").count() >= 2
        assert page.locator("#panel .track .value").count() >= 4

    def test_its_address_opens_it_and_the_way_back_closes_it(self, opened):
        page = opened("#toy/OON/tau-1/linf/0.1").page
        assert page.locator("#panel").is_visible()
        page.locator("#close").click()
        assert page.locator("#panel").is_hidden()
        page.go_back()
        assert page.locator("#panel").is_visible()
        page = opened("#models").page
        first_field(page).click()
        assert page.locator("#panel").is_visible()
        page.go_back()
        assert page.locator("#panel").is_hidden()
        assert page.url.endswith("#models")
        page.go_forward()
        assert page.locator("#panel").is_visible()

    def test_it_leads_to_the_settings_next_to_it(self, opened):
        page = opened().page
        settings = [f.get_attribute("data-setting") for f in page.locator(".field:visible").all()]
        first_field(page).click()
        assert page.locator("#previous").is_disabled()
        page.locator("#next").click()
        assert page.url.endswith("#" + settings[1])
        page.locator("#previous").click()
        assert page.url.endswith("#" + settings[0])

    def test_arrow_keys_move_in_the_grid(self, opened):
        page = opened().page
        first_field(page).focus()
        page.keyboard.press("ArrowDown")
        below = page.evaluate("document.activeElement.dataset.setting")
        assert below == page.locator(".grid tbody tr:visible .field").nth(1).get_attribute(
            "data-setting"
        )
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.dataset.setting") == first_field(
            page
        ).get_attribute("data-setting")

    def test_names_are_text(self, opened, tmp_path):
        tables, charts = measured_report()
        name = "<script>alert(1)</script><img src=x onerror=alert(1)>"
        hostile = {
            key: table.replace({"OON": name}) if "model" in table else table
            for key, table in tables.items()
        }
        path = tmp_path / "report.html"
        render_report(
            "tiny", hostile, charts, MANIFEST, None, path, dict.fromkeys(charts, "<svg/>")
        )
        page = opened(path=path).page
        page.locator(".field", has_text="").first.wait_for()
        page.locator(f".grid tr:has-text('{name}') .field").first.click()
        assert name in page.locator("#panel-title").inner_text()
        assert page.locator("#panel img[src=x], #panel script").count() == 0


class TestSearchAndTables:
    def test_it_keeps_the_fields_and_rows_that_fit(self, opened):
        page = opened().page
        page.locator("#verdicts > summary").click()
        page.locator("#search").fill("OON τ=1")
        fields = page.locator(".field:visible").all()
        assert fields
        assert {f.get_attribute("data-setting").split("/")[2] for f in fields} == {"tau-1"}
        table = page.locator("#verdicts table", has=page.locator("[id^=row-]"))
        assert table.locator("tbody tr:visible").count() == 1
        assert "1 of 3 settings" in page.locator("#found").inner_text()
        page.locator("#search").fill("RES tau")
        assert page.locator("#found").inner_text().startswith("0 of 3")
        page.locator("#search").fill("")
        assert table.locator("tbody tr:visible").count() == 3

    def test_numbers_are_words_as_a_whole(self, opened):
        page = opened().page
        page.locator("#search").fill("0.0")
        assert page.locator(".field:visible").count() == 0
        page.locator("#search").fill("0.01")
        assert page.locator(".field:visible").count() == 1

    def column(self, page, head: str) -> list[str]:
        table = page.locator("#ran table").last
        heads = [text.strip() for text in table.locator("th").all_inner_texts()]
        place = next(i for i, text in enumerate(heads) if text.startswith(head))
        return table.locator(f"td:nth-child({place + 1})").all_inner_texts()

    def test_tables_sort_numbers_as_numbers_and_the_missing_last(self, opened):
        page = opened("#ran").page
        table = page.locator("#ran table").last
        before = self.column(page, "Seconds")
        head = table.locator("th", has_text=re.compile("^Seconds"))
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert self.column(page, "Seconds") == sorted(before, key=float)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert self.column(page, "Seconds") == sorted(before, key=float, reverse=True)
        model = table.locator("th", has_text=re.compile(r"^Model\W*$"))
        model.locator("button").press("Enter")
        assert head.get_attribute("aria-sort") is None
        assert self.column(page, "Model")[-1] == "–"

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("1,024", 1024),
            ("−12.5 (−13 to −12)", -12.5),
            ("98.0 % (94.3 to 99.6)", 98),
            ("1:02:05", 3725),
            ("1e-05", 1e-5),
            ("2026-11-28 15:00:00", None),
            ("apgd_ce", None),
        ],
    )
    def test_what_is_a_number(self, unfolded, text, value):
        number = "text => Number.isNaN(numeric(text)) ? null : numeric(text)"
        found = unfolded().page.evaluate(number, text)
        assert found == value


SHOWN = [name for name, entry in FIGURES.items() if entry.section != "summary"]


def chart(page, name: str) -> str:
    return f"[data-chart={name}] svg.marks"


def test_a_chart_is_drawn_once_its_topic_opens(opened):
    report = opened()
    assert report.page.locator("[data-chart] svg").count() == 0
    report.page.locator("#models > summary").click()
    report.page.locator(chart(report.page, "models")).wait_for()
    assert report.page.locator(chart(report.page, "trajectories")).count() == 0


def test_every_chart_is_drawn(unfolded):
    report = unfolded()
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
def test_a_mark_shows_its_tooltip(unfolded, name, marks, text, place):
    if "symbol" in marks and place is not None:
        return  # A point has no corner.
    report = unfolded()
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
def test_every_menu_changes_its_figure(unfolded, name):
    report = unfolded()
    labels = report.page.locator(f"#menu-{name} label").all()
    assert [label.inner_text().split(":")[0] for label in labels] == MENUS[name]
    # From the last: a model without an ODE, which is then chosen, has no tolerance.
    for menu in reversed(MENUS[name]):
        if (name, menu) not in ONE_CHOICE:
            choose(report.page, name, menu)


def test_the_page_of_an_image_is_chosen_by_model_tolerance_condition_and_image(opened):
    page = opened("#" + FIGURES["images"].section).page
    drawn = page.locator(chart(page, "images"))
    drawn.wait_for()
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


# Chromium refuses more than ten downloads a second: here nothing is downloaded.
SAVE_ALL = """async figure => {
  const found = [];
  const create = URL.createObjectURL;
  let data;
  URL.createObjectURL = blob => create.call(URL, data = blob);
  HTMLAnchorElement.prototype.click = function () { found.push([this.download, data]); };
  const buttons = [...document.querySelectorAll(`.saves[data-figure=${figure}] button`)];
  const labels = buttons.map(button => button.textContent).filter(text => text.startsWith("Data"));
  for (const button of buttons.slice(0, labels.length)) button.click();
  delete HTMLAnchorElement.prototype.click;
  URL.createObjectURL = create;
  return Promise.all(found.map(async ([file, blob], i) => [labels[i], file, await blob.text()]));
}"""


def test_the_data_of_every_figure_are_saved_as_csv(unfolded):
    report = unfolded()
    for name in SHOWN:
        datasets = measured_report()[1][name].get("datasets", {})
        found = report.page.evaluate(SAVE_ALL, name)
        assert len(found) == len(datasets)
        for number, (_, data) in enumerate(sorted(datasets.items()), start=1):
            mark = f" {number}" if len(datasets) > 1 else ""
            label, file, text = found[number - 1]
            assert label == f"Data{mark} (CSV)"
            assert file == f"{name}{mark.replace(' ', '-')}.csv"
            assert rows(text) == rows(data)
            assert len(rows(data)) > 1


def test_data_are_downloaded(unfolded):
    figures = {name: figure.get("datasets", {}) for name, figure in measured_report()[1].items()}
    name = next(name for name in SHOWN if len(figures[name]) == 1)
    (data,) = figures[name].values()
    file, found = saved(unfolded().page, name, "Data (CSV)")
    assert file == f"{name}.csv"
    assert rows(found.decode()) == rows(data)


def test_a_picture_is_what_was_chosen(unfolded):
    report = unfolded()
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


CLIPPED = """() => {
  const clipped = [];
  const hides = value => ["hidden", "clip"].includes(value);
  for (const element of document.querySelectorAll("body *")) {
    if (!element.checkVisibility() || element.closest("svg, .bar label, .skip")) continue;
    const style = getComputedStyle(element);
    const wide = element.clientWidth && element.scrollWidth > element.clientWidth + 1;
    const high = element.clientHeight && element.scrollHeight > element.clientHeight + 1;
    const says = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    // Text may be hidden by its box, or stick out of it; boxes that scroll show all of theirs.
    const out = wide && says && style.overflowX === "visible" && style.display !== "inline";
    if ((wide && hides(style.overflowX)) || (high && hides(style.overflowY)) || out) {
      clipped.push(`${element.tagName}.${element.className}: ${element.textContent.slice(0, 60)}`);
    }
  }
  for (const text of document.querySelectorAll("svg text")) {
    if (!text.checkVisibility() || !text.textContent) continue;
    const [own, all] = [text, text.ownerSVGElement].map(part => part.getBoundingClientRect());
    const inside = own.left > all.left - 1 && own.right < all.right + 1
      && own.top > all.top - 1 && own.bottom < all.bottom + 1;
    if (!inside) clipped.push(`chart: ${text.textContent}`);
  }
  return clipped;
}"""


@pytest.mark.parametrize("width", [1280, 768, 390])
def test_no_text_is_clipped(unfolded, width):
    page = unfolded(viewport={"width": width, "height": 800}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CLIPPED) == []
    page.locator(".field:visible").first.click()
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate("panel.scrollWidth <= panel.clientWidth")


@pytest.mark.parametrize(
    ("size", "scheme"),
    [(PHONE, "dark"), ({"width": 1280, "height": 800}, "light")],
    ids=["phone-dark", "desk-light"],
)
def test_axe_finds_no_serious_fault(unfolded, size, scheme):
    """Each size in one scheme: sizes decide on no colour, and schemes on nothing but colours."""
    page = unfolded(viewport=size, color_scheme=scheme).page
    assert faults(page) == []
    page.locator(".field:visible").first.click()
    assert faults(page) == []


def faults(page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{fault['id']}: {node['html'][:200]}: {node['failureSummary']}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


def test_print_shows_everything_and_the_claims_first(opened):
    page = opened().page
    pages = texts_of(page.pdf(format="A4"))
    assert len(pages) > 1
    whole = squeezed(" ".join(pages))
    for claim in page.locator(".claim").all():
        for part in ("h2", ".answer"):
            assert squeezed(claim.locator(part).inner_text()) in squeezed(pages[0])
    for key, topic in TOPICS.items():
        assert squeezed(topic.title) in whole
        for heading in page.locator(f"#{key} h3").all():
            assert squeezed(heading.text_content()) in whole
        for caption in page.locator(f"#{key} caption").all():
            assert squeezed(caption.text_content())[:60] in whole
    # Charts, too, though no topic was opened.
    assert page.locator("[data-chart] svg.marks").count() == page.locator("[data-chart]").count()
    assert page.locator("details[open]").count() == 0


def squeezed(text: str) -> str:
    """Text without spaces and ligatures, which a PDF has in other places."""
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", text))


def texts_of(pdf: bytes) -> list[str]:
    """The text of each page of a PDF that Chromium wrote."""
    objects = {
        int(number): body for number, body in re.findall(rb"(?s)\n(\d+) 0 obj\n?(.*?)\nendobj", pdf)
    }

    def stream(number: int) -> bytes:
        body = objects[number]
        return zlib.decompress(body[body.index(b"stream\n") + 7 : body.rindex(b"\nendstream")])

    def letters(font: int) -> dict[int, str]:
        """What each glyph of a font stands for."""
        known = stream(int(re.search(rb"/ToUnicode (\d+) 0 R", objects[font])[1])).decode()
        found = {}
        for block in re.findall(r"(?s)beginbfchar\n(.*?)endbfchar", known):
            for glyph, text in re.findall("<(.*?)> <(.*?)>", block):
                found[int(glyph, 16)] = bytes.fromhex(text).decode("utf-16-be")
        for block in re.findall(r"(?s)beginbfrange\n(.*?)endbfrange", known):
            for low, high, text in re.findall("<(.*?)> <(.*?)> <(.*?)>", block):
                for i in range(int(low, 16), int(high, 16) + 1):
                    found[i] = chr(int(text, 16) + i - int(low, 16))
        return found

    pages = []
    for body in objects.values():
        if re.search(rb"/Type /Page\b(?!s)", body):
            fonts = re.search(rb"(?s)/Font <<(.*?)>>", body)
            named = dict(re.findall(rb"/(\w+) (\d+) 0 R", fonts[1])) if fonts else {}
            known = {name: letters(int(number)) for name, number in named.items()}
            text, font = "", {}
            code = stream(int(re.search(rb"/Contents (\d+) 0 R", body)[1]))
            for name, glyphs in re.findall(rb"/(\w+) [\d.]+ Tf|<([0-9A-Fa-f]+)>", code):
                if name:
                    font = known[name]
                else:
                    for i in range(0, len(glyphs), 4):
                        text += font.get(int(glyphs[i : i + 4], 16), "")
            pages.append(text)
    return pages


def test_everything_can_be_read_without_javascript(opened):
    page = opened(java_script_enabled=False).page
    assert page.locator("search").is_hidden()
    figures = page.locator("[data-chart]").count()
    assert page.locator("noscript img").count() == figures
    page.locator(".field").first.click()
    row = page.locator(
        "[id='row-" + page.locator(".field").first.get_attribute("data-setting") + "']"
    )
    assert row.is_visible()
    page.locator("#models > summary").click()
    assert page.locator("#models noscript img").first.is_visible()
