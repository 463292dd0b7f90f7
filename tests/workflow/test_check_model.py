"""A model that fails a check stops, and no other; once it is corrected it goes on."""

import json

from harness import attempt, plan, tiny

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.layer = nn.Linear(64 * channels, classes)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 1) * torch.arange(10)
"""
GOOD, NOISY = (f"results/tiny/digits/{name}/seed-0" for name in ("good", "noisy"))
TARGETS = [f"{folder}/tau-none/clean.h5" for folder in (GOOD, NOISY)]


def test_a_fatal_check_stops_one_model(fresh):
    config = tiny(experiments__tiny__models=["good", "noisy"])
    config["models"] |= {
        "good": {"module": "net.py", "build": "Net"},
        "noisy": {"module": "net.py", "build": "Noisy"},
    }
    fresh.mkdir()
    (fresh / "net.py").write_text(NET)
    run = attempt(fresh, *TARGETS, config=config)
    assert run.returncode
    assert (fresh / TARGETS[0]).is_file()
    checks = json.loads((fresh / GOOD / "checked.json").read_text())
    assert checks[0] == {
        "name": "logits",
        "passed": True,
        "fatal": False,
        "value": 10,
        "sentence": "images [1, 1, 8, 8] become 10 logits",
    }
    assert not (fresh / TARGETS[1]).exists()
    assert not (fresh / NOISY / "checked.json").exists()
    log = (fresh / "results/tiny/logs/check_model/digits/noisy/seed-0.log").read_text()
    assert "net.py is code and runs with your rights" in log
    assert "logits: passed: " in log
    last = log.splitlines()[-1]
    assert last.startswith("error: models.noisy: two passes over 16 images differ by ")
    assert "because the model draws random numbers (randn)" in last
    assert last.removeprefix("error: ") in run.output

    assert plan(fresh, *TARGETS, config=config).jobs == {"check_model": 1, "evaluate": 1}
