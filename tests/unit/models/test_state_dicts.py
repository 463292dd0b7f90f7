"""Weights from elsewhere: each kind of file gives the right weights, or one line that is true."""

import argparse
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from authors import KINDS, authors_net
from node_robustness.config import loading
from node_robustness.errors import UserError
from node_robustness.grid import sources
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.models.state_dicts import fill_own, import_weights

COPY = "copy it again from where it comes from"
SAVE = "save its state dict alone: torch.save({'model': model.state_dict()}, file)"


def spec(kind="OON"):
    return Spec(1, 10, (0.0,), (1.0,), *KINDS[kind], filters=8, blocks=6)


def theirs(kind="OON"):
    """A state dict under the authors' names."""
    torch.manual_seed(3)
    return dict(authors_net(kind, 8, 1, True).state_dict())


def ours(kind="OON"):
    torch.manual_seed(3)
    return Classifier(spec(kind)).state_dict()


def legacy(contents, path):
    torch.save(contents, path, _use_new_zipfile_serialization=False)


def same(path, state, kind="OON"):
    """Whether the imported weights are those of a state dict, in the order of its names."""
    found = import_weights(Classifier(spec(kind)), path).state_dict()
    torch.save({"model": state}, path.with_name("expected.pth"))
    expected = import_weights(Classifier(spec(kind)), path.with_name("expected.pth")).state_dict()
    return all(torch.equal(found[name], expected[name]) for name in expected)


def complaint(path, kind="OON"):
    with pytest.raises(UserError) as caught:
        import_weights(Classifier(spec(kind)), path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert "\x1b" not in line
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "named",
    [
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model.net.{name}",
        lambda name: name.replace(".", "._orig_mod.", 1),
    ],
)
@pytest.mark.parametrize("state", [theirs, ours])
def test_what_wraps_a_net_is_taken_off_its_names(kind, named, state, tmp_path):
    plain = state(kind)
    torch.save({"model": {named(k): v for k, v in plain.items()}}, tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", plain, kind)


def test_a_net_that_was_wrapped_by_pytorch_itself(tmp_path):
    net = authors_net("OON", 8, 1, True)
    torch.save({"model": nn.DataParallel(net).state_dict()}, tmp_path / "parallel.pth")
    torch.save({"model": torch.compile(net).state_dict()}, tmp_path / "compiled.pth")
    for name in ("parallel", "compiled"):
        assert same(tmp_path / f"{name}.pth", dict(net.state_dict()))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"model": state, "epoch": 3, "params": {"tol": 1e-3}, "optim": {}},
        lambda state: {"state_dict": state, "model": "OON"},
        lambda state: {"model_state_dict": state, "loss": torch.tensor(1.0)},
        lambda state: {"model": {}, "state_dict": state},
        lambda state: state,
        lambda state: OrderedDict(state),
    ],
)
@pytest.mark.parametrize("save", [torch.save, legacy])
def test_the_state_dict_is_found(wrapped, save, tmp_path):
    save(wrapped(theirs()), tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", theirs())


def test_a_name_does_not_say_what_a_file_is(tmp_path):
    save_file(ours(), tmp_path / "tensors.pth")
    save_file(theirs(), tmp_path / "theirs.safetensors")
    torch.save(ours(), tmp_path / "torch.safetensors")
    assert same(tmp_path / "tensors.pth", ours())
    assert same(tmp_path / "theirs.safetensors", theirs())
    assert same(tmp_path / "torch.safetensors", ours())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_single(dtype, tmp_path):
    state = {name: value.to(dtype) for name, value in theirs().items()}
    torch.save(state, tmp_path / "a.pth")
    found = import_weights(Classifier(spec()), tmp_path / "a.pth").state_dict()
    assert {value.dtype for value in found.values()} == {torch.float32}
    assert same(tmp_path / "a.pth", {name: value.float() for name, value in state.items()})


def test_a_checkpoint_of_a_gpu_is_read_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda _: "cuda:7")
    torch.save(theirs(), tmp_path / "a.pth")
    legacy(theirs(), tmp_path / "b.pth")
    monkeypatch.undo()
    assert b"cuda:7" in (tmp_path / "a.pth").read_bytes()
    assert same(tmp_path / "a.pth", theirs())
    assert same(tmp_path / "b.pth", theirs())


def test_tensors_that_are_views_or_lie_otherwise_in_memory(tmp_path):
    state = theirs()
    name = "downsample.module.weight"
    state[name] = state[name].to(memory_format=torch.channels_last)
    name = "classifier.module.5.weight"
    state[name] = torch.cat([state[name], state[name]]).t().contiguous()[:, :10].t()
    assert not state[name].is_contiguous()
    torch.save(state, tmp_path / "a.pth")
    assert same(tmp_path / "a.pth", {k: v.contiguous() for k, v in theirs().items()})


def cut(save, share=0.5):
    def write(path):
        save(theirs(), path)
        os.truncate(path, int(path.stat().st_size * share))

    return write


def changed(path):
    torch.save(theirs(), path)
    with zipfile.ZipFile(path) as archive:
        weights = max(archive.infolist(), key=lambda member: member.file_size)
    contents = bytearray(path.read_bytes())
    contents[weights.header_offset + 64 + weights.file_size // 2] ^= 0xFF
    path.write_bytes(contents)


class Named:
    """A class whose objects a checkpoint may hold."""


NOT_A_CHECKPOINT = (
    "cannot be read as a checkpoint: not a file of safetensors or torch.save; correct `weights` of "
    "the model"
)
OTHER_ZIP = (
    "cannot be read as a checkpoint: a zip archive that torch.save did not write; correct "
    "`weights` of the model"
)
CUT = (
    "cannot be read as a checkpoint of weights: truncated or damaged, or it holds more than "
    f"weights: {COPY}, or {SAVE}"
)
KEYS = "has no state dict under the key `model` or `state_dict` or `model_state_dict`"


def also(name):
    return (
        f"cannot be read as a checkpoint of weights: it also holds {name}, and reading that could "
        f"run any code: {SAVE}"
    )


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (lambda p: p.touch(), f"is empty (0 bytes): {COPY}"),
        (lambda p: p.mkdir(), "is a folder; correct `weights` of the model"),
        (lambda p: None, "no such file; correct `weights` of the model"),
        (lambda p: p.write_text("hello\nworld\n"), NOT_A_CHECKPOINT),
        (lambda p: p.write_text("<!DOCTYPE html><html></html>"), NOT_A_CHECKPOINT),
        (lambda p: p.write_text("x"), NOT_A_CHECKPOINT),
        (lambda p: p.write_bytes(pickle.dumps({"model": 1}, protocol=4)), NOT_A_CHECKPOINT),
        (lambda p: np.savez(p.open("wb"), weights=np.zeros(3)), OTHER_ZIP),
        (cut(torch.save), f"a zip archive, truncated or damaged: {COPY}"),
        (cut(torch.save, 0.99), f"a zip archive, truncated or damaged: {COPY}"),
        (cut(legacy), CUT),
        (cut(legacy, 0.01), CUT),
        (cut(save_file), f"a safetensors file, truncated or damaged: {COPY}"),
        (cut(save_file, 0.01), f"a safetensors file, truncated or damaged: {COPY}"),
        (
            lambda p: torch.save({"model": theirs(), "args": argparse.Namespace(lr=0.1)}, p),
            also("argparse.Namespace"),
        ),
        (
            lambda p: legacy({"model": theirs(), "args": argparse.Namespace(lr=0.1)}, p),
            also("argparse.Namespace"),
        ),
        (lambda p: torch.save(nn.Linear(2, 2), p), also("torch.nn.modules.linear.Linear")),
        (lambda p: torch.save(Named(), p), also(f"{__name__}.Named")),
        (
            lambda p: torch.jit.save(torch.jit.script(nn.Linear(2, 2)), p),
            f"a TorchScript archive, not a checkpoint of weights: {SAVE}",
        ),
        (
            lambda p: torch.save([1, 2], p),
            f"holds an object of type list, not a state dict: {SAVE}",
        ),
        (
            lambda p: torch.save(torch.zeros(2), p),
            f"holds an object of type Tensor, not a state dict: {SAVE}",
        ),
        (lambda p: torch.save({}, p), f"{KEYS} (there is: nothing): {SAVE}"),
        (
            lambda p: torch.save({"net": theirs(), "epoch": 1}, p),
            f"{KEYS} (there is: net, epoch): {SAVE}",
        ),
        (
            lambda p: torch.save({"model": theirs(), "state_dict": theirs()}, p),
            f"has a state dict under model and state_dict: {SAVE}",
        ),
        (
            lambda p: torch.save({"model": {**theirs(), "epoch": 3}}, p),
            f"model.epoch is of type int, not a tensor: {SAVE}",
        ),
        (
            lambda p: torch.save({**theirs(), **ours()}, p),
            f"holds two weights of the same name: {SAVE}",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_checkpoint_is_refused_in_one_line(write, line, tmp_path):
    path = tmp_path / "a.pth"
    write(path)
    assert complaint(path) == line


def test_a_changed_byte_is_seen(tmp_path):
    changed(tmp_path / "a.pth")
    line = complaint(tmp_path / "a.pth")
    assert line.startswith("damaged, or saved without checksums (a/data/")
    assert line.endswith(f" does not match): {COPY}")


NAME = "head.linear.weight"


@pytest.mark.parametrize(
    ("spoilt", "line"),
    [
        (lambda w: w * torch.nan, f"{NAME} holds values that are not finite (in float32)"),
        (lambda w: w / 0, f"{NAME} holds values that are not finite (in float32)"),
        (lambda w: w.double() * 1e300, f"{NAME} holds values that are not finite (in float32)"),
        (
            lambda w: w.to(torch.int8),
            f"{NAME} is not a dense tensor of real numbers (int8, strided",
        ),
        (lambda w: w > 0, f"{NAME} is not a dense tensor of real numbers (bool, strided"),
        (lambda w: w * 1j, f"{NAME} is not a dense tensor of real numbers (complex64, strided"),
        (
            lambda w: w.to_sparse(),
            f"{NAME} is not a dense tensor of real numbers (float32, sparse_coo",
        ),
        (
            lambda w: w.to("meta"),
            f"{NAME} is not a dense tensor of real numbers (float32, strided, me",
        ),
        (
            lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
            f"{NAME} is not a dense tensor of real numbers (qint8, strided",
        ),
        (lambda w: w.flatten(), f"{NAME} has shape [80] where the model has [10, 8]"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_are_no_weights_is_refused(spoilt, line, tmp_path):
    state = ours()
    state[NAME] = spoilt(state[NAME])
    torch.save(state, tmp_path / "a.pth")
    assert complaint(tmp_path / "a.pth").startswith(line)


def test_files_are_looked_for_before_the_run(tmp_path, monkeypatch):
    """The weights of every seed."""
    monkeypatch.chdir(tmp_path)
    raw = yaml.safe_load("""
        experiments: {t: {datasets: [digits], models: [OON], seeds: [0, 1], tolerances: [1],
                          attacks: [bim], norms: [linf], epsilons: [0.1]}}
        datasets: {digits: {source: digits}}
        models: {OON: {downsampling: convolution, body: ode, weights: "oon-{seed}.pth"}}
        attacks: {bim: {method: bim, step: 0.1}}
    """)
    (tmp_path / "oon-0.pth").touch()
    found = (
        "config: models.OON.weights: {} in {}: correct the path, or remove the key to train the "
    )
    with pytest.raises(UserError) as raised:
        sources.check_checkpoints(loading.load(raw))
    missing = found.format("there is no file oon-1.pth", tmp_path)
    assert str(raised.value) == f"{missing}model"
    (tmp_path / "oon-1.pth").mkdir()
    with pytest.raises(UserError) as raised:
        sources.check_checkpoints(loading.load(raw))
    assert str(raised.value) == f"{found.format('oon-1.pth is a folder', tmp_path)}model"


@pytest.mark.parametrize("saved", ["{}", "module.{}", "net.{}", "module.net.{}"])
def test_a_module_that_wraps_the_saved_net_gets_its_weights(saved, tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    state = net.state_dict()
    torch.save({saved.format(name): value for name, value in state.items()}, tmp_path / "a.pth")
    wrapper = nn.ModuleDict({"net": nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))})
    wrapper["net"].append(nn.Linear(2, 2))
    fill_own(wrapper, tmp_path / "a.pth", None)
    for name, value in wrapper.state_dict().items():
        assert torch.equal(value, state[name.removeprefix("net.")])
