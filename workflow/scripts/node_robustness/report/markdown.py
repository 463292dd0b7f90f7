"""A page of results in Markdown, and the small files that it is made from.

The page is a pure function of a folder of CSV tables, figures and the manifest, which travels with
it. With the folder, `make docs` makes the page again after a change of its text, and every number
in it can be traced to a table.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.figures.drawing import why_not_drawn_still
from node_robustness.jobs.failures import attempt, sentences
from node_robustness.report import panels, summary
from node_robustness.report import tables as report_tables
from node_robustness.report.evidence import said
from node_robustness.report.leaderboard import leaderboards
from node_robustness.report.limits import limits
from node_robustness.report.paper import NO_SUCCESS_RATES
from node_robustness.report.phrases import counted
from node_robustness.report.tables import Table
from node_robustness.report.topics import TOPICS
from node_robustness.tables.catalogue import ON_PAGE, TABLES

# Entries of the manifest that name machines are not published.
_PRIVATE = ("host", "hosts")
# A longer table is collapsed.
_ROWS_TO_SHOW = 15
# Of these columns an empty field is an empty text.
_TEXTS = [
    *("experiment", "dataset", "model", "reference_model", "attack", "gradient"),
    *("reason", "because", "lacks", "level", "procedure", "claim", "paper_claim"),
    *("strongest_claim", "norm", "patch", "perturbation", "player"),
    *("tau", "kind", "module", "solves", "ways", "evaluations", "limits", "failed"),
]
_ADDRESS = re.compile(r"https?://[^\s<>|\\`]+")
# An underscore inside a word means nothing.
_MARKUP = re.compile(r"[\\`*\[\]<>~]|(?<!\w)_|_(?!\w)")
_OTHER_THAN_MEDIANS = r"_(?:mean|q\d\d)$"


def gather(tables: Iterable[Path], figures: Iterable[Path], manifest: Path, folder: Path) -> None:
    """Put what the page is made from into a folder.

    Args:
        tables: CSV tables of the experiment. Of some the medians alone are copied, to four digits.
        figures: SVG figures. Those that the tables do not fill are left out.
        manifest: `manifest.json` of the run. The names of its machines are left out.
        folder: Where copies go; it must exist.
    """
    for path in tables:
        copy = _thin if TABLES[path.stem].medians_alone else shutil.copyfile
        copy(path, folder / path.name)
    collected = read_tables(folder)
    for path in figures:
        if has_rows(path.stem, collected):
            shutil.copyfile(path, folder / path.name)
    entries = json.loads(manifest.read_text())
    known = {key: value for key, value in entries.items() if key not in _PRIVATE}
    (folder / manifest.name).write_text(json.dumps(known, indent=2) + "\n")


def render(name: str, folder: Path) -> str:
    """Write the page.

    Args:
        name: Of the experiment, and of the folder, as the page links to it.
        folder: See `gather`.

    Returns:
        The page as Markdown (GitHub's).
    """
    tables = read_tables(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    paper = manifest["config"]["experiments"][name]["paper"]
    lines = [
        f"# {name}: results",
        *sentences("What was asked", lambda: [summary.asked(tables)]),
        *sentences("The answers", lambda: [_claims(name, folder, tables, manifest)]),
        "## Verdicts at a glance",
        *sentences("The grid of verdicts", lambda: _glance(tables)),
        "## Limits of this run",
        *_list(sentences("What limits the run", lambda: limits(tables, manifest, paper, escaped))),
        f"`snakemake docs/results/{name}.md` made this page from the files in [{name}/]({name}/): "
        "no number was typed. Intervals are at 95 %. Every table and figure says of what it "
        "speaks, its [level](../verdict.md#levels-of-inference).",
    ]
    for key, topic in TOPICS.items():
        evidence = _evidence(key, name, folder, tables, manifest, paper)
        if evidence:
            lines += [f"## {topic.title}", f"*{topic.about}*", *topic.notes, *evidence]
    return "\n\n".join(lines) + "\n"


def _claims(
    name: str, folder: Path, tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any]
) -> str:
    """The three answers next to each other: a column each."""
    found = summary.answers(tables, manifest["config"].get("models", {}))
    rows = [
        [claim.paper and f"The paper says: {claim.paper}" for claim in found],
        [_small_figure(name, folder, claim) for claim in found],
        [f"**{claim.answer}**".replace("\n", "<br>") for claim in found],
        [how_sure(claim) for claim in found],
    ]
    return grid([claim.question for claim in found], [row for row in rows if any(row)])


def _small_figure(name: str, folder: Path, claim: summary.Claim) -> str:
    if claim.figure is None:
        return ""
    missing = why_not_drawn_still(folder / f"{claim.figure}.svg")
    return missing or f"![{claim.alt}]({name}/{claim.figure}.svg)"


def how_sure(claim: summary.Claim) -> str:
    """How sure the answer to a claim is, and on what it rests."""
    measured = claim.answer != summary.NOT_MEASURED
    return f"{claim.sure.capitalize()}. {claim.how_sure}" if measured else claim.how_sure


def _glance(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The verdicts as a table a dataset, without rows and columns that say nothing."""
    found = []
    for verdicts in panels.grid(tables):
        rows = [row for row in verdicts.rows if any(map(_says_something, row.fields))]
        columns = [
            column
            for column in range(len(verdicts.columns))
            if any(_says_something(row.fields[column]) for row in rows)
        ]
        found.append(_legend(verdicts))
        if rows:
            header = ["Model", "τ", *(verdicts.columns[column] for column in columns)]
            lines = [
                [row.model, row.tau, *(_sign(row.fields[column]) for column in columns)]
                for row in rows
            ]
            found.append(grid(header, lines))
    return found


def _says_something(field: panels.Field | None) -> bool:
    return field is not None and field.says_something


def _sign(field: panels.Field | None) -> str:
    return f"{field.sign} {field.strongest}" if field and field.says_something else ""


def _legend(grid: panels.Grid) -> str:
    """What the signs mean, and what is left out."""
    known = [field for row in grid.rows for field in row.fields if field is not None]
    shown = [field for field in known if field.says_something]
    silent = len(known) - len(shown)
    left_out = (
        "even the paper's procedure leaves hardly anything, or the network is not accurate "
        "without an attack"
    )
    if not shown:
        return f"**{grid.dataset}**: in no setting is there robustness to speak of ({left_out})."
    verdicts = {field.verdict for field in shown}
    signs = [
        f"{sign}\u00a0{verdict}" for verdict, sign in panels.SIGNS.items() if verdict in verdicts
    ]
    legend = (
        f"**{grid.dataset}**: the [verdict](../verdict.md#verdicts) and the robust accuracy under "
        f"the strongest attack. {', '.join(signs)}."
    )
    if silent:
        legend += f" Left out: {silent} of {counted(len(known), 'setting')} ({left_out})."
    return legend


def _evidence(
    key: str,
    name: str,
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    manifest: Mapping[str, Any],
    paper: str | None,
) -> list[str]:
    """What a topic has to show: sentences, figures and tables."""
    parts = [
        *_list(sentences(f"The text of the topic {TOPICS[key].title}", lambda: said(key, tables))),
        *_figures(name, folder, tables, key),
        *(
            _table(report_tables.show(table, tables))
            for table, view in report_tables.VIEWS.items()
            if view.topic == key and view.on_page
        ),
    ]
    if key == "clean" and paper is not None:
        parts.insert(0, _table(report_tables.papers_accuracy(tables["clean"], paper)))
    if key == "attacks" and paper is not None:
        parts.append(NO_SUCCESS_RATES)
    if key == "leaderboard":
        found = attempt(
            "The leaderboard",
            lambda: leaderboards(tables, manifest["config"].get("models", {})),
            lambda why: [Table(why, [], [])],
        )
        parts += map(_table, found)
    if key == "ran":
        parts = [
            _manifest(name, manifest),
            *parts,
            _table(report_tables.stages(manifest["stages"])),
            *_files(name, tables),
        ]
    if key == "references":
        parts.append(
            "How the results here relate to these: [verdict.md](../verdict.md#prior-work)."
        )
    return [part for part in parts if part]


def _files(name: str, tables: Mapping[str, pd.DataFrame]) -> list[str]:
    rows = [
        [
            f"[{key}.csv]({name}/{key}.csv)",
            TABLES[key].holds,
            f"{len(tables[key]):,}",
            str(TABLES[key].level),
        ]
        for key in ON_PAGE
    ]
    caption = "The tables behind this page; docs/files.md describes their columns."
    return [
        f"{caption}\n\n{_collapsed(grid(['File', 'What it holds', 'Rows', 'Level'], rows), rows)}"
    ]


def _thin(path: Path, copy: Path) -> None:
    frame = _read(path)
    kept = frame.loc[:, ~frame.columns.str.contains(_OTHER_THAN_MEDIANS)]
    kept.to_csv(copy, index=False, float_format="%.4g", lineterminator="\n")


def read_tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a page, as they were before they were written."""
    return {table: _read(folder / f"{table}.csv") for table in ON_PAGE}


def _read(path: Path) -> pd.DataFrame:
    # Names are texts, whatever they look like: a model may be called None or inf.
    names = dict.fromkeys(_TEXTS, str)
    frame = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
    texts = frame.columns.intersection(_TEXTS)
    return frame.fillna(dict.fromkeys(texts, ""))


def _manifest(name: str, manifest: Mapping[str, Any]) -> str:
    versions = manifest["versions"]
    return (
        f"`{manifest['command_line']}` at commit {manifest['git_commit']}, with Python "
        f"{manifest['python']}, torch {versions['torch']} and snakemake {versions['snakemake']}; "
        f"configuration, versions and the SHA-256 of every checkpoint are in "
        f"[manifest.json]({name}/manifest.json)."
    )


def _figures(name: str, folder: Path, tables: Mapping[str, pd.DataFrame], topic: str) -> list[str]:
    """The figures of a topic, or why one could not be drawn."""
    return [
        why_not_drawn_still(folder / f"{figure}.svg")
        or f"![{entry.shows}]({name}/{figure}.svg)\n\n*{entry.shows} Level: {entry.level}.*"
        for figure, entry in FIGURES.items()
        if entry.section == topic and entry.on_page and has_rows(figure, tables)
    ]


def _list(sentences: Iterable[str]) -> list[str]:
    text = "\n".join(f"- {sentence}" for sentence in sentences)
    return [text] if text else []


def _table(table: Table) -> str:
    if not table.header:
        return table.caption
    if not table.rows:
        return ""
    rows = [[escaped(field) for field in row] for row in table.rows]
    return f"{table.caption}\n\n{_collapsed(grid(table.header, rows), rows)}"


def _collapsed(shown: str, rows: Sequence[Any]) -> str:
    """A table in Markdown, folded if it is long."""
    if len(rows) <= _ROWS_TO_SHOW:
        return shown
    return f"<details>\n<summary>The table ({len(rows):,} rows)</summary>\n\n{shown}\n\n</details>"


def escaped(text: str) -> str:
    """Text that means nothing in Markdown; an address of the web alone becomes a link."""
    if _ADDRESS.fullmatch(text):
        return f"<{text}>"
    return _MARKUP.sub(lambda sign: f"\\{sign[0]}", " ".join(text.split())).replace("&", "&amp;")


def grid(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
        for row in [header, ["---"] * len(header), *rows]
    )


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(render(page.stem, page.with_suffix("")), encoding="utf-8")
