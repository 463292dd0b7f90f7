"""Two small files make a method: its settings and its search."""

import shutil
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[3] / "workflow/scripts"

SETTINGS = '''"""The settings of a shift."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import AnyAttack
from node_robustness.config.values import Share

BUILT_IN = {"darker": {"method": "shift", "share": 1}}


class Shift(AnyAttack):
    """All pixels darker."""

    method: Literal["shift"] = Field(description="shift")
    share: Share = Field(1, description="of epsilon")
'''
METHOD = '''"""All pixels darker."""

from dataclasses import dataclass

from node_robustness.attacks.best import Best
from node_robustness.attacks.method import Pass


@dataclass(frozen=True)
class DarkerImages:
    norm: object
    epsilon: float
    share: float
    passes = 1

    def search(self, model, images, labels, streams):
        best = Best(images, labels, self.norm, self.epsilon)
        moved = (images - self.share * self.epsilon).clamp(0, 1)
        best.consider(best.going(), Pass.over(model, moved, differentiable=False), steps=1)
        return best.found()
'''
PROGRAM = """
import sys
from node_robustness.config.docs import tables
from node_robustness.config.loading import load
from node_robustness.grid import attack_settings, cells
plain = {"downsampling": "residual", "body": "residual"}
keys = {"datasets": ["d"], "models": ["R"], "tolerances": [1], "norms": ["linf"]}
keys |= {"attacks": ["darker", "half"], "epsilons": [0.2]}
config = load({
    "experiments": {"e": keys}, "datasets": {"d": {"source": "digits"}}, "models": {"R": plain},
    "attacks": {"half": {"method": "shift", "share": 0.5}},
})
found = [attack_settings.attack_settings(config, cell) for cell in cells.cells(config, "e")]
none = {"gradient": "none"}
assert found == [{"method": "shift", "share": share, **none} for share in (1, 0.5)], found
assert "All pixels darker." in tables()
assert not {"torch", "numpy"} & set(sys.modules)

import torch
from node_robustness.attacks.engine import attack
from node_robustness.attacks.make import make
model = torch.nn.Flatten()
images = torch.tensor([[[[0.5, 0.4]]]])
labels = torch.tensor([0])
for settings in found:
    result = attack(model, images, labels, make(settings, "linf", 0.2))
    darker = images[0] - 0.2 * settings["share"]
    torch.testing.assert_close(result.adversarials[0], darker)
"""


def test_two_files_make_a_method(tmp_path):
    shutil.copytree(
        SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.html")
    )
    package = tmp_path / "scripts/node_robustness"
    (package / "config/attacks/shift.py").write_text(SETTINGS)
    (package / "attacks/shift.py").write_text(METHOD)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "scripts",
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
