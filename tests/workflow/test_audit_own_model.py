"""The page on own models holds: its example goes from a file to a verdict with `make audit`."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

from harness import ROOT, Run, quickly, variables_at
from quick_runs import POSSIBLE

PAGE = (ROOT / "docs/own-models.md").read_text(encoding="utf-8")
SMALL = ("DATASET=digits", "ATTACKS=bim_direct", "EPSILONS=0.1", "IMAGES=12", "CORES=1")


def example(name: str) -> str:
    """A file that the page shows."""
    (code,) = re.findall(rf"<!-- {re.escape(name)} -->\s*```python\n(.*?)```", PAGE, re.DOTALL)
    return textwrap.dedent(code)


def audit(folder: Path, *words: str, as_a_user: bool = False) -> Run:
    """Do what `make audit` does, in a folder.

    Args:
        folder: the working directory.
        *words: the arguments.
        as_a_user: start new processes, which takes seconds.
    """
    environment = variables_at(folder / "home")
    tools, scripts = ROOT / "tools", ROOT / "workflow/scripts"
    if POSSIBLE and not as_a_user:
        environment["PYTHONPATH"] = f"{scripts}{os.pathsep}{tools}"
        return quickly(["audit_model", *words], environment, folder)
    run = subprocess.run(
        [sys.executable, str(tools / "audit_model.py"), *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(scripts)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return Run(run.returncode, run.stdout)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the page's file, as `models/small_ode.py`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/small_ode.py").write_text(example("models/small_ode.py"))
    return tmp_path


def test_from_the_file_of_the_page_to_a_verdict(folder):
    words = ("MODEL=models/small_ode.py", *SMALL)
    planned = audit(folder, *words, "PLAN=1")
    assert planned.returncode == 0, planned.output
    for line in (
        r"models/small_ode\.py is code and runs with your rights\.",
        r"Level 1: .*",
        r"  solve 0 in the model: odeint, dopri5, rtol 0\.001, atol 0\.001, t from 0 to 1; .*",
        r"  [\d.]+ ms with its own settings",
        r"  [\d.]+ ms at tolerance 0\.01",
        r"The run has \d+ jobs \(1 train, .*3 attack.*\)\.",
        r"On 1 core it takes about \d+:\d\d:\d\d \(h:mm:ss\), .*, and \d+ MB\.",
    ):
        assert re.search(f"^{line}$", planned.output, re.MULTILINE), (line, planned.output)
    assert not (folder / "results/small_ode/digits/small_ode").exists()

    path = folder / "config/own/small_ode.yaml"
    config = yaml.safe_load(path.read_text())
    assert config["experiments"]["small_ode"]["tolerances"] == [0.01, 0.1]
    config["experiments"]["small_ode"] |= {"tolerances": [0.1], "trajectories": None}
    config["training"]["epochs"] = 1
    edited = yaml.safe_dump(config)
    path.write_text(edited)
    run = audit(folder, *words)
    assert run.returncode == 0, run.output
    assert "which you edited" in run.output
    assert path.read_text() == edited
    for tolerance in (r"0\.1", "own"):
        assert re.search(rf"^ *{tolerance} +0\.1 .*%", run.output, re.MULTILINE), run.output
    report = folder / "results/small_ode/report.html"
    assert run.output.endswith(f"Done. Open the report: {report.as_uri()}\n")
    assert report.exists()
    assert (folder / "results/small_ode/digits/small_ode/seed-0/tau-none/clean.h5").exists()


def test_weights_are_looked_at_before_anything_runs(folder):
    code: dict[str, object] = {}
    exec(example("models/small_ode.py"), code)
    build = code["build"]
    assert callable(build)
    torch.manual_seed(0)
    state = build(width=4).state_dict()
    weights = folder / "theirs.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, weights)
    words = ("MODEL=models/small_ode.py", "WEIGHTS=theirs.pth", *SMALL, "PLAN=1")
    wrong = audit(folder, *words)
    assert wrong.returncode == 1
    (line,) = [line for line in wrong.output.splitlines() if line.startswith("error: ")]
    assert "theirs.pth" in line
    assert "Traceback" not in wrong.output
    right = audit(folder, *words, "ARGUMENTS=width: 4")
    assert right.returncode == 0, right.output
    assert re.search(
        r"^Accuracy on 256 test images: \d+\.\d %, with \d+ to \d+ function evaluations",
        right.output,
        re.MULTILINE,
    )
    model = yaml.safe_load((folder / "config/own/small_ode.yaml").read_text())["models"]
    assert model["small_ode"] == {
        "module": "models/small_ode.py",
        "weights": "theirs.pth",
        "arguments": {"width": 4},
        "ode": "adaptive",
    }


ENDS = "import os\nos._exit(3)\ndef build(): ...\n"
ENDED = "net.py ended the process that looked at it"


@pytest.mark.parametrize(
    ("code", "said", "as_a_user"),
    [
        (ENDS, ENDED, False),
        pytest.param(ENDS, ENDED, True, marks=pytest.mark.slow),  # Snakemake starts, and PyTorch
        ("def build():\n    raise KeyError('width')\n", "net.py: build failed: KeyError", False),
        ("def make(): ...\n", "defines no build (it has make)", True),
    ],
)
def test_a_file_that_cannot_be_built_is_one_line(tmp_path, code, said, as_a_user):
    (tmp_path / "net.py").write_text(code)
    run = audit(tmp_path, "MODEL=net.py", *SMALL, as_a_user=as_a_user)
    assert run.returncode == 1
    (line,) = [line for line in run.output.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in run.output
