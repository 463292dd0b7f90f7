"""Draw docs/images/rules.svg: the rules of the default run, as `snakemake --rulegraph` lists them.

    python tools/rules_picture.py

Graphviz is not needed. Columns follow the longest path to a rule. An edge that follows from others
is left out. Colours have enough contrast on a light and on a dark page.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/rules.svg"

_CHARACTER, _PADDING, _GAP = 7.5, 12, 34  # widths, in pixels
_HEIGHT, _LINE, _MARGIN = 28, 42, 6

Edges = set[tuple[str, str]]


def graph() -> str:
    """The graph of the rules in the dot language."""
    snakemake = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    with tempfile.TemporaryDirectory() as folder:
        command = [*snakemake, "--directory", folder, "--rulegraph", "dot"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def edges(dot: str) -> Edges:
    """Which rule needs which, without rule `all` and without what follows from other edges."""
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', dot))
    pairs = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", dot) if a != b}
    pairs = {(a, b) for a, b in pairs if b != "all"}
    after = {a: {d for c, d in pairs if c == a} for a, _ in pairs}

    def reached(name: str) -> set[str]:
        return {name}.union(*map(reached, after.get(name, ())))

    return {(a, b) for a, b in pairs if not any(b in reached(c) for c in after[a] - {b})}


def columns(pairs: Edges) -> list[list[str]]:
    """The rules of every column, in an order with few crossings.

    An edge that passes a column has an empty place there, named by the edge.
    """
    before: dict[str, set[str]] = defaultdict(set)
    for a, b in pairs:
        before[b].add(a)

    def depth(name: str) -> int:
        return max((depth(a) + 1 for a in before.get(name, ())), default=0)

    rules = sorted({name for pair in pairs for name in pair})
    result: list[list[str]] = [[] for _ in range(max(map(depth, rules)) + 1)]
    for name in rules:
        result[depth(name)].append(name)
    left: dict[str, set[str]] = defaultdict(set)
    right: dict[str, set[str]] = defaultdict(set)
    for a, b in sorted(pairs):
        path = steps(a, b, depth(b) - depth(a) - 1)
        for column, place in enumerate(path[1:-1], depth(a) + 1):
            result[column].append(place)
        for one, other in pairwise(path):
            right[one].add(other)
            left[other].add(one)
    # Barycentres: to the left and back, and to the right last.
    for near, order in [(left, result), (right, result[::-1]), (left, result)] * 4:
        for places in order:
            height = _heights(result)
            places.sort(key=lambda name: mean(height[n] for n in near[name] or [name]))
    return result


def steps(a: str, b: str, passed: int) -> list[str]:
    """The places of an edge from its first rule to its last."""
    return [a, *(f"{a}>{b}" for _ in range(passed)), b]


def _heights(order: list[list[str]]) -> dict[str, float]:
    return {
        name: (place - (len(column) - 1) / 2) * _LINE
        for column in order
        for place, name in enumerate(column)
    }


def svg(dot: str) -> str:
    """The picture."""
    pairs = edges(dot)
    order = columns(pairs)
    height = _MARGIN * 2 + _HEIGHT + _LINE * (max(map(len, order)) - 1)
    boxes: dict[tuple[int, str], tuple[float, float, float]] = {}  # left, width, middle
    left = float(_MARGIN)
    heights = [_heights([column]) for column in order]
    for number, column in enumerate(order):
        width = _PADDING * 2 + _CHARACTER * max(len(name) for name in column if ">" not in name)
        for name in column:
            boxes[number, name] = (left, width, height / 2 + heights[number][name])
        left += width + _GAP
    at = {name: number for number, name in boxes if ">" not in name}
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg"'
        f' viewBox="0 0 {left - _GAP + _MARGIN:g} {height:g}"'
        ' role="img" font-family="Helvetica, Arial, sans-serif" font-size="13">',
        "<title>The rules of the workflow, and which of them need the files of others</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7"'
        ' markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="#888"/></marker></defs>',
    ]
    for a, b in sorted(pairs):
        places = list(zip(range(at[a], at[b] + 1), steps(a, b, at[b] - at[a] - 1), strict=True))
        x, width, y = boxes[places[0]]
        path = f"M{x + width:g} {y:g}"
        x += width
        for place in places[1:]:
            right, width, level = boxes[place]
            path += f"C{x + _GAP / 2:g} {y:g} {right - _GAP / 2:g} {level:g} {right:g} {level:g}"
            x, y = right, level
            if place != places[-1]:
                x += width
                path += f"H{x:g}"
        lines.append(
            f'<path d="{path}" fill="none" stroke="#888" marker-end="url(#arrow)">'
            f"<title>{a} to {b}</title></path>"
        )
    for (_, name), (x, width, y) in boxes.items():
        if ">" not in name:
            lines.append(
                f'<rect x="{x:g}" y="{y - _HEIGHT / 2:g}" width="{width:g}" height="{_HEIGHT}"'
                ' rx="6" fill="#0072b2"/>'
                f'<text x="{x + width / 2:g}" y="{y + 4.5:g}" text-anchor="middle" fill="#fff">'
                f"{name}</text>"
            )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(svg(graph()), encoding="utf-8")
