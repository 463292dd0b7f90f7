"""A plan is made with conda environments and with an image, though nothing is installed in them."""

import os
from pathlib import Path

import pytest

from harness import snakemake

# They answer what Snakemake asks before it plans; the engines themselves are not needed for that.
CONDA = """#!/bin/sh
case "$1" in
--version) echo "conda 24.7.1" ;;
info) echo '{"conda_prefix": "/opt/conda", "platform": "linux-64"}' ;;
config) echo '{"get": {"channel_priority": "strict"}}' ;;
esac
"""
APPTAINER = """#!/bin/sh
echo "apptainer version 1.3.0"
"""


@pytest.mark.parametrize(("name", "text"), [("conda", CONDA), ("apptainer", APPTAINER)])
def test_a_plan(fresh: Path, tmp_path: Path, name: str, text: str):
    program = tmp_path / "bin" / name
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    options = ("--dry-run", "--software-deployment-method", name)
    variables = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    run = snakemake(fresh, options=options, variables=variables)
    assert run.jobs["attack"] == 6
    assert "ignored" not in run.output
    if name == "conda":
        created = "envs/node-robustness.yaml will be created"
        assert run.output.count(created) == 1
