"""From charts to files; a chart that cannot be drawn is replaced by one that says why."""

import json
import math
import re
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from node_robustness.figures.copies import shared_parts
from node_robustness.figures.style import PANEL, inline, styled
from node_robustness.files.atomic import atomic_path
from node_robustness.jobs.failures import attempt

_NOT_DRAWN = "Not drawn"
_REASON = "not_drawn"
_BACKGROUND = re.compile('<rect width="[^"]*" height="[^"]*" fill="white"/>')
_LINE = 90  # letters of a reason that stand in one line
_PIXELS_A_POINT = 2
# A larger picture takes more memory than such a job asks for.
_MOST_PIXELS = 2**25
# What XML cannot hold, not even escaped; the renderer ends the whole process at a zero.
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


@dataclass(frozen=True)
class Drawing:
    """A figure as it goes into files.

    Attributes:
        spec: its Vega-Lite specification, with its data.
        svg: the still image, well-formed.
    """

    spec: dict[str, Any]
    svg: str


def draw(what: str, make: Callable[[], alt.VConcatChart]) -> Drawing:
    """Draw a figure or, if that fails, one that says why.

    Args:
        what: The figure for people, as the subject of a sentence.
        make: Makes the chart.
    """
    with shared_parts():
        return attempt(what, lambda: render(make()), lambda why: render(_apology(why)))


def draw_still(what: str, make: Callable[[], alt.VConcatChart]) -> str:
    """Draw a figure as SVG alone or, if that fails, one that says why; see `draw`."""
    with shared_parts():
        return attempt(what, lambda: still(_spec(make())), lambda why: still(_spec(_apology(why))))


def render(chart: alt.VConcatChart) -> Drawing:
    """Draw a chart."""
    spec = _spec(chart)
    return Drawing(spec, still(spec))


def _spec(chart: alt.VConcatChart) -> dict[str, Any]:
    """The specification of a chart.

    The tests validate those of all figures. Here it would take half of the time of a specification,
    and a chart that cannot be drawn is found by drawing it.
    """
    spec: dict[str, Any] = chart.to_dict(validate=False)
    return spec


def _apology(why: str) -> alt.VConcatChart:
    nothing = alt.Chart(inline(pd.DataFrame())).mark_point()
    chart = styled(
        alt.vconcat(nothing.properties(width=3 * PANEL, height=1)),
        _NOT_DRAWN,
        textwrap.wrap(why, _LINE),
    )
    chart.usermeta = {_REASON: why}
    return chart


def why_not_drawn(spec: dict[str, Any]) -> str:
    """Return why there is no figure in a specification; empty if there is one."""
    return str(spec.get("usermeta", {}).get(_REASON, ""))


def why_not_drawn_still(svg: Path) -> str:
    """Return why there is no figure in an SVG file; empty if there is one."""
    texts = ["".join(e.itertext()) for e in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]
    if texts[:1] != [_NOT_DRAWN]:
        return ""
    reason = ET.parse(svg).findall(".//{http://www.w3.org/2000/svg}text")[1]
    return " ".join(text.strip() for text in reason.itertext())


def still(spec: dict[str, Any]) -> str:
    """Draw a Vega-Lite specification as SVG, without the marks that only carry tooltips."""
    text = json.dumps(_for_still(spec), ensure_ascii=False, sort_keys=True)
    svg: str = vl_convert.vegalite_to_svg(text, allowed_base_urls=[])
    svg = _numbered(_numbered(svg, "gradient_", 0), "clip", 1)
    ET.fromstring(svg)  # raises if a viewer could not read it either
    return svg


def _numbered(svg: str, name: str, first: int) -> str:
    """An SVG with ids as in a new process: they are numbered through all drawings of a process."""
    pattern = rf'(?<=[#"]){name}\d+(?=[)"])'
    ids = list(dict.fromkeys(re.findall(pattern, svg)))
    return re.sub(pattern, lambda found: f"{name}{first + ids.index(found[0])}", svg)


def without_background(svg: str) -> str:
    """The SVG that `still` draws of the same figure with a transparent background."""
    return _BACKGROUND.sub("", svg, count=1)


def pixels(svg: str) -> bytes:
    """Draw an SVG as PNG: two pixels a point, or fewer where the image is very large."""
    width, height = (float(ET.fromstring(svg).get(side, 1)) for side in ("width", "height"))
    scale = min(_PIXELS_A_POINT, math.sqrt(_MOST_PIXELS / (width * height)))
    png: bytes = vl_convert.svg_to_png(svg, scale=scale)
    return png


def _for_still(part: Any) -> Any:
    """A part of a specification without marks and letters that a still image cannot have."""
    if isinstance(part, dict):
        return {name: _for_still(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_for_still(item) for item in part if not _is_unseen(item)]
    return _NO_XML.sub("\ufffd", part) if isinstance(part, str) else part


def _is_unseen(part: Any) -> bool:
    """Whether a part of a specification is a layer of points that nobody sees."""
    mark = part.get("mark") if isinstance(part, dict) else None
    return isinstance(mark, dict) and mark.get("opacity") == 0


def save_drawing(figure: Drawing, svg: Path | str, json_path: Path | str) -> None:
    """Write a drawing as SVG and as Vega-Lite JSON.

    Args:
        figure: What `draw` returns.
        svg: Where the SVG goes.
        json_path: Where the specification, with its data, goes.
    """
    text = json.dumps(figure.spec, ensure_ascii=False, sort_keys=True)
    with atomic_path(json_path) as path:
        path.write_text(text, encoding="utf-8")
    save_still(figure.svg, svg)


def save_still(drawn: str, svg: Path | str) -> None:
    """Write the SVG that `still` returns."""
    with atomic_path(svg) as path:
        path.write_text(drawn, encoding="utf-8")


def save_pixels(what: str, svg: Path, png: Path | str) -> None:
    """Write an SVG file as PNG or, if that fails, a picture that says why.

    Args:
        what: The figure for people, as the subject of a sentence.
        svg: What `save_still` wrote.
        png: Where the PNG goes.
    """
    drawn = attempt(
        what,
        lambda: pixels(svg.read_text(encoding="utf-8")),
        lambda why: pixels(still(_spec(_apology(why)))),
    )
    with atomic_path(png) as path:
        path.write_bytes(drawn)
