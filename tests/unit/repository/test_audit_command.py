"""`make audit`: what it takes, the configuration that it writes, and what it says of the cost."""

import math
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import audit_model
import own_configuration
import run_costs
from node_robustness.config.models import OwnModel
from node_robustness.errors import UserError
from node_robustness.grid import cells
from node_robustness.scheduling import steps
from node_robustness.tables.frame import write_table
from own_configuration import EPSILONS, Found, Request
from samples import own_tables

ROOT = Path(__file__).parents[3]
ADAPTIVE = Found("adaptive", 1e-3, 1e-4, True)
NET = """
import torch
from torch import nn
from torchdiffeq import odeint

def build(width=8):
    return nn.Linear(width, 10)
"""


@pytest.fixture
def request_(tmp_path, monkeypatch) -> Request:
    """Of a file in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/their-net.py").write_text(NET)
    return Request("models/their-net.py", "mnist")


@pytest.mark.parametrize("dataset", EPSILONS)
@pytest.mark.parametrize("norm", ["linf", "l2", "l2_rms"])
@pytest.mark.parametrize(
    "found", [Found(), ADAPTIVE, Found("adaptive"), Found("fixed"), Found("none")], ids=str
)
def test_what_is_written_is_a_configuration(request_, dataset, norm, found):
    asked = replace(request_, dataset=dataset, norm=norm)
    config = own_configuration.checked(own_configuration.text(asked, found))
    (experiment,) = config.experiments.values()
    assert experiment.norms == [norm]
    assert len(experiment.epsilons_for(norm)) == 3
    assert (experiment.trajectories is not None) == found.followed
    assert config.datasets[dataset].subset.test == 100
    assert config.models["their_net"].ode == found.ode


def test_the_grid_has_the_authors_settings_and_larger_tolerances(request_):
    config = own_configuration.checked(own_configuration.text(request_, ADAPTIVE))
    columns = [item.tolerance for item in cells.solved(config, "their_net")]
    assert columns == [1e-2, 1e-1, None]
    loose = own_configuration.text(request_, Found("adaptive", 50, 1))
    assert own_configuration.checked(loose).experiments["their_net"].tolerances == [500]


def test_what_is_asked_for_is_written(request_):
    asked = replace(
        request_,
        keys={"weights": "a.pth", "arguments": {"width": 3}, "solve": 1},
        name="theirs",
        mirror="file:///data",
        epsilons=["2/255", "0.1"],
        tolerances=["0.5"],
        attacks=["quick"],
        images=7,
    )
    written = yaml.safe_load(own_configuration.text(asked, ADAPTIVE))
    experiment = written["experiments"]["theirs"]
    assert experiment["epsilons"] == ["2/255", 0.1]
    assert experiment["tolerances"] == [0.5]
    assert experiment["attacks"] == ["quick"]
    assert written["datasets"]["mnist"]["mirrors"] == ["file:///data"]
    assert written["datasets"]["mnist"]["subset"]["test"] == 7
    model = written["models"]["theirs"]
    assert model == {"module": "models/their-net.py", **asked.keys, "ode": "adaptive"}
    assert "training" not in written
    assert "training" in yaml.safe_load(own_configuration.text(request_, ADAPTIVE))


def test_an_edited_configuration_is_known(request_):
    written = own_configuration.text(request_, ADAPTIVE)
    assert not own_configuration.is_edited(written)
    assert own_configuration.is_edited(written.replace("test: 100", "test: 50"))
    assert own_configuration.is_edited("experiments: {}\n")


def written_for(request: Request, change: str = "") -> str:
    """The configuration that is written for a request, with an edit."""
    text = own_configuration.text(request, ADAPTIVE).replace("test: 100", change or "test: 100")
    request.path.parent.mkdir(parents=True, exist_ok=True)
    request.path.write_text(text)
    return text


def results_of(request: Request) -> None:
    """The folder of a run that has begun."""
    Path(f"results/{request.called}/{request.dataset}/{request.called}").mkdir(parents=True)


def test_an_edited_configuration_is_kept(request_):
    assert audit_model._kept(request_) is None
    written_for(request_)
    assert audit_model._kept(request_) is None  # it may be written again
    edited = written_for(request_, "test: 50")
    assert audit_model._kept(request_) == edited
    with pytest.raises(UserError, match=r"has weights unset, and not a.pth: choose another NAME"):
        audit_model._kept(replace(request_, keys={"weights": "a.pth"}))
    with pytest.raises(UserError, match=r"has dataset mnist, and not digits"):
        audit_model._kept(replace(request_, dataset="digits"))


def test_results_are_not_replaced_by_those_of_another_model(request_):
    before = replace(request_, keys={"weights": "a.pth"})
    written_for(before)
    assert audit_model._kept(request_) is None  # nothing has run
    results_of(before)
    assert audit_model._kept(replace(before, images=7, epsilons=["0.1"])) is None
    for other in (
        request_,
        replace(request_, keys={"weights": "b.pth"}),
        replace(before, keys={"weights": "a.pth", "arguments": {"width": 3}}),
        replace(before, dataset="digits"),
        replace(before, module="other/their-net.py"),
    ):
        with pytest.raises(UserError, match="choose another NAME"):
            audit_model._kept(other)
    before.path.unlink()
    assert audit_model._kept(request_) is None


def test_results_of_another_experiment_stay(request_):
    Path("results/their_net/mnist/RES").mkdir(parents=True)
    with pytest.raises(UserError, match="results/their_net is there"):
        audit_model._kept(request_)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["DATASET=mnist"], "MODEL is missing"),
        (["MODEL=a.py"], "DATASET is missing"),
        (["MODEL=a.py", "DATASET=mnist", "EPS=1"], "EPS=1: not known"),
        (["MODEL=a.py", "DATASET=letters"], "DATASET=letters: make audit knows digits"),
        (["MODEL=a.py", "DATASET=mnist", "IMAGES=many"], "IMAGES=many"),
        (["MODEL=a.py", "DATASET=mnist", "CORES=two"], "CORES=two"),
        (["MODEL=a.py", "DATASET=mnist", "NORM=l1"], "NORM=l1"),
        (["MODEL=a.py", "DATASET=mnist", "ARGUMENTS=width: ["], "ARGUMENTS=width: \\["),
        (["MODEL=a.py", "DATASET=mnist", "NAME=1st"], "NAME=1st: begin it with a letter"),
        (["MODEL=a.py", "DATASET=mnist"], "there is no file a.py"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert audit_model.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message.replace("\\", "") in line


@pytest.mark.parametrize("text", ["width: 3, kind: 'a'", "{width: 3, kind: a}"])
def test_arguments_are_a_map(text):
    assert audit_model._yaml("ARGUMENTS", text) == {"width": 3, "kind": "a"}


def test_what_snakemake_says_at_the_start_is_one_line(monkeypatch, tmp_path):
    said = (
        'WorkflowError in file "workflow/Snakefile", line 80:\nresults may not be written to\n'
        '  File "workflow/Snakefile", line 80, in __onstart\n'
    )
    command = [sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"]
    monkeypatch.setattr(audit_model, "_snakemake", lambda *_: command)
    with pytest.raises(UserError, match=r"^results may not be written to$"):
        audit_model._snakemake_quietly(tmp_path / "own.yaml", "data.h5")


def test_make_passes_every_variable_on():
    values = {name: f"{name.lower()}'s value, $$HOME" for name in audit_model._VARIABLES}
    command = ["make", "--dry-run", "--old-file=.venv/run", "audit"]
    words = [f"{name}={value}" for name, value in values.items()]
    # `make test` must not look like the make above this one, which names its folder.
    alone = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    run = subprocess.run(
        [*command, *words], cwd=ROOT, env=alone, capture_output=True, text=True, check=True
    )
    line = run.stdout.splitlines()[-1]
    shown = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {line.partition('audit_model.py')[2]}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert sorted(shown) == sorted(word.replace("$$", "$") for word in words)


def test_the_page_has_every_variable_and_every_key_of_a_model():
    page = (ROOT / "docs/own-models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z_]+.*?`) \|", page, re.MULTILINE)
    named = re.findall(r"[A-Z_]{3,}", " ".join(rows))
    assert sorted(named) == sorted(audit_model._VARIABLES)
    (keys,) = re.findall(r"```yaml\n(models:\n.*?)```", page, re.DOTALL)
    (model,) = yaml.safe_load(keys)["models"].values()
    OwnModel.model_validate(model)
    assert model.keys() == OwnModel.model_fields.keys()


def test_costs_count_every_job_and_its_steps(request_):
    asked = replace(request_, attacks=["bim_direct", "noise"], images=10)
    config = own_configuration.checked(own_configuration.text(asked, ADAPTIVE))
    name = "their_net"
    kinds = steps.kinds(config, name)
    nothing = run_costs.costs(config, name, dict.fromkeys(kinds, 0.0), soon=False)
    assert nothing.jobs["attack"] == len(list(cells.cells(config, name))) == 18
    assert nothing.jobs["evaluate"] == nothing.jobs["audit"] == 3
    assert nothing.jobs["train"] == nothing.jobs["trajectory"] // 3 == 1
    one = run_costs.costs(
        config, name, {s: float(s == (0.01, "direct")) for s in kinds}, soon=False
    )
    bim = config.attacks["bim_direct"].steps(config.attacks) + 1
    assert one.seconds["attack"] == 3 * 10 * bim  # epsilons, images
    half, longest = sum(one.seconds.values()) / 2, max(task.seconds for task in one.tasks)
    assert half <= one.wall(2) - nothing.wall(2) <= half + longest
    trained = run_costs.costs(
        config, name, {s: float(s[1] == "training") for s in kinds}, soon=True
    )
    assert Counter(trained.seconds)["train"] == 2 * 60_000
    # Everything else waits for it.
    assert trained.wall(2) - nothing.wall(2) == pytest.approx(2 * 60_000)
    assert nothing.wall(1) == pytest.approx(sum(task.seconds for task in nothing.tasks))


def test_costs_grow_with_the_images_on_the_disk(request_):
    sizes = []
    for images in (10, 1000):
        asked = replace(request_, images=images)
        config = own_configuration.checked(own_configuration.text(asked, Found("none")))
        kinds = steps.kinds(config, "their_net")
        sizes.append(
            run_costs.costs(config, "their_net", dict.fromkeys(kinds, 0.0), soon=True).bytes
        )
    every = len(list(cells.cells(config, "their_net")))
    assert sizes[1] - sizes[0] == every * 990 * 28 * 28 * 4


def test_attacks_that_break_images_soon_cost_less(request_):
    config = own_configuration.checked(own_configuration.text(request_, ADAPTIVE))
    kinds = steps.kinds(config, "their_net")
    soon, late = (
        run_costs.costs(config, "their_net", dict.fromkeys(kinds, 1.0), soon=soon).seconds
        for soon in (True, False)
    )
    assert soon["attack"] < late["attack"] / 10
    assert {rule for rule in soon if soon[rule] == late[rule]} == soon.keys() - {"attack"}


def test_undecided_verdicts_say_why_and_what_it_takes(tmp_path):
    verdicts = own_tables(models=("theirs",))["verdicts"].assign(
        verdict=["undecided", "undecided", "masked"],
        because=["images", "checks", "masked"],
        needed=[1234.0, math.nan, math.nan],
    )
    write_table(verdicts, tmp_path / "verdicts.csv", tmp_path / "verdicts.parquet", {})
    lines = audit_model._verdicts(tmp_path / "verdicts.csv").splitlines()[2:]
    assert [line.split(" %  ")[-1] for line in lines] == [
        "undecided: there are too few images; it takes at least 1,234 images",
        "undecided: a check failed, was not measured or rests on too few images",
        "masked",
    ]
