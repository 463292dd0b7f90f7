"""`pip install .`: the wheel holds the package, and needs no more than it says."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPTS = ROOT / "workflow/scripts"

# Installed in this environment, and not for everyone who installs the package.
OTHERS = {
    "altair",
    "jinja2",
    "matplotlib",
    "PIL",
    "requests",
    "snakemake",
    "torchattacks",
    "vl_convert",
    "yaml",
}

USE = """
import sys, importlib.abc

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {others!r}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
sys.path.insert(0, {wheel!r})
import node_robustness
assert "torch" not in sys.modules
import torch
from node_robustness.models.classifier import Classifier, Spec
torch.manual_seed(0)
model = Classifier(Spec(1, 3, (0.5,), (0.5,), "convolution", "ode", 4))
images = torch.rand(4, 1, 8, 8)
table = node_robustness.audit(
    model,
    images,
    model.eval()(images).argmax(1),
    tolerances=[1],
    attacks={{"bim": {{"method": "bim", "iterations": 2, "step": 0.1}}}},
    progress=False,
)
print(node_robustness.__file__, len(table))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy: a build leaves files where it is made."""
    project = tmp_path_factory.mktemp("project")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, project)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(SCRIPTS, project / "workflow/scripts", ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", "wheels", "."], check=True, cwd=project)
    (built,) = (project / "wheels").iterdir()
    return built


def test_a_wheel_holds_the_files_of_the_package_and_nothing_else(wheel):
    package = SCRIPTS / "node_robustness"
    files = {path.relative_to(SCRIPTS).as_posix() for path in package.rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {name for name in files if "__pycache__" not in name}


def test_an_installed_package_audits_without_what_only_the_workflow_needs(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = USE.format(others=OTHERS, wheel=str(tmp_path))
    command = [sys.executable, "-I", "-c", program]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(tmp_path / "node_robustness/__init__.py"), "1"]


def test_the_environment_of_the_workflow_is_allowed():
    """Each dependency has a lower bound and no other, which the pinned version keeps."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "requirements/run.txt").read_text(), re.M)
    )
    for line in project["dependencies"]:
        name, lowest = line.split(">=")
        assert [*map(int, lowest.split("."))] <= [*map(int, pins[name].split(".")[:3])], name
