"""What a run says of its time, before it starts and while it runs."""

import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.settings.enums import Quietness
from snakemake_interface_logger_plugins.common import LogEvent

from node_robustness.config.loading import load
from node_robustness.grid import cells, paths
from node_robustness.scheduling import time_left
from node_robustness.scheduling.expectation import Expectation
from node_robustness.scheduling.job_costs import Spent
from node_robustness.scheduling.simulation import Task
from node_robustness.scheduling.speed import Speed
from node_robustness.scheduling.time_left import PlannedJob, TimedRun


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder on the machine with which the rates were measured, at a time of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time_left, "of_this_machine", Speed)
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time_left.time, "monotonic", lambda: clock.now)
    return clock


def planned(name, seconds, needs=(), own=None, groups=(), rated=True):
    task = Task(name, seconds, {"_cores": 1}, needs)
    return PlannedJob(task, (*groups, f"job {name}"), Path(f"{name}.log"), rated, own)


def run_of(*jobs, cores=2, local=True):
    return TimedRun(jobs, Expectation(), {"_cores": cores} if local else {}, local=local)


def took(name, seconds, host="here"):
    spent = Spent("2026-01-02T03:04:05+00:00", host, seconds, 0, seconds, seconds, 100)
    Path(f"{name}.log").write_text(f"{spent}\n")


TWELVE = [planned(n, 120) for n in range(12)]
ON_A_GPU = [planned(n, 9999, groups=["computing"], rated=False) for n in range(3)]


@pytest.mark.parametrize(
    ("run", "line"),
    [
        (
            run_of(*TWELVE),
            "about 12 minutes on 2 cores for 12 jobs, by the speed of this processor",
        ),
        (run_of(planned(1, 9)), "less than a minute on 2 cores for 1 job, by the speed"),
        (run_of(*TWELVE, cores=1), "about 25 minutes on 1 core for 12 jobs"),
        (
            run_of(*ON_A_GPU, *TWELVE[3:]),
            "not known before some of the 12 jobs have run on this device",
        ),
        (run_of(*TWELVE, local=False), "about 25 minutes of computation in 12 jobs, by the speed"),
        (run_of(*TWELVE, planned(99, 1, own="theirs")), "a guess before theirs has run"),
    ],
)
def test_the_line_before(run, line):
    assert run.needed().startswith("Time needed: ")
    assert line in run.needed()
    assert "\n" not in run.needed()


def test_what_is_left_falls_while_jobs_run(here):
    run = run_of(planned(0, 1200), planned(1, 600, [0]), planned(2, 600))
    assert run.left() == "Time left: about 30 minutes"
    run.start(0)
    run.start(2)
    here.now += 600
    assert run.left() == "Time left: about 20 minutes"
    run.end(2)
    assert run.left() == "Time left: about 20 minutes"
    here.now += 6000  # longer than it should
    assert run.left() == "Time left: about 12 minutes"
    run.end(0)
    run.start(1)
    assert run.left() == "Time left: about 10 minutes"


def test_what_jobs_took_corrects_the_rest():
    run = run_of(*(planned(n, 600, groups=["attack"]) for n in range(9)), cores=1)
    assert run.left() == "Time left: about 1 h 30 min"
    for n in range(8):
        took(n, 1800)
        run.start(n)
        run.end(n)
    assert run.left() == "Time left: about 30 minutes"


def test_a_log_that_says_nothing_corrects_nothing():
    run = run_of(planned(0, 600, groups=["attack"]), planned(1, 600, groups=["attack"]))
    Path("0.log").write_text("words\n")
    run.start(0)
    run.end(0)
    assert run.left() == "Time left: about 10 minutes"


def test_on_a_device_without_rates_the_first_job_says_how_long_the_rest_takes():
    run = run_of(*ON_A_GPU, planned(3, 300), cores=1)
    assert run.left() == "Time left: not known yet"
    took(0, 300)
    run.end(0)
    assert run.left() == "Time left: about 15 minutes"


def test_what_needs_a_failed_job_is_not_waited_for():
    run = run_of(planned(0, 600), planned(1, 600, [0]), planned(2, 600), cores=1)
    run.start(0)
    run.fail(0)
    assert run.left() == "Time left: about 10 minutes"
    run.start(0)  # tried again
    assert run.left() == "Time left: about 30 minutes"


def test_a_cluster_has_computation_left():
    run = run_of(planned(0, 600), planned(1, 600), local=False)
    assert run.left() == "Time left: about 20 minutes of computation"


def test_jobs_of_others_are_no_concern():
    run = run_of(planned(0, 600))
    run.start(7)
    run.fail(7)
    run.end(7)
    assert run.left() == "Time left: about 10 minutes"


# Of a workflow.


def kept():
    return yaml.safe_load(Path(__file__).with_name("estimated.yaml").read_text())


def config_of():
    return load(kept())


RULES: dict[str, str] = {
    "fetch": "resources/logs/fetch/{folder}.log",
    "prepare": paths.log("prepare", paths.PREPARED),
    "train": paths.log("train", paths.TRAINED),
    "evaluate": paths.log("evaluate", paths.SOLVED),
    "attack": paths.log("attack", paths.CELL),
    "report": paths.log("report", "report"),
}


class FakeJob(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class FakeDag:
    """The grid of an experiment as Snakemake plans it, without its files."""

    def __init__(self, config, done=(), changed=frozenset()):
        self.done, self.changed = set(done), changed
        self.dependencies = {}
        rules = {n: SimpleNamespace(name=n, log=[log]) for n, log in RULES.items()}
        rules["all"] = SimpleNamespace(name="all", log=[])
        self.rules = [*rules.values()]

        def add(rule, at, needs):
            job = FakeJob(
                rule=rules[rule],
                wildcards={n: paths.spell(n, v) for n, v in at.items()},
                log=[paths.fill(log, at) for log in rules[rule].log],
                output=[f"{rule} {at}"],
                params={"settings": 1, "code": {"a.py": "new"}},
                non_derived_params=[1, {"a.py": "new"}],
                scheduler_resources={"_cores": 1, "mem_mb": 2000},
            )
            job.number = len(self.dependencies)
            self.dependencies[job] = dict.fromkeys(needs)
            return job

        fetch = add("fetch", {"folder": "digits"}, [])
        data = add("prepare", {"experiment": "digits", "dataset": "digits"}, [fetch])
        trained = {
            item: add("train", vars(item), [data]) for item in cells.trained(config, "digits")
        }
        of_models = [
            add(rule, vars(item), [trained[cells.Trained(*list(vars(item).values())[:4])]])
            for rule, items in (("evaluate", cells.solved), ("attack", cells.cells))
            for item in items(config, "digits")
        ]
        report = add("report", {"experiment": "digits"}, of_models)
        add("all", {}, [report])

    @property
    def jobs(self):
        return self.dependencies.keys()

    def needrun(self, job):
        return job.rule.name not in self.done

    def finished(self, job):
        return False

    def priority(self, job):
        return 0

    def jobid(self, job):
        return job.number

    def reason(self, job):
        return SimpleNamespace(params_changed=job.rule.name in self.changed)


def workflow_of(dag, *, cores=2, local=True, touch=False, main=True, recorded=()):
    """Snakemake's workflow, as far as it is looked at."""
    everything = {"_cores": cores if local else sys.maxsize, "gpu": sys.maxsize}
    return SimpleNamespace(
        dag=dag,
        touch=touch,
        is_main_process=main,
        local_exec=local,
        scheduler=SimpleNamespace(global_resources=everything),
        persistence=SimpleNamespace(params=lambda path: [*recorded]),
    )


def line_of(config, dag, **settings):
    workflow = workflow_of(dag, **settings)
    local = workflow.local_exec
    return time_left.of_workflow(workflow, config, dag.rules, local=local).needed()


def write_logs(dag, seconds, host=None, rules=("attack",)):
    for job in dag.jobs:
        if job.rule.name in rules:
            Path(job.log[0]).parent.mkdir(parents=True, exist_ok=True)
            took(job.log[0].removesuffix(".log"), seconds, host or time_left.platform.node())


def test_of_a_workflow_that_has_not_run():
    config = config_of()
    line = line_of(config, FakeDag(config))
    what = r"about [2-4] minutes on 2 cores for 137 jobs, by the speed of this processor"
    assert re.fullmatch(f"Time needed: {what}", line)


def test_only_jobs_that_run_are_counted():
    config = config_of()
    line = line_of(
        config, FakeDag(config, done=["fetch", "prepare", "train", "evaluate", "attack"])
    )
    assert line.startswith("Time needed: less than a minute on 2 cores for 1 job, ")


def test_jobs_that_ran_here_say_what_they_will_take_again():
    config = config_of()
    dag = FakeDag(config, done=["fetch", "prepare", "train", "evaluate"])
    write_logs(dag, 60)
    line = line_of(config, dag)
    what = "about 60 minutes on 2 cores for 125 jobs, by what 124 earlier jobs took"
    assert line == f"Time needed: {what}"
    for log in Path("results").rglob("*.log"):
        log.unlink()
    write_logs(dag, 60, host="elsewhere")
    assert "by the speed of this processor" in line_of(config, dag)
    assert "by what 124 earlier jobs took" in line_of(config, dag, local=False)


def test_jobs_with_other_settings_are_no_evidence():
    config = config_of()
    dag = FakeDag(config, done=["fetch", "prepare", "train", "evaluate"], changed={"attack"})
    write_logs(dag, 60)
    assert "by the speed" in line_of(config, dag, recorded=["2", "{'a.py': 'new'}"])
    assert "by what 124 earlier jobs took" in line_of(
        config, dag, recorded=["1", "{'a.py': 'old'}"]
    )


def test_an_own_model_is_a_guess_until_it_has_run():
    Path("net.py").write_text("def build():\n    pass\n")
    raw = kept()
    raw["models"]["theirs"] = {"module": "net.py"}
    raw["experiments"]["digits"]["models"] += ["theirs"]
    config = load(raw)
    assert line_of(config, FakeDag(config)).endswith(", a guess before theirs has run")
    dag = FakeDag(config, done=["train"])
    write_logs(dag, 60, rules=["train"])
    assert line_of(config, dag).endswith(", by what 4 earlier jobs took")


@pytest.mark.parametrize(
    ("device", "there", "hidden", "torch", "known"),
    [
        ("cpu", True, False, "2.13.0+cu128", True),
        ("auto", False, False, "2.13.0+cu128", True),
        ("auto", True, False, "2.13.0+cu128", False),
        ("auto", True, True, "2.13.0+cu128", True),
        ("auto", True, False, "2.13.0+cpu", True),
        ("cuda", False, False, "2.13.0", False),
    ],
)
def test_nothing_is_known_of_a_gpu(monkeypatch, device, there, hidden, torch, known):
    monkeypatch.setattr(time_left.Path, "exists", lambda path: there and "/dev" in str(path))
    monkeypatch.setattr(time_left.metadata, "version", lambda name: torch)
    monkeypatch.setattr(time_left.platform, "system", lambda: "Linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    config = SimpleNamespace(compute=SimpleNamespace(device=device))
    assert time_left._on_a_gpu(config, local=True) is not known
    # On a cluster the nodes count, and not the machine where the run is started.
    assert time_left._on_a_gpu(config, local=False) is (device != "cpu")


@pytest.fixture
def logger():
    logger = logging.Logger("as Snakemake's", logging.DEBUG)
    said = logging.Handler()
    said.records = []
    said.emit = said.records.append
    logger.addHandler(said)
    logger.lines = lambda: [(r.levelname, r.msg) for r in said.records if not hasattr(r, "event")]
    logger.records = said.records
    return logger


def announced(logger, config, **settings):
    dag = FakeDag(config)
    time_left.announce(workflow_of(dag, **settings), config, dag.rules, logger)
    return dag


def test_lines_while_it_runs(logger, here):
    dag = announced(logger, config_of())
    assert len(logger.lines()) == 1
    for number, job in enumerate(dag.jobs):
        here.now += 5
        logger.info(None, extra={"event": LogEvent.JOB_STARTED, "jobs": [job.number]})
        logger.info(None, extra={"event": LogEvent.JOB_FINISHED, "job_id": job.number})
        progress = {"event": LogEvent.PROGRESS, "done": number + 1, "total": len(dag.jobs)}
        logger.info(None, extra=progress)
        if number == 5:
            logger.error("failed", extra={"event": LogEvent.JOB_ERROR, "jobid": 99})
    lines = logger.lines()
    assert {level for level, _ in lines} == {"INFO"}
    assert len(lines) == 1 + (len(dag.jobs) - 1) // 3
    assert lines[1][1].startswith("Time left: about ")
    assert lines[-1][1] == "Time left: less than a minute"
    # `--quiet progress` leaves them out.
    said = [record for record in logger.records if not hasattr(record, "event")]
    assert {record.quietness for record in said} == {Quietness.PROGRESS}


def test_nothing_is_said_after_the_last_job(logger, here):
    announced(logger, config_of())
    here.now += 100
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 3, "total": 3})
    assert len(logger.lines()) == 1


@pytest.mark.parametrize(
    ("settings", "done"), [({"touch": True}, []), ({"main": False}, []), ({}, RULES)]
)
def test_nothing_is_said_where_nothing_runs(logger, settings, done):
    config = config_of()
    dag = FakeDag(config, done=done)
    time_left.announce(workflow_of(dag, **settings), config, dag.rules, logger)
    assert logger.records == []
    assert len(logger.handlers) == 1


def test_a_job_of_another_workflow_has_no_time(logger, here):
    config = config_of()
    dag = FakeDag(config, done=RULES.keys() - {"report"})
    time_left.announce(workflow_of(dag), config, dag.rules, logger)
    (report,) = (job for job in dag.jobs if job.rule.name == "report")
    logger.info(None, extra={"event": LogEvent.JOB_FINISHED, "job_id": report.number})
    here.now += 100
    logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 9})
    assert len(logger.lines()) == 1


def test_what_else_is_limited_is_asked_of_each_job():
    config = config_of()
    dag = FakeDag(config, done=["fetch", "prepare", "train", "evaluate"])
    write_logs(dag, 60)
    workflow = workflow_of(dag)
    workflow.scheduler.global_resources["mem_mb"] = 2000  # of one job
    line = time_left.of_workflow(workflow, config, dag.rules, local=True).needed()
    assert line.startswith("Time needed: about 2 hours on 2 cores for 125 jobs")


def test_what_goes_wrong_at_the_start_is_no_failure_of_the_run(logger, monkeypatch):
    monkeypatch.setattr(time_left, "of_this_machine", lambda: 1 / 0)
    announced(logger, config_of())
    ((level, line),) = logger.lines()
    assert level == "DEBUG"
    assert "division by zero" in line


def test_what_goes_wrong_later_is_no_failure_either(logger, here, monkeypatch):
    announced(logger, config_of())
    monkeypatch.setattr(TimedRun, "left", lambda run: 1 / 0)
    for _ in range(3):
        here.now += 100
        logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 9})
    assert [level for level, _ in logger.lines()] == ["INFO", "DEBUG"]


def test_lines_that_take_long_come_seldom(logger, here, monkeypatch):
    announced(logger, config_of())

    def left(run):
        here.now += 2
        return "Time left: long"

    monkeypatch.setattr(TimedRun, "left", left)
    for _ in range(100):
        here.now += 5
        logger.info(None, extra={"event": LogEvent.PROGRESS, "done": 1, "total": 9})
    assert len(logger.lines()) == 1 + 5
