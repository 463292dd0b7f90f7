"""How long a run takes: a line before it starts, and lines while it runs.

What a job takes is estimated from the network and the machine (`rates`) and corrected by what
earlier jobs took (`expectation`); then the run is simulated (`simulation`). Nothing but these lines
depends on it: whatever goes wrong here, the run goes on and says less.

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from node_robustness.config.config import Config
from node_robustness.grid import cells, paths
from node_robustness.scheduling import job_costs, rates
from node_robustness.scheduling.expectation import Expectation, Groups
from node_robustness.scheduling.simulation import Task, wall
from node_robustness.scheduling.speed import of_this_machine
from node_robustness.scheduling.steps import job as job_with_steps
from node_robustness.words import about, listed

_SECONDS_BETWEEN_LINES = 15.0
_SHARE_OF_TIME = 0.02  # that the lines of a run may take of its time
_STILL = 0.1  # the share of its time that a job has left at least, however long it runs
_FIRST = sys.maxsize  # the priority of jobs that have started
_CORES = "_cores"  # as Snakemake calls them among the resources
_LOGS = "/logs/"  # of a pattern, between the folder of an experiment and the stage of a job


@dataclass
class PlannedJob:
    """A job that will run.

    Attributes:
        task: what the simulation needs to know of it, with the seconds that rates alone expect.
        groups: those of `expectation`.
        log: in which it will say what it took.
        rated: whether there are rates of the device on which it runs.
        own_model: the group of the user's own model that it computes with, if it does.
        started: when, by `time.monotonic`; None while it waits.
        failed: whether it ended so, and has not started again.
    """

    task: Task
    groups: Groups
    log: Path
    rated: bool = True
    own_model: str | None = None
    started: float | None = None
    failed: bool = False


class TimedRun:
    """The jobs of a run that have not ended, and what is known of their time.

    Args:
        planned: the jobs.
        expectation: of what they take.
        limits: how much there is of each resource that is limited, cores among them.
        local: whether the jobs run on this machine, and not when a cluster lets them.
    """

    def __init__(
        self,
        planned: Iterable[PlannedJob],
        expectation: Expectation,
        limits: Mapping[str, int],
        *,
        local: bool,
    ) -> None:
        """No job has started."""
        self._left = {job.task.name: job for job in planned}
        self._expectation = expectation
        self._limits = limits
        self._local = local

    def __len__(self) -> int:
        """How many jobs have not ended."""
        return len(self._left)

    def needed(self) -> str:
        """The line before the run starts."""
        jobs = f"{len(self._left):,} {'job' if len(self._left) == 1 else 'jobs'}"
        seconds = self._seconds()
        if seconds is None:
            return f"Time needed: not known before some of the {jobs} have run on this device"
        if not self._local:
            return (
                f"Time needed: {about(seconds)} of computation in {jobs}, {self._basis()}; when "
                "they run, and how many at a time, is the cluster's decision"
            )
        cores = self._limits[_CORES]
        where = f"on {cores} {'core' if cores == 1 else 'cores'}"
        return f"Time needed: {about(seconds)} {where} for {jobs}, {self._basis()}"

    def left(self) -> str:
        """The line while it runs."""
        seconds = self._seconds()
        if seconds is None:
            return "Time left: not known yet"
        return f"Time left: {about(seconds)}{'' if self._local else ' of computation'}"

    def start(self, name: int) -> None:
        """Note that a job has started, perhaps again after a failure."""
        if name in self._left:
            self._left[name].started = time.monotonic()
            self._left[name].failed = False

    def end(self, name: int) -> None:
        """Note that a job has ended well."""
        ended = self._left.pop(name, None)
        if ended is not None and ended.log.exists():
            spent = job_costs.parse(ended.log.read_text(encoding="utf-8", errors="replace"))
            if spent is not None:
                self._expectation.learn(ended.groups, ended.task.seconds, spent.seconds)

    def fail(self, name: int) -> None:
        """Note that a job has ended in failure, so that those that need it never start."""
        if name in self._left:
            self._left[name].started = None
            self._left[name].failed = True

    def _seconds(self) -> float | None:
        """What is left, all together on a cluster; None where too little is known."""
        tasks = []
        for job in self._left.values():
            seconds = self._expectation.seconds(job.groups, job.task.seconds, rated=job.rated)
            if seconds is None:
                return None
            if job.failed:
                # It waits for itself, and so never starts.
                tasks.append(replace(job.task, seconds=seconds, needs=(job.task.name,)))
            elif job.started is None:
                tasks.append(replace(job.task, seconds=seconds))
            else:
                seconds = max(seconds - (time.monotonic() - job.started), _STILL * seconds)
                tasks.append(replace(job.task, seconds=seconds, needs=(), priority=_FIRST))
        if self._local:
            return wall(tasks, self._limits)
        return sum(task.seconds for task in tasks)

    def _basis(self) -> str:
        """What the estimate rests on."""
        unseen = {
            job.own_model: None
            for job in self._left.values()
            if job.own_model and not self._expectation.has_seen(job.own_model)
        }
        if unseen:
            return f"a guess before {listed([*unseen])} has run"
        if self._expectation.jobs:
            count = self._expectation.jobs
            return f"by what {count:,} earlier {'job' if count == 1 else 'jobs'} took"
        return "by the speed of this processor"


def announce(workflow: Any, config: Config, rules: Collection[Any], logger: logging.Logger) -> None:
    """Say how long a run takes that is about to start, and let it say what is left.

    Args:
        workflow: Snakemake's, with the plan of the run.
        config: the configuration.
        rules: those of this workflow, whose jobs are counted.
        logger: Snakemake's.
    """
    if workflow.touch or not workflow.is_main_process:
        return
    try:
        run = of_workflow(workflow, config, rules, local=workflow.local_exec)
        say = partial(logger.info, extra={"quietness": Quietness.PROGRESS})
        if run:  # there may be jobs of another workflow alone
            say(run.needed())
            logger.addHandler(_Lines(run, say, logger.debug))
    except Exception as error:  # whatever it is: see above
        logger.debug(f"The time of this run is not estimated: {error!r}")


class _Lines(logging.Handler):
    """Follows a run by Snakemake's own messages, and says what is left after some of them."""

    def __init__(
        self, run: TimedRun, say: Callable[[str], object], debug: Callable[[str], object]
    ) -> None:
        """Say the first line after the usual time."""
        super().__init__(logging.INFO)
        self._run, self._say, self._debug = run, say, debug
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what happened."""
        try:
            self._follow(record)
        except Exception as error:  # whatever it is: see above
            self._next = float("inf")
            self._debug(f"The time that is left is not estimated: {error!r}")

    def _follow(self, record: Any) -> None:
        match getattr(record, "event", None):
            case LogEvent.JOB_STARTED:
                for name in record.jobs:
                    self._run.start(name)
            case LogEvent.JOB_FINISHED:
                self._run.end(record.job_id)
            case LogEvent.JOB_ERROR:
                self._run.fail(record.jobid)
            case LogEvent.PROGRESS if self._run and record.done < record.total:
                started = time.monotonic()
                if started >= self._next:
                    self._say(self._run.left())
                    taken = time.monotonic() - started
                    self._next = started + max(_SECONDS_BETWEEN_LINES, taken / _SHARE_OF_TIME)


def of_workflow(workflow: Any, config: Config, rules: Collection[Any], *, local: bool) -> TimedRun:
    """The run that a workflow has planned, and what the logs of earlier jobs say of it.

    Args:
        workflow: Snakemake's, with its plan and its scheduler.
        config: the configuration.
        rules: those of this workflow, whose jobs are counted.
        local: whether the jobs run on this machine, and not when a cluster lets them.
    """
    dag = workflow.dag
    limits = {
        name: amount
        for name, amount in workflow.scheduler.global_resources.items()
        if local and amount < sys.maxsize
    }
    expected = _Rates(config, warm=local and config.compute.warm_start)
    expectation, on_a_gpu = Expectation(), _on_a_gpu(config, local)
    ours = [job for job in dag.jobs if job.rule in rules and job.rule.log]
    earlier = _earlier(ours, platform.node() if local else None)
    planned = []
    for job in ours:
        stage, at, log = _stage(job), paths.values(dict(job.wildcards)), str(job.log[0])
        alone = expected.of(stage, at)
        groups, own = _groups(config, stage, at, computes=alone.computes)
        if log in earlier and _same_settings(job, dag, workflow.persistence):
            expectation.learn(groups, alone.seconds, earlier[log])
        if dag.needrun(job) and not dag.finished(job):
            needs = [dag.jobid(need) for need in dag.dependencies[job]]
            # Snakemake computes the resources of a job at each question, which takes long.
            held = {_CORES: alone.threads} if limits.keys() <= {_CORES} else job.scheduler_resources
            takes = {name: held[name] for name in limits if isinstance(held.get(name), int)}
            task = Task(dag.jobid(job), alone.seconds, takes, needs, dag.priority(job))
            rated = not (alone.computes and on_a_gpu)
            planned.append(PlannedJob(task, groups, Path(log), rated, own))
    return TimedRun(planned, expectation, limits, local=local)


@dataclass(frozen=True)
class _Rated:
    """A job by rates alone: its seconds, its threads, and whether it computes with a model."""

    seconds: float
    threads: int
    computes: bool


class _Rates:
    """Jobs by rates alone; those that differ in nothing that counts are one."""

    def __init__(self, config: Config, *, warm: bool) -> None:
        self._config = config
        self._speed = of_this_machine()
        self._start = rates.start(self._speed, warm=warm and sys.platform == "linux")
        self._known: dict[Any, _Rated] = {}
        self._cells: dict[str, int] = {}

    def of(self, stage: str, at: Mapping[str, Any]) -> _Rated:
        """The job of a stage at some coordinates."""
        same = (value for name, value in at.items() if name not in ("seed", "norm", "epsilon"))
        key = stage, *same
        if key not in self._known:
            self._known[key] = self._of(stage, at)
        return self._known[key]

    def _of(self, stage: str, at: Mapping[str, Any]) -> _Rated:
        job = job_with_steps(self._config, stage, at)
        if job is None:
            seconds = rates.collecting(stage, self._count(at.get("experiment")), self._speed)
            return _Rated(self._start + seconds, 1, computes=False)
        compute = self._config.compute
        threads = compute.training_threads if stage == "train" else compute.threads
        seconds = rates.computing(self._config, job, self._speed, threads)
        return _Rated(self._start + seconds, threads, computes=True)

    def _count(self, experiment: str | None) -> int:
        """The cells of an experiment."""
        if experiment is None:
            return 0
        if experiment not in self._cells:
            self._cells[experiment] = sum(1 for _ in cells.cells(self._config, experiment))
        return self._cells[experiment]


def _groups(
    config: Config, stage: str, at: Mapping[str, Any], *, computes: bool
) -> tuple[Groups, str | None]:
    """The groups of a job, from the largest to its own, and that of the user's own model.

    What an own model costs is not known before it has run, so that it is the largest group of its
    jobs, whatever their stage.
    """
    alone = stage, *at.items()
    if not computes:
        return ((stage,), alone), None
    own = at["model"] if config.models[at["model"]].is_own else None
    every = own or ("computing",)
    kind = stage, own, at.get("attack")
    network = *kind, at["dataset"], at["model"]
    return (every, (stage, own), kind, network, (*network, at.get("tolerance")), alone), own


def _earlier(jobs: Iterable[Any], host: str | None) -> dict[str, float]:
    """Seconds that jobs took when they last ran, by log; on any machine if `host` is None."""
    return {
        str(folder / "logs" / cost.rule / f"{cost.place}.log"): cost.spent.seconds
        for folder in {_folder(job) for job in jobs}
        for cost in job_costs.read(folder)
        if host in (None, cost.spent.host)
    }


def _stage(job: Any) -> str:
    """The stage of a job: its rule has another name where this workflow is a module."""
    return str(job.rule.log[0]).rpartition(_LOGS)[2].partition("/")[0]


def _folder(job: Any) -> Path:
    """The folder of its experiment, or of resources, that has the logs of a job."""
    above = str(job.rule.log[0]).rpartition(_LOGS)[0]
    return Path(*Path(str(job.log[0])).parts[: len(Path(above).parts)])


def _same_settings(job: Any, dag: Any, records: Any) -> bool:
    """Whether a job has the settings with which it last ran, whatever its code."""
    if not dag.reason(job).params_changed:
        return True
    recorded = records.params(job.output[0]) or []
    own = {name: value for name, value in job.params.items() if value in job.non_derived_params}
    return {name for name, value in own.items() if repr(value) not in recorded} <= {"code"}


def _on_a_gpu(config: Config, local: bool) -> bool:
    """Whether jobs will compute on a device whose speed is not that of a processor's core."""
    device = config.compute.device
    if device != "auto":
        return device != "cpu"
    if not local:
        return True  # see `job_sizes.gpus`
    if platform.system() == "Darwin":
        return platform.machine() == "arm64"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    there = any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))
    return there and not hidden and "+cpu" not in metadata.version("torch")
