"""A run reports files without a record once, and only if nothing rebuilds them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake.api
import snakemake.workflow

from node_robustness.scheduling import unrecorded

OURS = "a rule of ours"


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        Path(name).touch()


def job(*output, rule=OURS, **reason):
    reason = {"no_metadata": False, "outdated_metadata": False, "needed": False} | reason
    return SimpleNamespace(rule=rule, output=output, reason=SimpleNamespace(**reason))


def said(*jobs, main=True):
    """What is said of a workflow of these jobs, and how often its plan was made."""
    dag = SimpleNamespace(
        jobs=jobs, needrun=lambda job: job.reason.needed, reason=lambda job: job.reason
    )
    made, lines = [], []
    workflow = SimpleNamespace(
        dag=dag, is_main_process=main, _build_dag=lambda: made.append("plan")
    )
    unrecorded.warn(workflow, {OURS}, lines.append)
    assert lines == []
    workflow._build_dag()
    assert made == ["plan"]
    return lines


def test_what_is_replaced_is_there():
    assert callable(snakemake.workflow.Workflow._build_dag)
    assert isinstance(snakemake.workflow.Workflow.is_main_process, property)


def test_one_file():
    (line,) = said(job("a", no_metadata=True))
    assert line.startswith("No record of what made a: ")


@pytest.mark.parametrize("reason", ["no_metadata", "outdated_metadata"])
def test_several_files(reason):
    (line,) = said(job("b", **{reason: True}), job("a", **{reason: True}))
    assert line.startswith("No record of what made 2 files, a the first: ")
    assert "\n" not in line


@pytest.mark.parametrize(
    "harmless",
    [
        job("a"),
        job("a", no_metadata=True, needed=True),
        job("a", no_metadata=True, rule="somebody else's"),
        job("gone", no_metadata=True),
        job(no_metadata=True),
    ],
    ids=["recorded", "made again", "not ours", "temporary", "without files"],
)
def test_nothing_to_say(harmless):
    assert said(harmless) == []


def test_a_job_says_nothing():
    assert said(job("a", no_metadata=True), main=False) == []
