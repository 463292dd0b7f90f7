"""Files without a record of what made them, such as results that were copied without `.snakemake`.

Snakemake reruns a job for another setting or other code only if it has a record of those with which
the job ran. Without the record it takes the files as they are, and says so in a dry run alone.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any


def warn(workflow: Any, rules: Collection[Any], say: Callable[[str], object]) -> None:
    """Let a workflow report, once it is planned, how many of its files have no record.

    Snakemake has no hook at that point. `onstart` is not called where there is nothing to do, which
    is when a user wonders why.

    Args:
        workflow: Snakemake's, changed in place; that of a job reports nothing.
        rules: those whose files are looked at.
        say: takes the line, which is about all files together.
    """
    build = workflow._build_dag

    def build_and_report() -> None:
        build()
        if workflow.is_main_process:
            files = list(_unrecorded(workflow.dag, rules))
            if files:
                say(line(files))

    workflow._build_dag = build_and_report


def line(files: list[str]) -> str:
    """How many files have no record, which is the first, and what to do, in one line."""
    which = min(files) if len(files) == 1 else f"{len(files):,} files, {min(files)} the first"
    return (
        f"No record of what made {which}: a changed setting or changed code runs none of that "
        "again. Copy .snakemake/metadata from where it was made; or make all again (snakemake "
        "--forceall); or, if the settings are still those that it was made with, take it as it is "
        "(snakemake --touch --forceall)"
    )


def _unrecorded(dag: Any, rules: Collection[Any]) -> Iterator[str]:
    """What is there of jobs that need not run, as far as Snakemake knows without their record."""
    for job in dag.jobs:
        if job.rule in rules and not dag.needrun(job):
            reason = dag.reason(job)
            if reason.no_metadata or reason.outdated_metadata:
                yield from (path for path in map(str, job.output) if Path(path).exists())
