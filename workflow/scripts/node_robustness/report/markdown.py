"""A page of results in Markdown, and the small files that it is made from.

The page is a pure function of a folder of CSV tables, figures and the manifest, which travels with
it. With the folder, `make docs` makes the page again after a change of its text, and every number
in it can be traced to a table.
"""

import html
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from node_robustness.config.methods import BUILT_IN, METHODS
from node_robustness.config.presets import PRESETS
from node_robustness.figures.catalogue import FIGURES, has_rows
from node_robustness.figures.drawing import why_not_drawn_still
from node_robustness.jobs.failures import sentences
from node_robustness.report import answers, dynamics, findings
from node_robustness.report import tables as report_tables
from node_robustness.report.paper import CITATION, CLAIMS, EPOCHS, NO_SUCCESS_RATES, PRIOR_WORK
from node_robustness.report.reservations import reservations
from node_robustness.report.tables import Table
from node_robustness.tables.catalogue import ON_PAGE, TABLES
from node_robustness.verdict.verdicts import UNDECIDED
from node_robustness.words import listed, percent

# Entries of the manifest that name machines are not published.
_PRIVATE = ("host", "hosts")
# A longer table is collapsed.
_ROWS_TO_SHOW = 40
# Of these columns an empty field is an empty text.
_TEXTS = [
    *("experiment", "dataset", "model", "reference_model", "attack", "gradient"),
    *("reason", "because", "lacks", "level", "procedure", "claim", "paper_claim"),
    *("strongest_claim", "norm"),
]
_OTHER_THAN_MEDIANS = r"_(?:mean|q\d\d)$"


def gather(tables: Iterable[Path], figures: Iterable[Path], manifest: Path, folder: Path) -> None:
    """Put what the page is made from into a folder.

    Args:
        tables: CSV tables of the experiment. Of some the medians alone are copied, to four digits.
        figures: SVG figures.
        manifest: `manifest.json` of the run. The names of its machines are left out.
        folder: Where copies go; it must exist.
    """
    for path in tables:
        copy = _thin if TABLES[path.stem].medians_alone else shutil.copyfile
        copy(path, folder / path.name)
    for path in figures:
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
    tables = {table: _read(folder / f"{table}.csv") for table in ON_PAGE}
    manifest = json.loads((folder / "manifest.json").read_text())
    paper = manifest["config"]["experiments"][name]["paper"]
    sections: dict[str, Callable[[], list[str]]] = {
        "In short": lambda: [
            *_list(reservations(tables, manifest["config"].get("datasets", {}))),
            *_answers(tables, paper),
        ],
        "Limits of this run": lambda: _list(_limits(tables, manifest, paper)),
        "What ran": lambda: [_manifest(name, manifest)],
        "Clean images": lambda: [
            "" if paper is None else _table(report_tables.papers_accuracy(tables["clean"], paper))
        ],
        "Success of the attacks": lambda: [
            *_list(findings.sentences(tables["clean"], tables["attacks"])),
            "" if paper is None else NO_SUCCESS_RATES,
        ],
        "Verdicts": list,
        "Gradients": lambda: _list(findings.of_gradients(tables["audit"])),
        "Defences by tolerance": lambda: _list(findings.of_detection(tables["detection"])),
        "Along the ODE": lambda: _list(
            dynamics.sentences(
                *(tables[key] for key in ("trajectory_summary", "trajectories", "probes"))
            )
        ),
        "Cost": lambda: [_table(report_tables.stages(manifest["stages"]))],
        "Tables": lambda: [
            *_list(
                f"[{key}.csv]({name}/{key}.csv): {TABLES[key].holds} ({len(tables[key]):,} "
                f"rows; {TABLES[key].level})"
                for key in ON_PAGE
            ),
            "[files.md](../files.md) describes their columns.",
        ],
    }
    lines = [
        f"# {name}: results",
        f"*Made by `snakemake docs/results/{name}.md` from the files in [{name}/]({name}/). No "
        "number here was typed. Intervals are at 95 %.*",
    ]
    for title, make in sections.items():
        parts = [
            *sentences(f"The section {title}", make),
            *(
                _table(report_tables.show(key, tables))
                for key, view in report_tables.VIEWS.items()
                if view.page_section == title
            ),
            *_figures(name, folder, tables, title),
        ]
        own = [part for part in parts if part]
        if own:
            lines += [f"## {title}", *own]
    lines += [
        "## References",
        *_list(
            [
                f"The paper: {CITATION}",
                *(f"{work} {finding}" for work, finding in PRIOR_WORK.items()),
                "How the results here relate to these: [verdict.md](../verdict.md#prior-work).",
            ]
        ),
    ]
    return "\n\n".join(lines) + "\n"


def _thin(path: Path, copy: Path) -> None:
    frame = _read(path)
    kept = frame.loc[:, ~frame.columns.str.contains(_OTHER_THAN_MEDIANS)]
    kept.to_csv(copy, index=False, float_format="%.4g", lineterminator="\n")


def _read(path: Path) -> pd.DataFrame:
    # Names are texts, whatever they look like: a model may be called None or inf.
    names = dict.fromkeys(_TEXTS, str)
    frame = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=[""])
    texts = frame.columns.intersection(_TEXTS)
    return frame.fillna(dict.fromkeys(texts, ""))


def _answers(tables: Mapping[str, pd.DataFrame], paper: str | None) -> list[str]:
    """What holds, question by question, each after what the paper says."""
    verdicts = tables["verdicts"]
    if verdicts.empty:
        return _list(answers.answers(verdicts, tables["models"], tables["tolerances"]))
    questions = {
        "Are models with an ODE more robust?": ("models", answers.of_models(tables["models"])),
        "Does a larger tolerance protect?": (
            "tolerances",
            answers.of_tolerances(tables["tolerances"]),
        ),
        "Is what the paper's protocol shows real?": (
            None,
            [
                *answers.of_obstacles(verdicts),
                *answers.of_robustness(verdicts),
                *answers.undecided(verdicts),
            ],
        ),
        "Which part of the dynamics is to blame?": (
            "dynamics",
            dynamics.responsible(tables["trajectory_summary"]),
        ),
    }
    found = []
    for question, (claim, known) in questions.items():
        if known:
            said = "" if paper is None or claim is None else f" *The paper: {CLAIMS[claim]}*"
            found += [f"**{question}**{said}", *_list(known)]
    return found


def _limits(
    tables: Mapping[str, pd.DataFrame], manifest: Mapping[str, Any], paper: str | None
) -> list[str]:
    """What the run was too small for."""
    clean, training, attacks = (tables[key] for key in ("clean", "training", "attacks"))
    seeds = clean.groupby("model").seed.nunique()
    limits = [
        f"{clean.n.max():,} test images were attacked, of {listed(_seeds(seeds))}.",
    ]
    for (model, epochs), own in training.groupby(["model", "epochs"], sort=False):
        theirs = "" if paper is None else f" (the paper: {EPOCHS[paper]})"
        accuracy = listed([percent(value) for value in own.validation_accuracy])
        limits.append(
            f"{model}: {epochs} {'epoch' if epochs == 1 else 'epochs'} of training{theirs}; "
            f"accuracy on validation images {accuracy}."
        )
    missing = [
        attack
        for attack in PRESETS["standard"]
        if attack not in set(attacks.attack) and set(attacks.norm) & set(_norms(attack))
    ]
    if missing:
        limits.append(
            f"Of the standard attacks {listed(missing)} did not run: an attacker with more time "
            "may leave less."
        )
    undecided = (tables["verdicts"].verdict == UNDECIDED).sum()
    if undecided:
        limits.append(f"{undecided} of {len(tables['verdicts'])} settings are undecided.")
    if manifest["device"].startswith("cpu"):
        limits.append(f"It ran on {manifest['device']} with {manifest['threads']} processors.")
    # What is to be known of tables that another version made and that were converted.
    return [*limits, *manifest.get("notes", [])]


def _norms(attack: str) -> tuple[str, ...]:
    """Those that a built-in attack knows."""
    settings = BUILT_IN[attack]
    return METHODS[settings["method"]].model_validate(settings).norms


def _seeds(seeds: "pd.Series[int]") -> list[str]:
    return [
        f"{number} {'network' if number == 1 else 'networks'} {model}"
        for model, number in seeds.items()
    ]


def _manifest(name: str, manifest: Mapping[str, Any]) -> str:
    versions = manifest["versions"]
    return (
        f"`{manifest['command_line']}` at commit {manifest['git_commit']}, with Python "
        f"{manifest['python']}, torch {versions['torch']} and snakemake {versions['snakemake']}; "
        f"configuration, versions and the SHA-256 of every checkpoint are in "
        f"[manifest.json]({name}/manifest.json)."
    )


def _figures(
    name: str, folder: Path, tables: Mapping[str, pd.DataFrame], section: str
) -> list[str]:
    """The figures of a section, or why one could not be drawn."""
    return [
        why_not_drawn_still(folder / f"{figure}.svg")
        or f"![{entry.shows}]({name}/{figure}.svg)\n\n*{entry.level.sentence}*"
        for figure, entry in FIGURES.items()
        if entry.page_section == section and has_rows(figure, tables)
    ]


def _list(sentences: Iterable[str]) -> list[str]:
    text = "\n".join(f"- {sentence}" for sentence in sentences)
    return [text] if text else []


def _table(table: Table) -> str:
    if not table.header:
        return table.caption
    if not table.rows:
        return ""
    lines = [table.header, ["---"] * len(table.header), *table.rows]
    rows = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines
    )
    if len(table.rows) <= _ROWS_TO_SHOW:
        return f"{table.caption}\n\n{rows}"
    summary = f"{html.escape(table.caption)} ({len(table.rows)} rows)"
    return f"<details>\n<summary>{summary}</summary>\n\n{rows}\n\n</details>"


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(render(page.stem, page.with_suffix("")), encoding="utf-8")
