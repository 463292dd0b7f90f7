"""Every list of dependencies names the same versions, and every environment is made of them."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]

LISTS = ("run.txt", "dev.txt", "docs.txt", "slurm.txt")


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert found
    return {canonicalize_name(key): version for key, version in found.items()}


def test_the_lock_holds_every_pin():
    locked = pins("lock.txt")
    for name in LISTS:
        wanted = {key: version for key, version in pins(name).items() if key != "torch"}
        assert wanted.items() <= locked.items()


def test_the_lock_leaves_torch_to_the_platform():
    """A locked `torch==2.13.0+cpu` would keep a machine with a GPU from its own build."""
    assert not {
        name for name in pins("lock.txt") if name.startswith(("torch", "nvidia", "triton"))
    } - {"torchdiffeq"}


def needed(requirement: Requirement) -> Iterator[Requirement]:
    """What an installed package needs on this platform and with this Python."""
    try:
        lines = requires(requirement.name) or []
    except PackageNotFoundError:  # those for SLURM and the site are installed on demand
        return
    for needs in map(Requirement, lines):
        extras = ("", *requirement.extras)
        if needs.marker is None or any(needs.marker.evaluate({"extra": name}) for name in extras):
            yield needs


def test_the_lock_holds_what_the_pins_need_with_this_python():
    """A lock made with another Python may lack what only this one needs."""
    locked = pins("lock.txt")
    names = {name for file in LISTS for name in pins(file)}
    found = list(map(Requirement, sorted(names)))
    for requirement in found:
        known = {(other.name, frozenset(other.extras)) for other in found}
        new = needed(requirement)
        found += [r for r in new if (r.name, frozenset(r.extras)) not in known]
    platforms_own = re.compile(r"torch$|nvidia-|cuda-|triton$")
    needed_names = {canonicalize_name(requirement.name) for requirement in found}
    assert {n for n in needed_names if not platforms_own.match(n)} <= locked.keys()
    for requirement in found:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is None or requirement.specifier.contains(version, prereleases=True)


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
    """What a file installs, in its order: the arguments that are not the file's own way."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    text = text.replace("$(LOCK)", "--constraint lock.txt").replace("requirements/", "")
    commands = r"(?<!-m )pip install|\$\(PIP\)|\S*python (?=install_torch\.py)"
    lines = re.findall(rf"(?:{commands}) ?(.*?)(?: &&|$)", text, re.MULTILINE)
    own = r" --(?:no-cache-dir|quiet|disable-pip-version-check)\b| \$\(REPLACE\)"
    return [" ".join(re.sub(own, "", f" {line}").split()) for line in lines]


@pytest.mark.parametrize("name", ["containers/Dockerfile", "containers/node-robustness.def"])
def test_images_are_made_like_the_environment_of_make(name):
    # Before those for the tests and for SLURM.
    assert installations(name) == installations("Makefile")[:3]
    assert len(installations(name)) == 3
    assert installations(name)[0] == "install_torch.py"
    assert "TORCH=auto" in (ROOT / name).read_text()


def test_an_image_is_built_from_what_it_copies_alone():
    """Else a folder of results or an environment, gigabytes, would travel to the builder."""
    ignored, *kept = (
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] != "#"
    )
    assert ignored == "*"
    sent = {path for line in kept for path in ROOT.glob(line.removeprefix("!"))}
    (folder,) = re.findall(r"^COPY (\S+) ", (ROOT / "containers/Dockerfile").read_text(), re.M)
    assert sent == {path for path in (ROOT / folder).iterdir() if path.is_file()} != set()


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
