"""The keys of own models, and what the grid asks any model."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.config.models import AnyModel
from node_robustness.errors import UserError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the file of a model that solves with torchdiffeq."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("import torchdiffeq\ndef build(width, sizes=()): ...")
    return tmp_path


def configured(**keys: Any) -> Config:
    """A configuration of one model with some keys; those of an own one unless it says otherwise."""
    keys = {"module": "net.py"} | keys
    model = {key: value for key, value in keys.items() if value is not None}
    return load(
        {
            "experiments": {
                "e": {
                    "datasets": ["d"],
                    "models": ["M"],
                    "tolerances": [1e-3, 1],
                    "attacks": ["bim"],
                    "norms": ["linf"],
                    "epsilons": [0.1],
                }
            },
            "datasets": {"d": {"source": "digits"}},
            "models": {"M": model},
            "attacks": {"bim": {"method": "bim", "step": 0.05}},
        }
    )


def model(**keys: Any) -> AnyModel:
    return configured(**keys).models["M"]


def test_defaults():
    own = model()
    assert own.model_dump(exclude={"training"}) == {
        "module": "net.py",
        "build": "build",
        "arguments": {},
        "weights": None,
        "weights_key": None,
        "output": 0,
        "solve": None,
        "ode": None,
        "max_steps": 1000,
        "published": None,
        "certify": None,
    }


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"modul": "net.py"}, ".modul: unknown key; did you mean 'module'?"),
        ({"argument": {}}, ".argument: unknown key; did you mean 'arguments'?"),
        ({"training": {"epoch": 2}}, ".training.epoch: unknown key; did you mean 'epochs'?"),
        (
            {"filters": 3},
            ".filters: unknown key; known keys: module, build, arguments, weights, weights_key, "
            "output, solve, ode, max_steps, training, published, certify",
        ),
        (
            {"module": None, "build": "Net"},
            ".module: this key is missing; see docs/reference/configuration.md",
        ),
        ({"module": 3}, ".module: must be text, in quotes if necessary (given: 3)"),
        (
            {"module": ""},
            ".module: '' does not fit: write the path of a .py file, or the dotted name of a "
            "module",
        ),
        (
            {"build": "Net()"},
            ".build: 'Net()' does not fit: write the name of a function or class",
        ),
        ({"arguments": [1]}, ".arguments: must be a map of keys (given: [1])"),
        ({"weights": "models/"}, ".weights: 'models/' does not fit: write the path of a file"),
        (
            {"weights_key": "net"},
            ": weights_key is a key in the file of weights: add weights, or remove it",
        ),
        ({"output": [0]}, ".output: must be a whole number or a name (given: [0])"),
        ({"solve": True}, ".solve: must be a whole number or a name (given: True)"),
        (
            {"ode": "euler"},
            ".ode: 'euler' is not known; choose from 'adaptive', 'fixed' or 'none'",
        ),
        ({"max_steps": 0}, ".max_steps: 0 must be 1 or more"),
        (
            {"published": {"claim": "robust"}},
            ".published.source: this key is missing; see docs/reference/configuration.md",
        ),
        (
            {"published": {"claim": "robust", "source": "x", "certified": 0.9, "norm": "linf"}},
            ".published: robust_accuracy and certified are within a ball: give its norm and its "
            "epsilon",
        ),
        (
            {"published": {"claim": "robust", "source": "x", "accuracy": 98}},
            ".published.accuracy: 98 must be 1 or less",
        ),
    ],
)
def test_mistakes(keys, line):
    with pytest.raises(UserError) as caught:
        model(**keys)
    assert str(caught.value).split("\n") == [f"config: models.M{line}"]


def test_a_value_that_json_lacks():
    with pytest.raises(UserError, match=r"models\.M\.arguments: datetime.date\(2020, 1, 1\) is "):
        model(arguments=yaml.safe_load("{day: 2020-01-01}"))


def test_numbers_of_yaml_1_1_are_numbers():
    text = "{tol: 1e-3, sizes: [1E2, {at: -2.5e+1}], name: e3, quoted: '1.5', none: null}"
    assert model(arguments=yaml.safe_load(text)).architecture()["arguments"] == {
        "name": "e3",
        "none": None,
        "quoted": "1.5",
        "sizes": [100.0, {"at": -25.0}],
        "tol": 1e-3,
    }


def test_the_order_of_arguments_is_no_change():
    first = model(arguments={"a": {"x": 1, "y": 2}, "b": 3}).architecture()
    second = model(arguments={"b": 3, "a": {"y": 2, "x": 1}}).architecture()
    assert repr(first) == repr(second)


def test_the_architecture_has_the_kind_and_the_code():
    assert model(
        weights="w.pt", published={"claim": "c", "source": "s"}, certify="prove"
    ).architecture() == {
        "module": "net.py",
        "build": "build",
        "arguments": {},
        "weights_key": None,
        "output": 0,
        "solve": None,
        "ode": "adaptive",
        "max_steps": 1000,
        "code": model().file.code(),
    }


BUILT_IN = {"module": None, "downsampling": "residual"}
RESIDUAL = BUILT_IN | {"body": "residual"}
ODE = BUILT_IN | {"body": "ode"}
JOINT = {"backend": "torchdiffeq", "batch_size": 3, "tolerance": 0.1}


@pytest.mark.parametrize(
    ("keys", "properties"),
    [
        (RESIDUAL, (False, False, True, True, 1, None, "dopri5")),
        (ODE, (True, True, True, True, 1, 1e-3, "dopri5")),
        (
            ODE | {"solver": {"method": "euler", "steps": 4}},
            (True, False, True, True, 1, None, "dopri5"),
        ),
        (ODE | {"solver": JOINT}, (True, True, False, False, 3, 0.1, "dopri5")),
        (ODE | {"solver": {"method": "bosh3"}}, (True, True, True, True, 1, 1e-3, "bosh3")),
        ({}, (True, True, True, True, 1, None, None)),
        ({"ode": "adaptive"}, (True, True, True, True, 1, None, None)),
        ({"ode": "fixed"}, (True, False, True, True, 1, None, "dopri5")),
        ({"ode": "none"}, (False, False, True, False, 1, None, None)),
    ],
)
def test_what_the_grid_asks(keys, properties):
    asked = model(**keys)
    assert properties == (
        asked.has_ode,
        asked.adaptive,
        asked.stepped_alone,
        asked.can_be_followed,
        asked.joint_images,
        asked.training_tolerance,
        asked.adaptive_method,
    )


@pytest.mark.parametrize(
    ("keys", "columns"),
    [
        (RESIDUAL, [None]),
        (ODE, [1e-3, 1]),
        ({}, [1e-3, 1, None]),
        ({"ode": "fixed"}, [None]),
        ({"ode": "none"}, [None]),
    ],
)
def test_columns(keys, columns):
    assert model(**keys).columns([1e-3, 1]) == columns


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"module": "no.py"}, "module: there is no file no.py in "),
        ({"module": "broken.py"}, "module: {}/broken.py, line 1: "),
        ({"build": "Net", "arguments": {"width": 3}}, "build: {}/net.py defines no Net "),
        ({}, "arguments: build in {}/net.py needs width"),
        (
            {"module": "plain.py", "solve": 1},
            "solve: no file of the model imports torchdiffeq, so there is no solve to follow",
        ),
        (
            {"arguments": {"width": 3}, "ode": "none", "solve": "net.5"},
            "solve: with ode: none there is no solve to follow: remove one of them",
        ),
        ({"arguments": {"width": 3}, "solve": "net.5"}, None),
        ({"arguments": {"wide": 3}}, "arguments.wide: build in {}/net.py takes no such argument"),
        ({"arguments": {"width": 3}}, None),
        (RESIDUAL, None),
    ],
)
def test_the_file(folder, keys, line):
    (folder / "broken.py").write_text("x = = 1")
    (folder / "plain.py").write_text("def build(): ...")
    if line is None:
        model(**keys).check_file()
    else:
        with pytest.raises(UserError) as caught:
            model(**keys).check_file()
        assert str(caught.value).startswith(line.format(folder))


def test_training():
    assert configured(training={"epochs": 3}).training_of("M").epochs == 3
    with pytest.raises(UserError, match="gradient: adjoint needs solver: torchdiffeq"):
        configured(training={"gradient": "adjoint"})
