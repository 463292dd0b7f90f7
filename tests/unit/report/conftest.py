"""A folder that a page of results is made from."""

import json
import shutil
from pathlib import Path

import pytest

from node_robustness.figures import catalogue as figures
from node_robustness.report import markdown
from node_robustness.tables import catalogue as tables
from node_robustness.tables import evaluation, frame
from samples import masked_tables, tiny_tables

MANIFEST = {
    "config": {"experiments": {"tiny": {"paper": "mnist"}}},
    "command_line": "snakemake --cores 2",
    "host": "desk of somebody",
    "hosts": ["desk of somebody"],
    "git_commit": "abc",
    "python": "3.11.7",
    "versions": {"torch": "2.13.0", "snakemake": "9.27.0"},
    "device": "cpu (x86_64)",
    "threads": 2,
    "stages": [
        {
            "rule": "attack",
            "jobs": 2,
            "seconds": 70.0,
            "cpu_seconds": 60.0,
            "max_rss_mb": 500.0,
            "started_utc": "2026-01-01T00:00:00+00:00",
        }
    ],
}
COLUMNS = "epoch,train_loss,train_accuracy,validation_loss,validation_accuracy,nfe_mean"
HISTORY = f"{COLUMNS}\n1,2,0.5,1,0.75,26\n"


@pytest.fixture(scope="session", params=[masked_tables, tiny_tables], ids=["masked", "tiny"])
def gathered(request, tmp_path_factory) -> Path:
    """A folder that `folder` is a copy of: no test changes it."""
    collected, tmp_path = request.param(), tmp_path_factory.mktemp("gathered")
    history = tmp_path / "results/tiny/toy/OON/seed-0/history.csv"
    history.parent.mkdir(parents=True)
    history.write_text(HISTORY)
    collected["training"] = evaluation.training_table([history])
    for name in tables.ON_PAGE:
        paths = (tmp_path / f"{name}.{suffix}" for suffix in ("csv", "parquet"))
        frame.write_table(collected[name], *paths, {})
    for name in figures.ON_PAGE:
        (tmp_path / f"{name}.svg").write_text("<svg/>")
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    target = tmp_path / "docs/tiny"
    target.mkdir(parents=True)
    markdown.gather(
        [tmp_path / f"{name}.csv" for name in tables.ON_PAGE],
        [tmp_path / f"{name}.svg" for name in figures.ON_PAGE],
        tmp_path / "manifest.json",
        target,
    )
    return tmp_path


@pytest.fixture
def folder(gathered, tmp_path) -> Path:
    return shutil.copytree(gathered, tmp_path, dirs_exist_ok=True) / "docs/tiny"


@pytest.fixture(scope="session")
def page(gathered) -> str:
    """The page of the folder as it is."""
    return markdown.render("tiny", gathered / "docs/tiny")
