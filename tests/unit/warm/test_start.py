"""Snakemake runs scripts by the client where that is right, and as before everywhere else."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.script import PythonScript

import node_robustness
from node_robustness.warm import start

SCRIPTS = Path(node_robustness.__file__).parents[1]


def workflow(jobs=2, local=True, deployment=()):
    return SimpleNamespace(
        local_exec=local,
        deployment_settings=SimpleNamespace(deployment_method=set(deployment)),
        dag=SimpleNamespace(needrun_jobs=lambda exclude_finished: iter(range(jobs))),
    )


class Script(PythonScript):
    """One that keeps its command instead of running it."""

    def __init__(self, path=SCRIPTS / "train.py", **others):
        for name in ("conda_env", "container_img", "env_modules"):
            setattr(self, name, others.get(name))
        self.path = SimpleNamespace(get_path_or_uri=lambda secret_free: str(path))

    def _execute_cmd(self, cmd, **kwargs):
        self.command = [
            kwargs[word.strip("{}").partition(":")[0]] for word in cmd.split() if "{" in word
        ]

    def _is_python_env(self):
        return False


def changed(version=None, of=None, **methods):
    """A class with the change, and what was said: Snakemake's own class stays as it is."""
    script, said = type("Changed", (Script,), methods), []
    start.use_server(of or workflow(), script, SCRIPTS, said.append, version)
    return script, said


def of_snakemake():
    """Its own method, also where another test has read the workflow in this process."""
    return getattr(PythonScript.execute_script, "as_before", PythonScript.execute_script)


def by_client(script):
    script.execute_script("/run/tmp1.train.py")
    return str(start._CLIENT) in script.command


@pytest.fixture(autouse=True)
def _sockets(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def test_scripts_of_the_workflow_run_by_the_client(tmp_path):
    script, said = changed()
    one = script()
    assert by_client(one)
    assert not said
    assert one.command[-1] == "/run/tmp1.train.py"
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert str(folder) in one.command
    assert os.getpid() in one.command


def test_a_server_is_started_for_more_than_one_job():
    for jobs, may_start in ((1, 0), (2, 1), (3, 1)):
        script, _ = changed(of=workflow(jobs))
        one = script()
        assert by_client(one)
        assert one.command[-2] == may_start


@pytest.mark.parametrize(
    "others",
    [
        {"path": Path("/other/train.py")},
        {"path": SCRIPTS / "deeper/train.py"},
        {"conda_env": "some"},
        {"container_img": "some"},
        {"env_modules": "some"},
    ],
)
def test_scripts_of_others_or_elsewhere_run_as_before(others):
    script, _ = changed()
    assert not by_client(script(**others))


@pytest.mark.parametrize("of", [workflow(local=False), workflow(deployment=["conda"])])
def test_runs_elsewhere_are_as_before(of):
    script, _ = changed(of=of)
    assert not by_client(script())


def test_jobs_of_slurm_are_as_before(monkeypatch):
    script, _ = changed()
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    assert not by_client(script())


@pytest.mark.parametrize("version", ["9.26.0", "9.28.0", "10.0.0"])
def test_another_version_stays_as_it_is_and_says_so(version):
    script, (line,) = changed(version)
    assert script.execute_script is of_snakemake()
    assert line.endswith(f"in a new Python: this is {version}")


@pytest.mark.parametrize("method", ["execute_script", "_execute_cmd"])
def test_another_signature_stays_as_it_is_and_says_so(method):
    def other(self, more):
        pass

    script, (line,) = changed(**{method: other})
    assert script.execute_script is (other if "script" in method else of_snakemake())
    assert f"{method} is not the method of" in line


def test_a_second_workflow_of_a_process_replaces_the_first():
    script, said = changed()
    first = script.execute_script
    start.use_server(workflow(), script, SCRIPTS, said.append)
    assert script.execute_script is not first
    assert script.execute_script.as_before is of_snakemake()
    one = script()
    assert by_client(one)
    assert one.command[-2] == 1


def test_what_another_job_left_in_the_environment_is_forgotten(monkeypatch):
    for name in ("NODE_ROBUSTNESS_COLD", "NODE_ROBUSTNESS_STARTED"):
        monkeypatch.setenv(name, "1")
    changed()
    assert not {"NODE_ROBUSTNESS_COLD", "NODE_ROBUSTNESS_STARTED"} & os.environ.keys()


def test_the_state_is_another_after_an_installation_and_in_another_checkout(tmp_path, monkeypatch):
    packages = tmp_path / "site-packages"
    packages.mkdir()
    os.utime(packages, (1, 1))  # clocks of file systems tick slowly
    monkeypatch.setattr("sys.path", [str(packages)])
    states = [start._state(SCRIPTS), start._state(tmp_path / "a/b")]
    (packages / "installed").touch()
    states.append(start._state(SCRIPTS))
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/lock.txt").write_text("torch")
    states.append(start._state(tmp_path / "a/b"))
    assert len(set(states)) == len(states)
    assert start._state(SCRIPTS) == states[2]
