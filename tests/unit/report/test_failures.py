"""A figure, a page or a section that fails costs nothing but itself."""

import errno
import io
import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace

import altair as alt
import pytest
from PIL import Image

from node_robustness.errors import UserError
from node_robustness.figures import drawing as drawn
from node_robustness.figures.catalogue import DRAWN, FIGURES
from node_robustness.figures.copies import shared_parts
from node_robustness.figures.drawing import (
    draw,
    draw_still,
    save_drawing,
    save_pixels,
    save_still,
    why_not_drawn,
    why_not_drawn_still,
)
from node_robustness.figures.experiment import of_experiment
from node_robustness.jobs.failures import attempt
from node_robustness.report import dynamics, evidence, findings, markdown
from node_robustness.report import html as report_page
from node_robustness.report import tables as report_tables
from samples import MANIFEST, measured_report, measured_stills, tiny_tables
from vega_lite import spec_of

WHY = "could not be made (ValueError: nothing to draw"


def broken(*_: object, **__: object) -> None:
    raise ValueError("nothing to draw\n    in two lines")


def test_a_figure_that_fails_is_replaced_by_one_that_says_why(tmp_path, caplog):
    figure = draw("The figure clean", broken)
    assert f"The figure clean {WHY} in two lines)" in why_not_drawn(figure.spec)
    assert "Traceback" in caplog.text
    paths = [tmp_path / f"clean.{suffix}" for suffix in ("svg", "png", "json")]
    save_drawing(figure, paths[0], paths[2])
    save_pixels("The PNG", *paths[:2])
    assert why_not_drawn_still(paths[0]) == why_not_drawn(figure.spec)
    Image.open(paths[1]).verify()
    assert json.loads(paths[2].read_text()) == figure.spec


def test_the_figure_that_says_why_is_valid():
    assert why_not_drawn(spec_of(drawn._apology("It is too large."))) == "It is too large."


def test_a_page_that_fails_does_too(tmp_path):
    save_still(draw_still("The page x/image-1", broken), tmp_path / "page.svg")
    assert WHY in why_not_drawn_still(tmp_path / "page.svg")


@pytest.mark.parametrize(
    "chart",
    [
        alt.vconcat(alt.layer()),
        alt.vconcat(alt.Chart(alt.InlineData(values=[{}])).mark_bar().transform_filter("no(1)")),
    ],
    ids=["not a chart", "not an expression"],
)
def test_what_vega_refuses_is_such_a_failure(chart):
    figure = draw("The figure x", lambda: chart)
    assert why_not_drawn(figure.spec).startswith("The figure x could not be made (")


@pytest.mark.parametrize("error", [UserError("a.h5: damaged"), OSError(errno.ENOSPC, "full")])
def test_what_the_user_can_put_right_ends_the_job(error):
    def make() -> None:
        raise error

    with pytest.raises(type(error)):
        attempt("The figure", make, lambda why: why)


def test_a_drawn_figure_has_no_such_reason(tmp_path):
    figure = draw("The figure", lambda: titled("Not so long"))
    assert why_not_drawn(figure.spec) == ""
    save_still(figure.svg, tmp_path / "x.svg")
    assert why_not_drawn_still(tmp_path / "x.svg") == ""


def titled(title: str, height: int = 10) -> alt.VConcatChart:
    return alt.vconcat(
        alt.Chart(alt.InlineData(values=[{}]), title=title).mark_point().properties(height=height)
    )


def test_drawings_are_xml_whatever_names_hold():
    svg = draw("The figure", lambda: titled("<b>&\x00\x1b\uffff")).svg
    texts = [e.text for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "<b>&\ufffd\ufffd\ufffd" in texts


def test_a_very_large_figure_has_fewer_pixels_a_point(monkeypatch):
    monkeypatch.setattr(drawn, "_MOST_PIXELS", 10_000)
    svg = draw("The figure", lambda: titled("", 900)).svg
    image = Image.open(io.BytesIO(drawn.pixels(svg)))
    assert 9_000 < image.width * image.height <= 10_500


def test_pixels_that_fail_are_replaced_by_a_picture_that_says_why(tmp_path, caplog):
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    svg.write_text("no drawing")
    save_pixels("The PNG of the figure x", svg, png)
    assert "The PNG of the figure x could not be made" in caplog.text
    Image.open(png).verify()


def test_the_report_goes_on(tmp_path, monkeypatch):
    tables, charts = measured_report()
    failed = draw("The figure clean", broken).spec
    monkeypatch.setattr(report_page.summary, "claims", broken)
    monkeypatch.setattr(report_page.panels, "grid", broken)
    monkeypatch.setattr(report_page.panels, "panels", broken)
    monkeypatch.setattr(evidence, "obstacles", broken)
    monkeypatch.setattr(findings, "cautions", broken)
    monkeypatch.setattr(dynamics, "sentences", broken)
    changes = replace(report_tables.VIEWS["changes"], rows=broken)
    monkeypatch.setitem(report_tables.VIEWS, "changes", changes)
    monkeypatch.setattr(report_tables, "of_costs", broken)
    path = tmp_path / "report.html"
    charts = {**charts, "clean": failed}
    report_page.render_report("tiny", tables, charts, MANIFEST, None, path, measured_stills())
    page = path.read_text()
    for what in (
        *("The three answers", "The grid of verdicts", "The panels"),
        *(
            f"The text of the topic {name}"
            for name in ("Verdicts in detail", "Attacks", "Dynamics")
        ),
        *("The table changes", "The tables of costs", "The figure clean"),
    ):
        assert f"{what} {WHY}" in page
    assert page.count(WHY) == 9
    assert 'id="figure-clean"' in page
    assert 'id="spec-clean"' not in page
    shown = [name for name in charts if FIGURES[name].section != "summary"]
    assert page.count("data-chart=") == len(shown) - 1
    assert page.count("<caption>") > 8


def test_the_page_of_results_goes_on(folder, monkeypatch):
    whole = markdown.render("tiny", folder)
    assert "could not be made" not in whole
    save_still(draw("The figure nfe", broken).svg, folder / "nfe.svg")
    monkeypatch.setattr(evidence, "obstacles", broken)
    page = markdown.render("tiny", folder)
    assert f"\n\nThe figure nfe {WHY}" in page
    assert f"The text of the topic Verdicts in detail {WHY}" in page
    assert page.count("](tiny/") >= whole.count("](tiny/") - 2
    assert set(page.split("\n## ")[3:]) - set(whole.split("\n## ")[3:]) != set()
    shutil.rmtree(folder)


def test_every_figure_is_made_alone():
    def unknown() -> None:
        raise KeyError("no files")

    charts = of_experiment({}, unknown, unknown, ["OON"])
    assert list(charts) == list(DRAWN)
    for make in charts.values():
        with pytest.raises(KeyError):
            make()
    charts = of_experiment(tiny_tables(), unknown, unknown, ["RES", "OON"])
    for name in ("images", "examples"):
        with pytest.raises(KeyError):
            charts.pop(name)()
    with shared_parts():
        for make in charts.values():
            make()
