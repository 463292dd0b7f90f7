"""A run that fills its disk: it says so, what is there is whole, and it goes on with more space."""

import subprocess
from pathlib import Path

import pytest

from harness import attempt, files, snakemake, untimed

pytestmark = pytest.mark.slow


def mount(folder: Path, kilobytes: int, *options: str) -> None:
    size = ",".join([*options, f"size={kilobytes}k"])
    command = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    """An empty disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mount(folder, 4096)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_disk_that_is_too_small(finished, disk, share):
    needed = sum(path.stat().st_blocks / 2 for path in finished.rglob("*"))
    mount(disk, int(share * needed), "remount")
    folder = disk / "run"
    run = attempt(folder)
    assert run.returncode != 0
    assert "no space left" in run.output.lower()
    for name in files(folder):
        assert untimed(folder / name) == untimed(finished / name), name
    mount(disk, int(4 * needed), "remount")
    snakemake(folder)
    assert files(folder) == files(finished)
    for path in folder.glob("results/tiny/tables/*"):
        assert path.read_bytes() == (finished / path.relative_to(folder)).read_bytes()
