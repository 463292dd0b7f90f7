"""What Snakemake starts first, and what it calls for each of thousands of jobs."""

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args
from snakemake.common import FUNC_OVERWRITE_PARAMS_ATTR
from snakemake.settings.enums import Quietness
from snakemake.settings.types import OutputSettings

from harness import ROOT, TINY
from node_robustness.scheduling import plan


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """Snakemake's workflow of a run in an empty folder."""
    # A plan remembers its command line for the jobs that it has not.
    monkeypatch.setenv("NODE_ROBUSTNESS_COMMAND_LINE", "")
    configfile = tmp_path / "tiny.yaml"
    configfile.write_text(yaml.safe_dump(TINY))
    arguments = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    _, options = parse_args([*arguments, "--configfile", str(configfile), "--dry-run"])
    with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
        yield plan._planned(api, options)


def test_no_cell_starts_while_a_training_could(planned):
    """A training is the longest job: one that comes last runs alone."""
    jobs = list(planned.dag.jobs)
    training = {job.priority for job in jobs if job.rule.name in ("fetch", "prepare", "train")}
    cells = {job.priority for job in jobs if "tolerance" in job.rule.wildcard_names}
    assert min(training) > max(cells)


def test_functions_of_every_cell_need_not_be_inspected(planned):
    """Snakemake asks for their signatures several times a job, and Python builds them each time."""
    called = {
        (rule.name, function.__name__): function
        for rule in planned.rules
        if "tolerance" in rule.wildcard_names
        for function in [*rule.input, *rule.params, *_resources(rule)]
        if callable(function)
    }
    rules = {rule for rule, _ in called}
    assert rules >= {"evaluate", "attack", "trajectory", "audit", "reevaluate", "detect"}
    assert {("attack", "attack"), ("attack", "tested_images"), ("audit", "audit")} <= called.keys()
    assert ("attack", "runtime") in called
    assert [name for name, f in called.items() if not hasattr(f, FUNC_OVERWRITE_PARAMS_ATTR)] == []


def _resources(rule):
    """The functions of ours that give the resources of a rule."""
    return [
        resource._evaluator
        for name, resource in rule.resources.items()
        if name in ("mem_mb", "runtime", "gpu") and resource.is_evaluable()
    ]
