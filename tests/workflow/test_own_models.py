"""Own models: what a change of their files runs again, and what a run makes of them."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from harness import ROOT, Run, attempt, complaint, plan, snakemake, tiny
from node_robustness.models.own.modules import build_module
from test_reruns import SUMMARY, planned, up_to_date

NET = """
import torch
from torch import nn
from torchdiffeq import odeint

from layers import Dynamics


class Net(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 4, 2, 1)
        self.dynamics = Dynamics(width)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        times = torch.tensor([0.0, 1.0])
        h = odeint(self.dynamics, self.stem(images), times, rtol=1e-3, atol=1e-4)[1]
        return self.head(h.mean((2, 3)))
"""
LAYERS = """
import torch
from torch import nn


class Dynamics(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Conv2d(width + 1, width, 3, padding=1)

    def forward(self, t, h):
        return torch.tanh(self.layer(torch.cat([h, torch.ones_like(h[:, :1]) * t], 1)))
"""
PLAIN = """
from torch import nn


class Plain(nn.Sequential):
    def certify(self, images, labels, norm, epsilon):
        logits, weight = self(images), self[1].weight
        margins = logits.gather(1, labels[:, None]) - logits
        most = epsilon * (weight[labels, None] - weight).abs().sum(2)
        margins.scatter_(1, labels[:, None], float("inf"))
        return (margins - most > 0).all(1)


def build(channels, classes):
    return Plain(nn.Flatten(), nn.Linear(64 * channels, classes))
"""
FIXED = NET.replace("rtol=1e-3, atol=1e-4", "method='rk4'")
MODELS = {
    "models__NARROW": {"module": "models/net.py", "build": "Net", "arguments": {"width": 3}},
    "models__WIDE": {"module": "models/net.py", "build": "Net", "arguments": {"width": 4}},
    "models__PLAIN": {"module": "models/plain.py", "weights": "models/plain.pt"},
}
OF_EXPERIMENT = {"experiments__tiny__models": ["OON", "NARROW", "WIDE", "PLAIN"]}
TRAINED = "results/tiny/digits/{model}/seed-0"
OF_NETWORK = {"evaluate", "attack", "audit", "check_model"}
OF_ODE = {"train", "probe", "trajectory", "detect", "randomise", "reevaluate"}


def config(**changes: Any) -> dict[str, Any]:
    """The tiny configuration with one built-in model, two own ones of a file, and an imported one.

    Of the own ones those of the file are trained; the imported one has no ODE.
    """
    return tiny(**OF_EXPERIMENT | MODELS | changes)


def write_models(folder: Path) -> Path:
    """Write the files of the own models, without weights."""
    models = folder / "models"
    models.mkdir(parents=True)
    for name, text in (
        ("net", NET),
        ("layers", LAYERS),
        ("plain", PLAIN),
        ("unused", LAYERS),
        ("fixed", FIXED),
    ):
        (models / f"{name}.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, all of which is up to date, though empty; not to be changed."""
    folder = write_models(tmp_path_factory.mktemp("own") / "run")
    (folder / "models/plain.pt").touch()
    return up_to_date(folder, config())


@pytest.fixture
def changing(grid: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return shutil.copytree(grid, tmp_path / "run")


def concerned(folder: Path, **changes: Any) -> dict[str, set[str]]:
    """The rules that Snakemake would run, by model; those of the summary if none is named."""
    found: dict[str, set[str]] = {}
    for job in planned(folder, config=config(**changes)) - SUMMARY:
        rule, place = job.split(" ")
        found.setdefault(place.split("/")[3], set()).add(rule)
    return found


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


class TestReruns:
    def test_nothing_changes(self, grid):
        assert planned(grid, config=config()) == set()

    @pytest.mark.parametrize("name", ["net", "layers"])
    def test_the_form_of_a_file_is_no_change(self, changing, name):
        path = changing / f"models/{name}.py"
        path.write_text(
            f'"""A docstring."""\n{path.read_text()}  # a comment\n\nif __name__ == "__main__":\n'
            "    import argparse\n"
        )
        os.utime(path, (2**32, 2**32))
        assert planned(changing, config=config()) == set()

    def test_another_file_of_the_folder_is_no_change(self, changing):
        (changing / "models/unused.py").write_text("x = 1")
        assert planned(changing, config=config()) == set()

    @pytest.mark.parametrize(("name", "old"), [("net", "h.mean("), ("layers", "torch.tanh(")])
    def test_the_meaning_of_a_file(self, changing, name, old):
        replace(changing / f"models/{name}.py", old, f"1.1 * {old}")
        assert concerned(changing) == dict.fromkeys(["NARROW", "WIDE"], OF_NETWORK | OF_ODE)

    @pytest.mark.parametrize(
        "change",
        [
            {"arguments": {"width": 5}},
            {"solve": "dynamics"},
            {"max_steps": 99},
            {"training": {"epochs": 2}},
        ],
        ids=lambda change: min(change),
    )
    def test_a_key(self, grid, change):
        keys = MODELS["models__NARROW"] | change
        assert concerned(grid, models__NARROW=keys) == {"NARROW": OF_NETWORK | OF_ODE}

    def test_what_was_published(self, grid):
        keys = MODELS["models__NARROW"] | {"published": {"claim": "robust", "source": "a paper"}}
        assert planned(grid, config=config(models__NARROW=keys)) == {"report results/tiny"}

    def test_what_is_certified(self, grid):
        keys = MODELS["models__PLAIN"] | {"certify": "certify"}
        assert concerned(grid, models__PLAIN=keys) == {"PLAIN": {"certify"}}

    def test_what_says_the_same(self, grid):
        keys = {"arguments": {"width": 3}, "ode": "adaptive", "output": 0, "build": "Net"}
        assert concerned(grid, models__NARROW={"module": "models/net.py", **keys}) == {}

    def test_weights(self, changing):
        (changing / "models/plain.pt").write_text("others")
        assert concerned(changing) == {"PLAIN": OF_NETWORK | {"import_weights"}}

    def test_other_weights(self, changing):
        shutil.copy2(changing / "models/plain.pt", changing / "models/other.pt")
        keys = MODELS["models__PLAIN"] | {"weights": "models/other.pt"}
        assert concerned(changing, models__PLAIN=keys) == {"PLAIN": OF_NETWORK | {"import_weights"}}

    def test_one_model_more(self, grid):
        more = {
            "experiments__tiny__models": ["OON", "NARROW", "WIDE", "PLAIN", "MORE"],
            "models__MORE": {"module": "models/net.py", "build": "Net", "arguments": {"width": 6}},
        }
        assert concerned(grid, **more) == {"MORE": OF_NETWORK | OF_ODE}

    def test_the_plan_names_what_changed(self, changing):
        replace(changing / "models/layers.py", "torch.tanh(", "torch.sin(")
        keys = MODELS["models__WIDE"] | {"arguments": {"width": 5}}
        said = snakemake(
            changing,
            config=config(models__WIDE=keys),
            program="node_robustness.scheduling.plan",
            variables={"PYTHONPATH": str(ROOT / "workflow/scripts")},
        )
        lines = said.output.splitlines()
        first = lines.index(next(line for line in lines if line.startswith("1 train")))
        assert lines[first : first + 2] == [
            "1 train job: code changed: layers.py",
            "1 train job: architecture.arguments.width 4 -> 5; code changed: layers.py",
        ]


def few(*models: str, **changes: Any) -> dict[str, Any]:
    """A configuration of some models and of one attack, of which little is measured."""
    nothing = dict.fromkeys(["detection", "matrix", "randomisation"])
    experiment = {
        "models": [*models],
        "tolerances": [1],
        "norms": ["linf"],
        "trajectories": {"times": 3, "states": 1, "strengthen": 1, "growth": 1, "causal": 1},
        "audit": {"images": 4, "iterations": 2},
        **nothing,
    }
    every = config(
        models__FIXED={"module": "models/fixed.py", "build": "Net", "arguments": {"width": 3}},
        models__PLAIN=MODELS["models__PLAIN"] | {"certify": "certify"},
        datasets__digits__subset={"train": 128, "validation": 40, "test": 6},
        **changes,
    )
    every["experiments"]["tiny"] |= experiment
    return every


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The folder and the run of four models, of which a check refuses one."""
    folder = write_models(tmp_path_factory.mktemp("own") / "run")
    torch.manual_seed(0)
    plain = torch.nn.Linear(64, 10)
    state = {f"module.1.{name}": value for name, value in plain.state_dict().items()}
    torch.save({"epoch": 3, "net": state}, folder / "models/plain.pt")
    return folder, attempt(folder, config=few("FIXED", "OON", "NARROW", "PLAIN"))


MADE = {"tables", "claim", "figures", "report"}
REPORTS = (
    "results/tiny/report.html",
    *(f"results/tiny/claims/digits-{model}.json" for model in ("OON", "NARROW", "PLAIN")),
)


@pytest.fixture(scope="module")
def done(refused: tuple[Path, Run]) -> Path:
    """The folder, once it was run without that model."""
    folder, _ = refused
    asked = few("OON", "NARROW", "PLAIN")
    assert set(plan(folder, config=asked).jobs) == {*MADE, "stills"}
    last = snakemake(folder, *REPORTS, config=asked)
    assert set(last.jobs) == MADE, last.output
    return folder


class TestRun:
    """A built-in model, a trained one, an imported one, and one that a check refuses."""

    def test_a_check_stops_its_model_alone(self, refused):
        _, said = refused
        line = complaint(said)
        assert line.startswith("error: models.FIXED: the solver takes fixed steps")
        assert line.endswith("set `ode: fixed`")
        assert line in said.output[said.output.index("Exiting because a job execution failed") :]

    def test_a_report(self, done):
        results = done / "results/tiny"
        report = (results / "report.html").read_text()
        for model in ("OON", "NARROW", "PLAIN"):
            assert (results / f"claims/digits-{model}.json").is_file()
            assert model in report

    @pytest.mark.parametrize(
        ("model", "columns", "checked"),
        [
            ("OON", {"tau-1"}, False),
            ("NARROW", {"tau-1", "tau-none"}, True),
            ("PLAIN", {"tau-none"}, True),
        ],
    )
    def test_columns_and_checks(self, done, model, columns, checked):
        folder = done / TRAINED.format(model=model)
        assert {path.name for path in folder.glob("tau-*")} == columns
        assert (folder / "checked.json").is_file() == checked
        if checked:
            outcomes = json.loads((folder / "checked.json").read_text())
            assert outcomes
            assert not any(outcome["fatal"] for outcome in outcomes)
        followed = {path.parents[3].name for path in folder.glob("tau-*/bim/linf/*/trajectory.h5")}
        assert followed == (columns if model != "PLAIN" else set())

    @pytest.mark.parametrize("model", ["NARROW", "PLAIN"])
    def test_at_the_settings_of_the_author_it_is_the_file_itself(self, done, model, monkeypatch):
        monkeypatch.chdir(done)
        keys = config()["models"][model]
        given = {"channels": 1, "classes": 10}
        module = build_module(
            keys["module"], keys.get("build", "build"), keys.get("arguments", {}), given
        )
        folder = done / TRAINED.format(model=model)
        state = load_file(folder / "model.safetensors")
        module.load_state_dict({n.removeprefix("module."): value for n, value in state.items()})
        with h5py.File(done / "results/tiny/digits/data.h5") as data:
            images = data["test/images"][:][data["indices/test"][:6]]
        batch = torch.from_numpy(images).float() / 255
        with torch.no_grad():
            expected = torch.cat([module(image) for image in batch.split(1)]).numpy()
        with h5py.File(folder / "tau-none/clean.h5") as clean:
            np.testing.assert_allclose(clean["logits"][:], expected, rtol=1e-4, atol=1e-5)

    def test_certificates_are_held_against_attacks(self, done):
        table = pd.read_csv(done / "results/tiny/tables/certificates.csv")
        assert set(table.model) == {"PLAIN"}
        assert set(table.contradictions) == {0}
        assert (table.certified <= table.strongest).all()
        for row in table.itertuples():
            place = f"certified/linf/eps-{row.epsilon:g}/certified.h5"
            with h5py.File(done / TRAINED.format(model="PLAIN") / place) as file:
                assert file["certified"][:].mean() == pytest.approx(row.certified)
                assert len(file["certified"]) == row.n == 6

    def test_a_file_that_changed_since(self, done, tmp_path):
        """As while a run goes on, whose jobs were planned before."""
        folder = shutil.copytree(done, tmp_path / "run")
        replace(folder / "models/layers.py", "torch.tanh(", "torch.sin(")
        target = f"{TRAINED.format(model='NARROW')}/tau-1/clean.h5"
        options = ("--rerun-triggers", "mtime", "--forcerun", "evaluate")
        said = attempt(
            folder,
            target,
            config=few("NARROW"),
            options=(*options, "--allowed-rules", "evaluate"),
        )
        assert "layers.py" in complaint(said)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"module": "models/nets.py"}, ".module: there is no file models/nets.py in "),
        ({"module": "models"}, ".module: there is no module models: install it in "),
        ({"build": "build"}, ".build: "),
        ({"arguments": {"widht": 3}}, ".arguments.widht: Net in "),
        ({"weights": "models/none.pt"}, ".weights: there is no file models/none.pt in "),
        ({"solve": "odeblock", "ode": "none"}, ".solve: with ode: none there is no solve"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_end_a_run_before_it_begins(fresh, change, line):
    write_models(fresh)
    asked = few("NARROW", models__NARROW=MODELS["models__NARROW"] | change)
    said = attempt(fresh, config=asked)
    assert complaint(said).startswith(f"config: models.NARROW{line}")
    assert not (fresh / "results").exists()
