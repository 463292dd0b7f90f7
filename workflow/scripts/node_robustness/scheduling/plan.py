"""Print what a run would do, and why.

Called by `python -m node_robustness.scheduling.plan [ARGUMENTS]`.

The arguments are Snakemake's. It decides what runs, and a dry run of it lists files. This module
groups the jobs by reason: which settings, modules and libraries changed, and which coordinates of
the grid are new.
"""

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args, parse_config
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    DeploymentSettings,
    OutputSettings,
    ResourceSettings,
    WorkflowSettings,
)
from snakemake.utils import available_cpu_count

from node_robustness.scheduling import time_left

FOLLOWS = "inputs are rebuilt"
_SHOWN = 4
_NOTHING = object()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the plan of the run that `snakemake` with these arguments would be."""
    chosen = list(sys.argv[1:] if arguments is None else arguments)
    _, options = parse_args([*chosen, "--dry-run"])
    missing = [path for path in options.configfile or () if not Path(path).is_file()]
    if missing:
        print(f"error: --configfile: {missing[0]} is no file", file=sys.stderr)
        return 1
    settings = OutputSettings(dryrun=True, quiet={Quietness.RULES, Quietness.PROGRESS})
    settings.log_level_override = "WARNING"
    with SnakemakeApi(settings) as api:
        try:
            workflow = _planned(api, options)
            jobs = [*reasons(workflow, options)]
            print(summary(jobs))
            if jobs:
                print(_time_needed(workflow, options))
        except Exception as error:
            api.print_exception(error)
            return 1
    return 0


def summary(jobs: Iterable[tuple[str, str]]) -> str:
    """Summarise a plan.

    Args:
        jobs: of each job its rule and the reason for which it runs.

    Returns:
        One line for each reason, in the order in which they come first, and the number of jobs.
    """
    groups: dict[str, Counter[str]] = {}
    for rule, reason in jobs:
        groups.setdefault(reason, Counter())[rule] += 1
    if not groups:
        return "Nothing to do: everything is there and up to date."
    if FOLLOWS in groups:
        groups[FOLLOWS] = groups.pop(FOLLOWS)
    lines = []
    for reason, rules in groups.items():
        counted = ", ".join(f"{count} {rule}" for rule, count in rules.items())
        lines.append(f"{counted} {_jobs(rules.total())}: {reason}")
    total = sum(rules.total() for rules in groups.values())
    return "\n".join([*lines, f"{total} {_jobs(total)} in all."])


def reasons(workflow: Any, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The rule and the reason of each job that a planned workflow would run."""
    dag = workflow.dag
    forced = bool(options.force or options.forceall or options.forcerun)
    needed = set(dag.needrun_jobs())
    rules = [rule.name for rule in workflow.rules]

    def place(job: Any) -> tuple[int, list[str]]:
        """Levels are sets: without it the order would change from plan to plan."""
        return rules.index(job.rule.name), list(map(str, job.output))

    for level in dag.toposorted():
        for job in sorted(needed.intersection(level), key=place):
            if not job.rule.norun:
                own = "; ".join(_reason(job, dag, workflow.persistence, forced))
                # In Snakemake's words where there is nothing to add to them.
                yield job.rule.name, own or str(dag.reason(job))


def param_changes(recorded: Sequence[str], params: Mapping[str, Any]) -> list[str]:
    """Which params of a job changed.

    Args:
        recorded: the params of the last run as Snakemake keeps them: Python literals, no names.
        params: the params by name.

    Returns:
        One text for each value, module and library that changed.
    """
    earlier = [_literal(text) for text in recorded if text not in map(repr, params.values())]
    changes: list[str] = []
    for name, value in params.items():
        if repr(value) in recorded:
            continue
        before: Any = max(earlier, key=partial(_match_score, value), default=_NOTHING)
        if not _match_score(value, before):
            changes.append(f"no record of {name} in the earlier run")
            continue
        earlier.remove(before)
        if name == "inputs":
            changes.append("another set of inputs")
        elif name == "code":
            changes += _code_changes(before, value)
        else:
            changes += _edits(name, before, value)
    return changes or ["a setting is gone"]


def newest_part(path: str, template: str, wildcards: Mapping[str, str]) -> str | None:
    """The coordinate of the grid that is new where an output is missing.

    Args:
        path: the output.
        template: the same path with wildcards, part for part.
        wildcards: their values.

    Returns:
        For example `epsilon 0.3 is new`, of the topmost folder that is missing; None if all folders
        with a coordinate are there.
    """
    parts = Path(path).parts
    for depth, part in enumerate(Path(template).parts[:-1], start=1):
        names = re.findall(r"{(\w+)", part)
        if names and not Path(*parts[:depth]).exists():
            return f"{names[0]} {wildcards[names[0]]} is new"
    return None


def _planned(api: SnakemakeApi, options: argparse.Namespace) -> Any:
    """Snakemake's workflow after a dry run with the options that decide what runs."""
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=_cores(options)),
        config_settings=ConfigSettings(
            config=parse_config(options.config),
            configfiles=options.configfile,
            config_args=options.config,
            replace_workflow_config=options.replace_workflow_config,
        ),
        workflow_settings=WorkflowSettings(
            consider_ancient=options.consider_ancient,
            persistence_backend=options.persistence_backend,
            persistence_backend_db_url=options.persistence_backend_db_url,
        ),
        deployment_settings=DeploymentSettings(
            deployment_method=options.software_deployment_method
        ),
        snakefile=options.snakefile,
        workdir=options.directory,
    )
    dag = workflow.dag(
        DAGSettings(
            targets=options.targets,
            batch=options.batch,
            forcetargets=options.force,
            forceall=options.forceall,
            forcerun=options.forcerun,
            until=options.until,
            omit_from=options.omit_from,
            force_incomplete=options.rerun_incomplete,
            allowed_rules=options.allowed_rules,
            rerun_triggers=options.rerun_triggers,
            max_checksum_file_size=options.max_checksum_file_size,
        )
    )
    dag.execute_workflow(executor="dryrun")
    return workflow._workflow


def _cores(options: argparse.Namespace) -> int:
    """As many as the run would have; all where its arguments do not say."""
    return int(options.cores or options.jobs or available_cpu_count())


def _time_needed(workflow: Any, options: argparse.Namespace) -> str:
    """How long the planned run takes, in one line."""
    ours = workflow.globals
    local = options.executor in (None, "local")
    try:
        run = time_left.of_workflow(workflow, ours["CONFIG"], ours["OUR_RULES"], local=local)
    except Exception as error:  # the plan is none the worse
        return f"Time needed: not known ({error!r})"
    return run.needed()


def _reason(job: Any, dag: Any, records: Any, forced: bool) -> Iterator[str]:
    reason = dag.reason(job)
    if reason.forced:
        yield "forced" if forced else "interrupted in an earlier run"
    elif reason.missing_output:
        path = min(map(str, reason.missing_output))
        template = str(job.rule.output[list(map(str, job.output)).index(path)])
        missing = "temporary files are needed again" if job.temp_output else "missing files"
        yield newest_part(path, template, job.wildcards_dict) or missing
    elif reason.updated_input:
        names = sorted({Path(path).name for path in reason.updated_input})
        yield f"newer inputs: {_some(names)}"
    if reason.params_changed:
        # The others follow from the paths of inputs and outputs, and are not recorded.
        own = {name: v for name, v in job.params.items() if v in job.non_derived_params}
        yield from param_changes(records.params(min(reason.params_changed.files)), own)
    if reason.updated_input_run and not any(
        (reason.forced, reason.missing_output, reason.params_changed, reason.input_changed)
    ):
        yield FOLLOWS


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:  # a value without a literal, such as inf
        return text


def _match_score(value: object, before: object) -> float:
    """How well a recorded value fits as the earlier value of a param; names are not recorded."""
    if isinstance(value, dict) and isinstance(before, dict):
        return len(value.keys() & before.keys()) / len(value.keys() | before.keys())
    if isinstance(value, dict) or isinstance(before, dict) or before is _NOTHING:
        return 0
    return 1 if type(value) is type(before) else 0.5


def _edits(name: str, before: Any, value: Any) -> Iterator[str]:
    """The keys of a setting that changed."""
    if not (isinstance(before, dict) and isinstance(value, dict)):
        yield f"{name} {before} -> {value}"
        return
    for key in sorted(before.keys() | value.keys()):
        old, new = before.get(key), value.get(key)
        if old == new:
            continue
        if key == "code":  # of an own model
            yield from _code_changes(old or {}, new or {})
        else:
            yield from _edits(f"{name}.{key}", old, new)


def _code_changes(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """The files and libraries that changed; see `digest.of_script`."""
    changed = [name for name in sorted({**before, **now}) if before.get(name) != now.get(name)]
    files = [name for name in changed if "/" in name or name.endswith(".py")]
    if files:
        yield f"code changed: {_some(files)}"
    for name in changed:
        if name not in files:
            yield f"{name} {before.get(name, 'unused')} -> {now.get(name, 'unused')}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _jobs(count: int) -> str:
    return "job" if count == 1 else "jobs"


if __name__ == "__main__":
    sys.exit(main())
