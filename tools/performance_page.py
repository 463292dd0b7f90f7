"""Write docs/performance.md from docs/performance/: the template and what the benchmarks measured.

    python tools/performance_page.py

The JSON files are copies of what `benchmarks/speed.py` and `benchmarks/scale.py` write.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/performance"
PAGE = FOLDER.with_suffix(".md")

Row = Mapping[str, Any]


def render() -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (short, span, scaled, by_model, reworded):
        environment.filters[function.__name__] = function
    environment.globals |= {"table": table}
    measured = {path.stem: json.loads(path.read_text()) for path in FOLDER.glob("*.json")}
    return environment.get_template("page.md.j2").render(measured)


def short(value: Any) -> str:
    """A value as text: numbers with three digits, or whole from 1,000."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if value >= 1000 else f"{float(f'{value:.3g}'):g}"
    return str(value)


def span(values: Iterable[float], digits: int = 2) -> str:
    """The smallest and the largest of some numbers."""
    found = sorted(values)
    ends = dict.fromkeys(f"{float(f'{value:.{digits}g}'):g}" for value in (found[0], found[-1]))
    return " to ".join(ends)


def scaled(values: Iterable[float], factor: float) -> list[float]:
    """The numbers times a factor."""
    return [value * factor for value in values]


def by_model(rows: Iterable[Row], key: str, value: str) -> list[Row]:
    """One row for each value of a key, with a column for each model."""
    found: dict[Any, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row[key], {key: row[key]})[row["model"]] = row[value]
    return list(found.values())


def reworded(rows: Iterable[Row], words: Mapping[str, str]) -> list[Row]:
    """Rows with other words for some of their texts."""
    return [
        {
            key: words.get(value, value) if isinstance(value, str) else value
            for key, value in row.items()
        }
        for row in rows
    ]


def table(rows: Iterable[Row], columns: Mapping[str, str]) -> str:
    """A table in Markdown: columns are the keys of the rows, with their headings."""
    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[short(row.get(key)) for key in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
