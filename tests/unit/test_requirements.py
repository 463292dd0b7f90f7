"""Every list of dependencies names the same versions, and every environment is made of them."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert found
    return {re.sub(r"[-_.]+", "-", key).lower(): version for key, version in found.items()}


def test_the_lock_holds_every_pin():
    locked = pins("lock.txt")
    for name in ("run.txt", "dev.txt", "slurm.txt"):
        wanted = {key: version for key, version in pins(name).items() if key != "torch"}
        assert wanted.items() <= locked.items()


def test_the_lock_leaves_torch_to_the_platform():
    """A locked `torch==2.13.0+cpu` would keep a machine with a GPU from its own build."""
    assert not {
        name for name in pins("lock.txt") if name.startswith(("torch", "nvidia", "triton"))
    } - {"torchdiffeq"}


def test_the_conda_environment_is_the_same():
    text = (ROOT / "workflow/envs/node-robustness.yaml").read_text()
    (pip,) = (
        item["pip"] for item in yaml.safe_load(text)["dependencies"] if isinstance(item, dict)
    )
    assert pip == [
        line
        for line in (ROOT / "requirements/run.txt").read_text().splitlines()
        if not line.startswith("#")
    ]


def installations(name: str) -> list[str]:
    """What a file has pip install, in its order: the arguments that are not the file's own way."""
    text = (ROOT / name).read_text().replace("\\\n", " ").replace("$$", "$")
    text = text.replace("$(LOCK)", "--constraint lock.txt").replace("requirements/", "")
    lines = re.findall(r"(?:(?<!-m )pip install|\$\(PIP\)) (.*?)(?: &&|$)", text, re.MULTILINE)
    own = r"--no-cache-dir |--index-url \S+(?: \w+ }}\")? "
    return [" ".join(re.sub(own, "", line).split()) for line in lines]


@pytest.mark.parametrize("name", ["containers/Dockerfile", "containers/node-robustness.def"])
def test_images_are_made_like_the_environment_of_make(name):
    # Before those for the tests and for SLURM.
    assert installations(name) == installations("Makefile")[:3]
    assert len(installations(name)) == 3


def test_images_have_the_python_of_the_conda_environment():
    environment = (ROOT / "workflow/envs/node-robustness.yaml").read_text()
    (python,) = re.findall(r"^  - python =(\S+)$", environment, re.MULTILINE)
    for name in ("Dockerfile", "node-robustness.def"):
        text = (ROOT / "containers" / name).read_text()
        assert re.findall(r"^F(?:ROM|rom:) python:(\S+)-slim$", text, re.MULTILINE) == [python]


def test_the_workflow_catalog_finds_what_it_wants():
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(entry) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(entry["mandatory-flags"]) == {"desc", "flags"}
    assert entry["software-stack-deployment"]["conda"] is True
    assert entry["report"] is True
    assert (ROOT / "workflow/Snakefile").is_file()
    assert (ROOT / "config/README.md").is_file()
