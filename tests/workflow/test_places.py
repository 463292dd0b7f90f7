"""Where the project, a run and its files lie: any folder will do, or one line says why not."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.enums import Quietness
from snakemake.settings.types import (
    DeploymentMethod,
    DeploymentSettings,
    OutputSettings,
    ResourceSettings,
)

from harness import ROOT, TINY, attempt, files, noise, own_dataset, plan, snakemake, tiny

# What a shell, a URL, a pattern or a format could take for something else.
ODD = "a b'c\"d&e;$HOME(f)#%41é{g}{seed}[h]*?`i`\\n~!<j>|k:\tl\nm"
FETCHED = "resources/digits/verified.json"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A folder in one with an odd name."""
    folder = tmp_path / ODD / "folder"
    folder.mkdir(parents=True)
    return folder


def copy_of_the_project(folder: Path) -> Path:
    """Copy what a run needs into a folder of the project's own."""
    project = folder / "project"
    for name in ("workflow", "profiles", "config"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", project)
    return project


def test_any_path_of_the_project_of_a_run_and_of_temporary_files(odd):
    """With Python in the project's folder, as `make demo` puts it."""
    project = copy_of_the_project(odd)
    (project / ".venv").symlink_to(sys.prefix)
    temporary = odd / "tmp"
    temporary.mkdir()
    run = snakemake(
        odd / "run",
        FETCHED,
        project=project,
        python=project / ".venv/bin/python",
        variables={"TMPDIR": str(temporary)},
        as_a_user=True,
    )
    assert run.jobs == {"fetch": 1}
    assert files(odd / "run") == {FETCHED}
    assert "container" not in run.output


def test_any_path_of_mirrors(odd):
    own = own_dataset(odd / "mirror", *noise(60, 8, 0))
    config = tiny(datasets={"own": own}, experiments__tiny__datasets=["own"])
    snakemake(odd / "run", "resources/own/verified.json", config=config)
    assert {
        f"resources/own/{name}-{what}"
        for name in ("train", "test")
        for what in ("images", "labels")
    } < files(odd / "run")


def test_any_path_of_weights(tmp_path):
    """But for what Snakemake reads as patterns; and `{seed}` is the seed."""
    weights = tmp_path / re.sub("[{}<>]", "", ODD) / "oon-{seed}.pth"
    weights.parent.mkdir()
    weights.with_stem("oon-0").touch()
    target = "results/tiny/digits/OON/seed-0/model.safetensors"
    run = plan(tmp_path / "run", target, config=tiny(models__OON__weights=str(weights)))
    assert run.jobs == {"fetch": 1, "prepare": 1, "import_weights": 1}


@pytest.mark.parametrize(("method", "odd"), [("apptainer", "project"), ("conda", "run")])
def test_containers_and_conda_need_a_plain_path(tmp_path, method, odd):
    folders = {
        name: tmp_path / ("{a} b" if name == odd else "a") / name for name in ("project", "run")
    }
    for folder in folders.values():
        folder.parent.mkdir(exist_ok=True)
    project = copy_of_the_project(folders["project"].parent)
    options = ("--dry-run", "--software-deployment-method", method)
    run = attempt(folders["run"], project=project, options=options)
    assert run.returncode != 0
    assert "Snakemake cannot start jobs in containers or conda where a path has '{'" in run.output
    assert "Traceback" not in run.output


class TestFoldersOfARun:
    def test_that_lie_elsewhere(self, fresh, tmp_path):
        """As links to a larger disk, say."""
        fresh.mkdir()
        for name in ("resources", "results"):
            (tmp_path / "disk" / name).mkdir(parents=True)
            (fresh / name).symlink_to(tmp_path / "disk" / name)
        target = "results/tiny/digits/data.h5"
        assert snakemake(fresh, target).jobs == {"fetch": 1, "prepare": 1}
        assert (tmp_path / "disk" / target).exists()
        assert plan(fresh, target).jobs == {}

    def test_that_cannot_be_made(self, fresh):
        fresh.mkdir()
        (fresh / "results").symlink_to("nowhere")
        run = attempt(fresh)
        assert run.returncode != 0
        assert "results is a link to nowhere, which is not there: make it" in run.output
        assert "Traceback" not in run.output
        assert "Job 1" not in run.output
        assert not (fresh / ".snakemake/scripts").exists()

    def test_that_are_files(self, fresh):
        fresh.mkdir()
        (fresh / "results").touch()
        run = attempt(fresh)
        assert run.returncode != 0
        assert "results is a file, where a folder is needed: move it away" in run.output
        assert "Traceback" not in run.output

    def test_that_are_locked(self, fresh):
        """By another run, or by one that was killed."""
        lock = fresh / ".snakemake/locks/0.output.lock"
        lock.parent.mkdir(parents=True)
        lock.write_text(f"{FETCHED}\n")
        run = attempt(fresh, FETCHED)
        assert run.returncode != 0
        assert "Directory cannot be locked" in run.output
        assert "--unlock" in run.output
        assert "Traceback" not in run.output
        assert files(fresh) == set()
        snakemake(fresh, options=("--unlock",))
        assert not lock.exists()


class TestInstallation:
    """`make` with programs that install and run nothing."""

    @staticmethod
    def make(folder: Path) -> subprocess.CompletedProcess[str]:
        for name in ("run.txt", "lock.txt", "no-deps.txt", "install_torch.py"):
            (folder / "requirements" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "requirements" / name).touch()
        programs = folder / ".venv/bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(sys.executable)
        (programs / "snakemake").write_text("#!/bin/sh\necho ran\n")
        (programs / "snakemake").chmod(0o755)
        command = ["make", "-f", str(ROOT / "Makefile"), "demo", "PIP=true"]
        command.append(f"PYTHON={sys.executable}")
        # Not those of the `make` that runs the tests.
        hidden = ("TORCH", "MAKE", "MFLAGS")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    def test_in_a_folder_that_works(self, tmp_path):
        folder = tmp_path / "a b'c&d;(e)#f%41é{g}[h]*?~!<j>|k" / "project"
        made = self.make(folder)
        assert made.returncode == 0, made.stderr
        report = folder / "results/digits/report.html"
        assert made.stdout.splitlines()[-2:] == [
            "ran",
            f"Done. Open the report: {report.as_uri()}",
        ]

    @pytest.mark.parametrize("odd", [*':"$`\\\t\n'])
    def test_in_a_folder_that_cannot_work(self, tmp_path, odd):
        """Python's own `venv`, or the programs and `activate` in it, fail there."""
        made = self.make(tmp_path / f"a{odd}b")
        assert made.returncode != 0
        assert made.stderr.startswith("Python's virtual environments need a folder without : ")
        assert made.stderr.count("\n") == 2  # with make's own
        assert made.stdout == ""


class TestConfiguration:
    """Without `--configfile`, in a folder of the run's own."""

    def test_the_projects_own(self, fresh):
        run = plan(fresh, config=None, snakefile=ROOT / "workflow/Snakefile")
        assert run.jobs["attack"] == 124
        assert "No record" not in run.output

    def test_that_of_the_folder(self, fresh):
        (fresh / "config").mkdir(parents=True)
        (fresh / "config/config.yaml").write_text(yaml.safe_dump(TINY))
        assert plan(fresh, config=None).jobs["attack"] == 6

    def test_with_other_values(self, fresh):
        options = ("--dry-run", "--config", 'experiments={"digits":{"seeds":[0,1]}}')
        assert snakemake(fresh, config=None, options=options).jobs["attack"] == 248


class TestRecords:
    """Whether what made a file is on record where a change of settings should run it again."""

    REPORTED = f"No record of what made {FETCHED}: "

    def test_files_without_a_record(self, fresh, tmp_path):
        """As if they were copied; and the remedies."""
        (fresh / FETCHED).parent.mkdir(parents=True)
        (fresh / FETCHED).touch()
        run = snakemake(fresh, FETCHED)
        assert run.jobs == {}
        assert run.output.count(self.REPORTED) == 1
        assert plan(fresh, FETCHED).output.count(self.REPORTED) == 1
        snakemake(fresh, FETCHED, options=("--touch", "--forceall"))
        other = tmp_path / "other"
        for name in ("resources", ".snakemake/metadata"):
            shutil.copytree(fresh / name, other / name)
        for folder in (fresh, other):
            run = plan(folder, FETCHED)
            assert run.jobs == {}
            assert "No record" not in run.output


MODULE = """
import yaml

SETTINGS = yaml.safe_load(open({settings!r}))

rule mine:
    output: "mine.txt"
    shell: "touch {{output}}"

module theirs:
    snakefile: {snakefile!r}
    config: SETTINGS
    prefix: "theirs"

use rule * from theirs as their_*

onstart:
    theirs.onstart()
"""


class TestModule:
    """Used by another workflow, under a prefix and with other names of rules."""

    @pytest.fixture
    def snakefile(self, tmp_path):
        return self.write(tmp_path, TINY)

    @staticmethod
    def write(folder: Path, config: dict[str, Any]) -> Path:
        settings, path = folder / "settings.yaml", folder / "Module"
        settings.write_text(yaml.safe_dump(config))
        snakefile = str(ROOT / "workflow/Snakefile")
        path.write_text(MODULE.format(settings=str(settings), snakefile=snakefile))
        return path

    def test_rules_and_targets_of_the_other_workflow_stay_its_own(
        self, tmp_path, snakefile, monkeypatch
    ):
        monkeypatch.setenv("NODE_ROBUSTNESS_COMMAND_LINE", "")
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.chdir(tmp_path)
        with SnakemakeApi(OutputSettings(dryrun=True, quiet={Quietness.ALL})) as api:
            workflow = api.workflow(
                resource_settings=ResourceSettings(cores=1),
                deployment_settings=DeploymentSettings(deployment_method={DeploymentMethod.CONDA}),
                snakefile=snakefile,
                workdir=tmp_path,
            )._workflow
        by_name = {rule.name: rule for rule in workflow.rules}
        assert workflow._localrules == {"their_bundle", "their_fetch", "their_merge"}
        assert workflow.default_target == "mine"
        assert by_name["mine"].conda_env is None
        assert by_name["their_train"].conda_env is not None

    def test_costs(self, copied, snakefile):
        """Of a finished run, whose report is written again."""
        (copied / "theirs").mkdir()
        for name in ("results", "resources"):
            (copied / name).rename(copied / "theirs" / name)
        report = "theirs/results/tiny/report.html"
        before = (copied / "theirs/results/tiny/costs.csv").read_text().splitlines()
        run = snakemake(copied, report, config=None, snakefile=snakefile, options=("--force",))
        assert run.jobs == {"their_report": 1}
        after = (copied / "theirs/results/tiny/costs.csv").read_text().splitlines()
        # The first report did not wait for the stills.
        assert before == [line for line in after if not line.startswith("stills,")]

    def test_weights_are_the_users_own(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/oon.pth").touch()
        snakefile = self.write(tmp_path, tiny(models__OON__weights="oon.pth"))
        target = "theirs/results/tiny/digits/OON/seed-0/model.safetensors"
        run = plan(tmp_path / "run", target, config=None, snakefile=snakefile)
        assert run.jobs == {"their_fetch": 1, "their_prepare": 1, "their_import_weights": 1}

    def test_the_file_of_an_own_model_is_the_users_own(self, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run/net.py").write_text("def build(): ...")
        (tmp_path / "run/net.bin").touch()
        keys = {"module": "net.py", "weights": "net.bin"}
        snakefile = self.write(tmp_path, tiny(models__OON=keys))
        target = "theirs/results/tiny/digits/OON/seed-0/tau-none/clean.h5"
        run = plan(tmp_path / "run", target, config=None, snakefile=snakefile)
        rules = ("fetch", "prepare", "import_weights", "check_model", "evaluate")
        assert run.jobs == {f"their_{rule}": 1 for rule in rules}

    def test_places_are_checked_before_the_run(self, tmp_path):
        snakefile = self.write(tmp_path, tiny())
        (tmp_path / "run/theirs").mkdir(parents=True)
        (tmp_path / "run/theirs/results").symlink_to(tmp_path / "nowhere")
        run = attempt(tmp_path / "run", "their_all", config=None, snakefile=snakefile)
        assert run.returncode != 0
        assert "\ntheirs/results is a link to " in run.output
        assert "Traceback" not in run.output


def test_python_without_docstrings(tmp_path):
    run = attempt(
        tmp_path / "run", options=("--dry-run",), variables={"PYTHONOPTIMIZE": "2"}, as_a_user=True
    )
    assert run.returncode != 0
    assert "\npython leaves docstrings out (PYTHONOPTIMIZE=2 or -OO)" in run.output
    assert "Traceback" not in run.output
