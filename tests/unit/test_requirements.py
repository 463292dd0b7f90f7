"""Every list of dependencies names the same versions."""

import re
from pathlib import Path

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
