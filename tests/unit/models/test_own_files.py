"""Files of own models: importing, building, weights, and saved models."""

import argparse
import json
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchdiffeq
from safetensors.torch import save_file
from torch import nn

from node_robustness.data.prepared import load_split
from node_robustness.data.splits import prepare
from node_robustness.errors import UserError
from node_robustness.models import checkpoints
from node_robustness.models.make import inspected, make_network
from node_robustness.models.own.modules import build_module
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.state_dicts import import_weights

NET = """
import torch
from torch import nn
from torchdiffeq import odeint

class Net(nn.Module):
    def __init__(self, channels, classes, width):
        super().__init__()
        self.encode = nn.Linear(channels * 36, width)
        self.norm = nn.BatchNorm1d(width)
        self.dynamics = nn.Linear(width, width)
        self.decode = nn.Linear(width, classes)

    def forward(self, x):
        h = self.norm(self.encode(x.flatten(1)))
        t = torch.tensor([0.0, 1.0]).to(h)
        h = odeint(lambda t, h: torch.tanh(self.dynamics(h) * t), h, t, rtol=1e-3, atol=1e-4)
        return self.decode(h[-1])

def build(channels, classes, width=5):
    return Net(channels, classes, width)
"""
GIVEN = {"channels": 1, "classes": 3}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture
def data(tmp_path):
    generator = np.random.default_rng(0)
    parts = []
    for count in (60, 20):
        images = generator.integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
        parts += [images, np.arange(count) % 3]
    settings = {"dataset": "tiny", "mean": [0.0], "std": [1.0]}
    path = tmp_path / "data.h5"
    prepare(*parts, list("abc"), validation=12, seed=0, path=str(path), settings=settings)
    return path


def architecture(module="net.py", **changes):
    keys = {"module": str(module), "build": "build", "arguments": {}, "weights_key": None}
    keys |= {"output": 0, "solve": None, "ode": "adaptive", "max_steps": 1000, "code": {}}
    return keys | changes


def images(data):
    return torch.from_numpy(load_split(data, "test", 6).images).float() / 255


def state(file, seed=7, width=5):
    torch.manual_seed(seed)
    return build_module(str(file), "build", {"width": width}, GIVEN).state_dict()


# Building.


def test_arguments_win_over_what_is_given(file):
    assert build_module("net.py", "build", {"classes": 7}, GIVEN).decode.out_features == 7
    assert build_module("net.py", "build", {}, GIVEN).decode.out_features == 3


def test_a_module_by_its_dotted_name(file, tmp_path, monkeypatch):
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "layers.py").write_text("from torch.nn import Flatten\n")
    (package / "net.py").write_text("from .layers import Flatten\ndef build(): return Flatten()\n")
    assert isinstance(build_module("their_package.net", "build", {}, GIVEN), nn.Flatten)


def test_weights_come_from_the_global_generator_and_leave_it_as_it_was(file):
    file.write_text(NET.replace("import torch\n", "import torch\ntorch.manual_seed(3)\n", 1))
    torch.manual_seed(1)
    first = build_module("net.py", "build", {}, GIVEN).state_dict()
    again = build_module("net.py", "build", {}, GIVEN).state_dict()
    torch.manual_seed(2)
    other = build_module("net.py", "build", {}, GIVEN).state_dict()
    assert torch.equal(first["encode.weight"], again["encode.weight"])
    assert torch.equal(first["encode.weight"], other["encode.weight"])  # as the file seeds it


ROGUE = """
import os, random, sys, warnings
import numpy as np
import torch
random.seed(1); np.random.seed(1); torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 1)
torch.use_deterministic_algorithms(True)
torch.set_grad_enabled(False)
torch.backends.cudnn.benchmark = True
warnings.simplefilter("error")
sys.argv = ["--rogue"]; sys.path.append("/rogue"); os.environ["ROGUE"] = "1"; os.chdir("/")

def build():
    torch.set_default_dtype(torch.float16)
    return torch.nn.Flatten()
"""


def process():
    return {
        "random": random.getstate(),
        "numpy": np.random.get_state()[1].tolist(),
        "torch": torch.get_rng_state().tolist(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "cudnn": torch.backends.cudnn.benchmark,
        "warnings": list(warnings.filters),
        "argv": list(sys.argv),
        "path": list(sys.path),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
    }


@pytest.mark.parametrize("end", ["", "\nraise ValueError('no')\n"])
def test_a_file_leaves_the_process_as_it_was(file, end):
    file.write_text(ROGUE + end)
    before = process()
    if end:
        with pytest.raises(UserError, match="ValueError: no"):
            build_module("net.py", "build", {}, GIVEN)
    else:
        build_module("net.py", "build", {}, GIVEN)
    assert process() == before


def test_what_a_file_puts_in_the_place_of_functions_is_undone(file, caplog):
    file.write_text(
        "import torch, torchdiffeq, torch.nn.functional as F\n"
        "torchdiffeq.odeint = F.relu = torch.Tensor.backward = None\n"
        "torch.nn.ReLU = torch.nn.Tanh\n"
        "def build():\n    F.gelu = F.elu\n    return torch.nn.ReLU()\n"
    )
    before = torchdiffeq.odeint, F.relu, F.gelu, torch.Tensor.backward, nn.ReLU
    assert isinstance(build_module("net.py", "build", {}, GIVEN), nn.Tanh)
    assert (torchdiffeq.odeint, F.relu, F.gelu, torch.Tensor.backward, nn.ReLU) == before
    assert "torchdiffeq.odeint was replaced" in caplog.text


def test_files_of_one_name_and_their_local_modules_stay_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, layer in (("a", "Flatten"), ("b", "Identity")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "layers.py").write_text(f"from torch.nn import {layer} as Layer\n")
        (tmp_path / folder / "net.py").write_text(
            "from layers import Layer\nfrom dataclasses import dataclass\n\n"
            "@dataclass\nclass Settings:\n    width: 'int' = 3\n\n"
            "def build():\n    from layers import Layer as Again\n"
            "    assert Again is Layer\n    return Layer()\n"
        )
    mine = sys.modules["layers"] = type(sys)("layers")
    mine.__file__ = str(tmp_path / "layers.py")
    try:
        assert isinstance(build_module("a/net.py", "build", {}, {}), nn.Flatten)
        assert isinstance(build_module("b/net.py", "build", {}, {}), nn.Identity)
        assert isinstance(build_module("a/net.py", "build", {}, {}), nn.Flatten)
        assert sys.modules["layers"] is mine
    finally:
        del sys.modules["layers"]


ARGPARSE = (
    "import argparse\np = argparse.ArgumentParser()\np.add_argument('--w', {})\np.parse_args()\n"
)


def test_options_of_a_command_line_have_their_defaults(file, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["snakemake", "--cores", "2"])
    file.write_text(ARGPARSE.format("default=3") + NET)
    build_module("net.py", "build", {}, GIVEN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (ARGPARSE.format("required=True"), "it ends the program"),
        ("import sys\nsys.exit(0)\n", r"it ends the program .*__main__"),
        ("import no_such_library\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("x = [][0]\n", r"IndexError: list index out of range \(line 1\)"),
        ("def build(): raise ValueError('two\\nlines')\n", r"ValueError: two lines \(line 1\)"),
        (
            "from torch import nn\nclass build(nn.Module):\n    def train(self): pass\n",
            "what build returns has no usable `eval`: TypeError",
        ),
        ("def build(): return 3\n", "an object of type int: it must return a torch.nn.Module"),
        ("build = 3\n", "has no function or class build"),
        ("def build(depth): pass\n", "build failed: TypeError: .*'depth'"),
        ("from torch import *\n", "has no function or class build"),
    ],
)
def test_what_a_file_does_wrong_is_one_line(file, text, words):
    file.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        build_module("net.py", "build", {}, GIVEN)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("net.py: ")


# Making and saving.


def test_a_network_is_saved_and_loaded(file, data, tmp_path):
    code = {"net.py": "other"}
    network = make_network("theirs", architecture(arguments={"width": 4}), data)
    assert network.spec.given == GIVEN
    weights, spec = tmp_path / "model.safetensors", tmp_path / "model.json"
    checkpoints.save(network, weights, spec)
    x = images(data)
    loaded = checkpoints.load(weights, spec)
    assert isinstance(loaded, OwnNetwork)
    torch.testing.assert_close(loaded(x), network(x))
    assert not loaded.training
    values = json.loads(spec.read_text())
    assert (values["module"], values["ode"], values["level"], values["limits"]) == (
        "net.py", "adaptive", 1, []
    )  # fmt: skip
    spec.write_text(json.dumps(values | {"code": code}))
    with pytest.raises(
        UserError, match=r"net\.py: net\.py has changed since .*: delete it and run"
    ):
        checkpoints.load(weights, spec)
    spec.write_text(json.dumps(values | {"ways": 3}))
    with pytest.raises(UserError, match="not a model spec"):
        checkpoints.load(weights, spec)


def test_layers_may_share_weights(file, data, tmp_path):
    file.write_text(NET.replace("super().__init__()", "super().__init__(); self.tied = None", 1))
    text = NET.replace("    return Net(", "    net = Net(").rstrip()
    file.write_text(text + "\n    net.again = net.dynamics\n    return net\n")
    network = make_network("theirs", architecture(), data)
    paths = tmp_path / "model.safetensors", tmp_path / "model.json"
    checkpoints.save(network, *paths)
    torch.testing.assert_close(checkpoints.load(*paths)(images(data)), network(images(data)))


def test_an_inspection_after_training_counts(file, data):
    network = make_network("theirs", architecture(), data)
    first = network.spec.found.solves[0].error
    with torch.no_grad():
        network.module.dynamics.weight.mul_(5)
    again = inspected(network.train(), data)
    assert again.module is network.module
    assert not again.training
    assert again.spec.found.solves[0].error != first


def test_a_network_with_other_classes_than_the_data(file, data):
    with pytest.raises(UserError, match=r"models\.theirs: net\.py: gives 4 logits, .* 3 classes"):
        make_network("theirs", architecture(arguments={"classes": 4}), data)


def test_a_network_that_does_not_take_the_images(file, data):
    with pytest.raises(UserError, match=r"models\.theirs: .*fails on images .*RuntimeError"):
        make_network("theirs", architecture(arguments={"channels": 2}), data)


# Weights.

WRITERS = {
    "plain": lambda s, p: torch.save(s, p),
    "safetensors": lambda s, p: save_file({k: v.contiguous() for k, v in s.items()}, p),
    "model": lambda s, p: torch.save({"model": s, "epoch": 3}, p),
    "net": lambda s, p: torch.save({"net": s, "acc": 0.9}, p),
    "with arguments": lambda s, p: torch.save(
        {"state_dict": s, "args": argparse.Namespace(lr=0.1)}, p
    ),
    "parallel": lambda s, p: torch.save({f"module.{k}": v for k, v in s.items()}, p),
    "compiled": lambda s, p: torch.save({f"_orig_mod.{k}": v for k, v in s.items()}, p),
    "twice wrapped": lambda s, p: torch.save({f"module.net.{k}": v for k, v in s.items()}, p),
    "old": lambda s, p: torch.save(
        {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")}, p
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_common_checkpoints_are_read(file, data, tmp_path, kind):
    expected, path = state(file), tmp_path / "their.weights"
    WRITERS[kind](expected, path)
    network = import_weights(make_network("theirs", architecture(), data), path)
    for name, value in network.module.state_dict().items():
        torch.testing.assert_close(value, expected[name])


@pytest.mark.parametrize("key", ["ema", "best.ema", "a.b"])
def test_the_key_of_the_weights_is_named(file, data, tmp_path, key):
    expected, path = state(file), tmp_path / "their.pth"
    inner = {"ema": expected, "model": state(file, 8)}
    torch.save({"best": inner, **inner, "a.b": expected}, path)
    network = import_weights(make_network("theirs", architecture(), data), path, key)
    assert torch.equal(network.module.encode.weight, expected["encode.weight"])


def test_prefixes_that_the_module_has_too_stay(file, data, tmp_path):
    file.write_text(
        NET
        + "\ndef wrapped(channels, classes):\n    return nn.Sequential(Net(channels, classes, 5))\n"
    )
    network = make_network("theirs", architecture(build="wrapped"), data)
    path = tmp_path / "their.pth"
    torch.save({f"module.0.{k}": v for k, v in state(file).items()}, path)
    import_weights(network, path)
    assert torch.equal(network.module[0].encode.weight, state(file)["encode.weight"])


def changed(**changes):
    return lambda file: {k: v for k, v in (state(file) | changes).items() if v is not None}


BAD = {
    "missing": (
        changed(**{"encode.bias": None}),
        r"lacks encode.bias.*1 names are missing, 0 unknown: check `build` and `arguments`",
    ),
    "unknown": (
        changed(extra=torch.ones(1), more=torch.ones(1)),
        r"unknown extra.*2 names are unknown: check `arguments`, or save the weights without them",
    ),
    "other width": (
        lambda file: state(file, width=6),
        r"has shape \[6, 36\] where the model has \[5, 36\]: check `arguments`",
    ),
    "whole numbers": (
        changed(**{"encode.bias": torch.ones(5, dtype=torch.int64)}),
        "is not a dense tensor of real numbers",
    ),
    "real numbers": (
        changed(**{"norm.num_batches_tracked": torch.tensor(1.0)}),
        "is not a dense tensor of whole numbers",
    ),
    "not finite": (
        changed(**{"encode.bias": torch.full((5,), torch.nan)}),
        "holds values that are not finite",
    ),
    "code": (
        lambda file: {"model": state(file), "loss": nn.Linear(1, 1)},
        r"it also holds torch.nn.modules.linear.Linear, and reading that could run any code",
    ),
    "no weights": (lambda file: {"epoch": 3}, "has no state dict under the key"),
}


@pytest.mark.parametrize("kind", BAD)
def test_weights_that_do_not_fit(file, data, tmp_path, kind):
    contents, words = BAD[kind]
    path = tmp_path / "their.pth"
    torch.save(contents(file), path)
    network = make_network("theirs", architecture(), data)
    with pytest.raises(UserError, match=words) as caught:
        import_weights(network, path)
    assert str(caught.value).startswith(f"models.theirs: {path}: ")
    assert "\n" not in str(caught.value)


def test_a_key_that_is_not_there(file, data, tmp_path):
    path = tmp_path / "their.pth"
    torch.save({"model": state(file), "epoch": 3}, path)
    with pytest.raises(UserError, match=r"no key ema .*model, epoch\): correct `weights_key`"):
        import_weights(make_network("theirs", architecture(), data), path, "ema")
