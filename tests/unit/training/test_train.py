"""Training: resumption, repeatability, the choice of the epoch, and the user's mistakes."""

import csv
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import node_robustness
from node_robustness.config.models import Augmentation, Training
from node_robustness.errors import UserError
from node_robustness.models.classifier import Classifier, Spec
from node_robustness.training import train as module
from node_robustness.training.train import train, write_history

CPU = torch.device("cpu")
SCHEDULES = ["plateau", "one_cycle", "cosine", "constant"]
EVERYTHING = Augmentation(crop_padding=1, horizontal_flip=True, hue=0.05, saturation=0.05)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def data(count, seed, channels=3):
    """Two classes, rows and columns of stripes, under noise that hides some of them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    noise = torch.rand(count, channels, 6, 6, generator=generator)
    rows = torch.tensor([0.0, 1.0]).repeat(3)[:, None].expand(6, 6)
    stripes = torch.where(labels[:, None, None] == 1, rows, rows.T)[:, None]
    return (255 * (0.6 * noise + 0.4 * stripes)).byte(), labels


FIT, CHECK = data(25, 0), data(12, 1)
CALLS_PER_EPOCH = 3 + 2  # batches of 10 of 25 and of 12 images


def network(seed=0, channels=3, dropout=0.3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(4, 2),
    )


def ode(**changes):
    torch.manual_seed(0)
    spec = Spec(3, 2, (0.5,) * 3, (0.25,) * 3, "convolution", "ode", filters=4, **changes)
    return Classifier(spec)


def setting(**changes):
    values = {"epochs": 3, "batch_size": 10, "learning_rate": 0.2, "augmentation": EVERYTHING}
    return Training(**(values | changes))


def run(folder, settings, *, model=None, seed=0, fit=FIT, check=CHECK):
    """Train; return the final weights and the history without its wall times."""
    model = network() if model is None else model
    history = train(
        model, fit, check, settings, seed=seed, checkpoint=folder / "c.safetensors", device=CPU,
        progress=False,
    )  # fmt: skip
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in history]
    return {key: value.clone() for key, value in model.state_dict().items()}, rows


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


class KilledError(Exception):
    pass


def kill_at(model, call):
    """A model that dies at a forward call."""
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError

    model.register_forward_pre_hook(count)
    return model


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_killed_anywhere_and_resumed_gives_the_same_model(tmp_path, schedule):
    settings = setting(schedule=schedule, patience=0)
    expected, rows = run(tmp_path / "whole", settings)
    # The schedules differ in what they know at the end of an epoch.
    calls = range(1, 3 * CALLS_PER_EPOCH + 1, 1 if schedule == "plateau" else CALLS_PER_EPOCH)
    for call in calls:
        folder = tmp_path / str(call)
        with pytest.raises(KilledError):
            run(folder, settings, model=kill_at(network(), call))
        assert (folder / "c.safetensors").exists() == (call > CALLS_PER_EPOCH)
        weights, resumed = run(folder, settings)
        assert same(weights, expected)
        assert resumed == rows


def test_killed_again_and_again_gives_the_same_model(tmp_path):
    settings = setting(epochs=4)
    expected, rows = run(tmp_path / "whole", settings)
    for _ in range(3):
        with pytest.raises(KilledError):
            run(tmp_path, settings, model=kill_at(network(), CALLS_PER_EPOCH + 1))
    weights, resumed = run(tmp_path, settings, model=kill_at(network(), CALLS_PER_EPOCH + 1))
    assert same(weights, expected)
    assert resumed == rows


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_killed_while_writing_leaves_the_checkpoint_before(tmp_path, monkeypatch, momentum):
    settings = setting(momentum=momentum)
    expected, _ = run(tmp_path / "whole", settings)
    whole, writes = module.save_file, 0

    def half(tensors, path, metadata):
        nonlocal writes
        writes += 1
        whole(tensors, path, metadata)
        if writes == 2:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            raise KilledError

    monkeypatch.setattr(module, "save_file", half)
    with pytest.raises(KilledError):
        run(tmp_path, settings)
    monkeypatch.undo()
    weights, _ = run(tmp_path, settings, model=kill_at(network(), 2 * CALLS_PER_EPOCH + 1))
    assert same(weights, expected)


def test_a_finished_training_is_not_repeated(tmp_path):
    expected, rows = run(tmp_path, setting())
    weights, again = run(tmp_path, setting(), model=kill_at(network(), 1))
    assert same(weights, expected)
    assert again == rows


def test_sigkill_of_the_process(tmp_path, pytestconfig):
    other_rounding = pytestconfig.getoption("--other-rounding")
    code = f"""
import os, signal, sys
sys.path[:0] = {[str(folder) for folder in Path(__file__).parents[:3]]!r}
import torch
from rounding import OtherRounding
torch.set_num_threads(1)
from pathlib import Path
import test_train as t
model = t.network()
calls = []
def die(*_):
    calls.append(0)
    if len(calls) == 2 * t.CALLS_PER_EPOCH + 2:
        os.kill(os.getpid(), signal.SIGKILL)
model.register_forward_pre_hook(die)
if {other_rounding}:
    rounding = OtherRounding()
    rounding.__enter__()
t.run(Path({str(tmp_path)!r}), t.setting(), model=model)
"""
    paths = {"PYTHONPATH": str(Path(node_robustness.__file__).parent.parent)}
    child = subprocess.run([sys.executable, "-c", code], env=os.environ | paths, check=False)
    assert child.returncode == -signal.SIGKILL
    weights, _ = run(tmp_path, setting(), model=kill_at(network(), CALLS_PER_EPOCH + 1))
    expected, _ = run(tmp_path / "whole", setting())
    assert same(weights, expected)


def test_seeds_decide_the_weights_and_global_randomness_does_not(tmp_path):
    first, _ = run(tmp_path / "a", setting())
    model = network()
    torch.manual_seed(123)
    second, _ = run(tmp_path / "b", setting(), model=model)
    other, _ = run(tmp_path / "c", setting(), seed=1)
    assert same(first, second)
    assert not same(first, other)


@pytest.mark.parametrize(
    ("name", "model", "settings"),
    [
        ("order", network(dropout=0), setting(augmentation=Augmentation())),
        ("dropout", network(dropout=0.5), setting(augmentation=Augmentation(), batch_size=100)),
        ("crop", network(dropout=0), setting(batch_size=100)),
    ],
)
def test_each_random_part_depends_on_the_seed(tmp_path, name, model, settings):
    start = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for seed in (0, 1):
        model.load_state_dict(start)
        results.append(run(tmp_path / str(seed), settings, model=model, seed=seed)[0])
    difference = max(
        (a - b).abs().max() for a, b in zip(*(r.values() for r in results), strict=True)
    )
    # More than a change in the order of summation could do.
    assert difference > 1e-4


def test_epochs_do_not_repeat_their_random_numbers(tmp_path):
    seen = []
    model = network()
    model.register_forward_pre_hook(
        lambda m, inputs: seen.append(inputs[0]) if m.training else None
    )
    run(tmp_path, setting(), model=model)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:6])
    assert not any(torch.equal(a, b) for a in first for b in second)


def test_global_state_is_left_alone(tmp_path):
    torch.manual_seed(7)
    model = network()
    state = torch.get_rng_state()
    run(tmp_path, setting(), model=model)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_image_is_seen_once_an_epoch_scaled_to_one(tmp_path):
    seen, checked = [], []
    model = network()
    model.register_forward_pre_hook(
        lambda m, inputs: (seen if m.training else checked).append(inputs[0].clone())
    )
    run(tmp_path, setting(epochs=1, augmentation=Augmentation()), model=model)
    assert [len(batch) for batch in seen] == [10, 10, 5]

    def ordered(images):
        return sorted(images.flatten(1).tolist())

    assert ordered(torch.cat(seen)) == ordered(FIT[0].float() / 255)
    assert torch.equal(torch.cat(checked), CHECK[0].float() / 255)


BACKWARDS = (CHECK[0], 1 - CHECK[1])
"""Validation images whose accuracy falls as the training goes well."""


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images.float() / 255).argmax(1) == labels).float().mean().item()


def test_the_weights_of_the_best_epoch_are_kept(tmp_path):
    model = network()
    many = setting(epochs=8, schedule="constant")
    weights, rows = run(tmp_path, many, model=model, check=BACKWARDS)
    values = [row["validation_accuracy"] for row in rows]
    best = values.index(max(values)) + 1
    assert best < 8
    assert not model.training
    assert accuracy(model, *BACKWARDS) == pytest.approx(max(values))
    # At a constant rate a training of that many epochs is the beginning of the longer one.
    short = setting(epochs=best, schedule="constant")
    expected, _ = run(tmp_path / "short", short, check=BACKWARDS)
    assert same(weights, expected)


def test_early_stopping_counts_from_the_best_epoch(tmp_path):
    _, rows = run(tmp_path, setting(epochs=40, early_stopping=3), check=BACKWARDS)
    values = [row["validation_accuracy"] for row in rows]
    assert len(rows) == values.index(max(values)) + 1 + 3
    assert len(rows) < 40
    _, again = run(tmp_path, setting(epochs=40, early_stopping=3), check=BACKWARDS)
    assert again == rows


def test_plateau_divides_the_rate_when_accuracy_stops_rising(tmp_path):
    settings = setting(epochs=8, schedule="plateau", patience=1, learning_rate=0.1)
    _, rows = run(tmp_path, settings, check=BACKWARDS)
    rate, best, bad, expected = 0.1, -1.0, 0, []
    for row in rows:
        expected.append(rate)
        if row["validation_accuracy"] > best:
            best, bad = row["validation_accuracy"], 0
        else:
            bad += 1
        if bad > 1:
            rate, bad = rate / 10, 0
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected)
    assert expected[-1] < 0.1


def rates(tmp_path, monkeypatch, schedule):
    """The rate of every step."""
    seen = []
    step = module.SGD.step

    def spy(self, *args):
        seen.append((self.param_groups[0]["lr"], self.param_groups[0]["momentum"]))
        return step(self, *args)

    monkeypatch.setattr(module.SGD, "step", spy)
    run(tmp_path, setting(schedule=schedule, learning_rate=0.1, momentum=0.8, epochs=4))
    assert {momentum for _, momentum in seen} == {0.8}
    return [rate for rate, _ in seen]


def test_one_cycle_rises_to_the_rate_and_falls_to_nearly_nothing(tmp_path, monkeypatch):
    seen = rates(tmp_path, monkeypatch, "one_cycle")
    peak = seen.index(max(seen))
    assert len(seen) == 12
    assert 0 < peak < 6
    assert seen[: peak + 1] == sorted(seen[: peak + 1])
    assert seen[peak:] == sorted(seen[peak:], reverse=True)
    assert 0.08 < seen[peak] <= 0.1
    assert seen[-1] < 1e-4


def test_cosine_is_half_a_cosine_over_all_steps(tmp_path, monkeypatch):
    seen = rates(tmp_path, monkeypatch, "cosine")
    angles = torch.arange(12, dtype=torch.float64) * torch.pi / 12
    assert seen == pytest.approx((0.05 * (1 + angles.cos())).tolist())


def test_constant_is_constant(tmp_path, monkeypatch):
    assert set(rates(tmp_path, monkeypatch, "constant")) == {0.1}


def test_it_learns(tmp_path):
    fit, check = data(200, 2), data(100, 3)
    settings = setting(epochs=15, augmentation=Augmentation(), schedule="one_cycle")
    _, rows = run(tmp_path, settings, fit=fit, check=check)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["validation_accuracy"] > 0.9


class NotFinite(nn.Module):
    """Gives NaN from one forward call on."""

    def __init__(self, call):
        super().__init__()
        self.inner, self.call, self.calls = network(), call, 0

    def forward(self, images):
        self.calls += 1
        return self.inner(images) * (torch.nan if self.calls >= self.call else 1)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (2, "training loss is not finite at epoch 1, step 2"),
        (CALLS_PER_EPOCH + 1, "training loss is not finite at epoch 2, step 1"),
        (CALLS_PER_EPOCH + 4, "validation loss is not finite after epoch 2"),
    ],
)
def test_a_loss_that_is_not_finite_is_the_users_mistake(tmp_path, call, where):
    with pytest.raises(UserError) as raised:
        run(tmp_path, setting(), model=NotFinite(call))
    assert str(raised.value) == f"{where}: lower training.learning_rate (now 0.2)"
    checkpoint = tmp_path / "c.safetensors"
    assert checkpoint.exists() == (call > CALLS_PER_EPOCH)
    if checkpoint.exists():
        with safe_open(checkpoint, "pt") as file:
            assert all(bool(file.get_tensor(key).isfinite().all()) for key in file.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("solver", "gradient"),
    [("batched", "direct"), ("torchdiffeq", "direct"), ("torchdiffeq", "adjoint")],
)
def test_a_solver_that_explodes_is_the_users_mistake(tmp_path, solver, gradient):
    settings = setting(
        learning_rate=1e30, solver=solver, gradient=gradient, augmentation=Augmentation()
    )
    with pytest.raises(UserError, match=r"epoch 1.*: lower training\.learning_rate \(now 1e30\)$"):
        run(tmp_path, settings, model=ode())


def test_a_decay_that_leads_past_zero_is_named(tmp_path):
    with pytest.raises(UserError) as raised:
        run(tmp_path, setting(weight_decay=1e30), model=ode())
    assert str(raised.value).endswith(
        ": lower training.weight_decay (now 1e30), or lower training.learning_rate (now 0.2)"
    )


GAVE_UP = (
    "training loss is not finite at epoch 1, step {step}, because the solver ({solver}) failed for "
)


@pytest.mark.parametrize(
    ("solver", "gradient", "count", "rate"),
    [
        ("batched", "direct", "10 of 10 images", 1e-6),
        ("batched", "direct", "10 of 10 images", 0.2),
        ("torchdiffeq", "direct", "the batch", 0.2),
        ("torchdiffeq", "adjoint", "the batch", 1e-6),
    ],
)
def test_a_solver_that_gives_up_at_once_is_not_put_down_to_the_rate(
    tmp_path, solver, gradient, count, rate
):
    settings = setting(solver=solver, gradient=gradient, learning_rate=rate, epochs=1)
    with pytest.raises(UserError) as raised:
        run(tmp_path, settings, model=ode(max_steps=2, tolerance=1e-4))
    start = GAVE_UP.format(step=1, solver="dopri5, tolerance 0.0001, max_steps 2")
    assert str(raised.value) == (
        f"{start}{count} (max_steps): raise solver.max_steps or solver.tolerance of the model"
    )
    # The remedies help.
    run(tmp_path, settings, model=ode(max_steps=1000, tolerance=1e-4))
    run(tmp_path, settings, model=ode(max_steps=2, tolerance=10.0))


def test_a_solver_that_cannot_be_so_exact(tmp_path):
    settings = setting(learning_rate=1e-3)
    with pytest.raises(UserError) as raised:
        run(tmp_path, settings, model=ode(tolerance=1e-30))
    start = GAVE_UP.format(step=1, solver="dopri5, tolerance 1e-30, max_steps 1000")
    assert str(raised.value) == (
        f"{start}10 of 10 images (nonfinite): raise solver.tolerance of the model"
    )
    run(tmp_path, settings, model=ode(tolerance=1e-3))


def test_a_solver_that_gives_up_later_may_have_been_led_there_by_the_rate(tmp_path):
    model, calls = ode(tolerance=1e-4), []

    def fewer_steps(module, inputs):
        calls.append(module)
        if len(calls) == 2:
            module.settings = replace(module.settings, max_steps=2)

    model.body.register_forward_pre_hook(fewer_steps)
    with pytest.raises(UserError) as raised:
        run(tmp_path, setting(), model=model)
    start = GAVE_UP.format(step=2, solver="dopri5, tolerance 0.0001, max_steps 2")
    assert str(raised.value) == (
        f"{start}10 of 10 images (max_steps): raise solver.max_steps or solver.tolerance of the "
        "model, or lower training.learning_rate (now 0.2)"
    )


def test_untouched_weights_are_not_put_down_to_the_rate(tmp_path):
    with pytest.raises(FloatingPointError):
        run(tmp_path, setting(), model=NotFinite(1))


def test_other_errors_of_a_model_keep_their_traceback(tmp_path):
    model = network()
    model.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("a bug")))
    with pytest.raises(ValueError, match="a bug"):
        run(tmp_path, setting(), model=model)


def truncated(content):
    return content[: len(content) // 2]


def flipped(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


def rewritten(content):
    return content.replace(b'\\"epoch\\": 2', b'\\"epoch\\": 3')


@pytest.mark.parametrize(
    "damage",
    [truncated, flipped, rewritten, lambda _: b"", lambda _: b"not safetensors at all"],
)
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tmp_path, caplog, damage):
    expected, rows = run(tmp_path, setting())
    checkpoint = tmp_path / "c.safetensors"
    content = checkpoint.read_bytes()
    assert damage(content) != content
    checkpoint.write_bytes(damage(content))
    weights, again = run(tmp_path, setting())
    assert same(weights, expected)
    assert again == rows
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"settings": setting(learning_rate=0.1)}, "settings"),
        ({"seed": 1}, "seed"),
        ({"fit": (FIT[0], 1 - FIT[1])}, "training images"),
        ({"fit": (255 - FIT[0], FIT[1])}, "training images"),
        ({"check": BACKWARDS}, "validation images"),
        ({"model": network(seed=1)}, "initial weights"),
        ({"model": network(dropout=0.1)}, "model"),
    ],
)
def test_a_checkpoint_of_another_training_is_ignored_with_a_warning(
    tmp_path, caplog, changes, what
):
    run(tmp_path, setting())
    arguments = {"settings": setting()} | changes
    start = arguments.get("model", network())
    before = {key: value.clone() for key, value in start.state_dict().items()}
    weights, _ = run(tmp_path, **arguments)
    assert f"of another training (other {what})" in caplog.text
    start.load_state_dict(before)
    expected, _ = run(tmp_path / "fresh", **(arguments | {"model": start}))
    assert same(weights, expected)


@pytest.mark.parametrize(
    ("first", "second"),
    [({"tolerance": 1e-3}, {"tolerance": 1e-2}), ({"method": "dopri5"}, {"method": "bosh3"})],
)
def test_a_checkpoint_of_another_solver_is_ignored(tmp_path, caplog, first, second):
    settings = setting(epochs=1, augmentation=Augmentation())
    run(tmp_path, settings, model=ode(**first))
    run(tmp_path, settings, model=ode(**second))
    assert "of another training (other model)" in caplog.text


@pytest.mark.parametrize(
    ("solver", "gradient"),
    [("batched", "direct"), ("torchdiffeq", "direct"), ("torchdiffeq", "adjoint")],
)
def test_an_ode_model_trains_with_its_settings_and_validates_batched(tmp_path, solver, gradient):
    settings = setting(epochs=2, solver=solver, gradient=gradient, learning_rate=0.05)
    model = ode()
    before, seen = model.solver, set()
    model.register_forward_pre_hook(
        lambda m, _: seen.add((m.training, m.solver.backend, m.solver.gradient))
    )
    expected, rows = run(tmp_path / "whole", settings, model=model)
    assert model.solver == before
    assert {use for use in seen if use[0]} == {(True, solver, gradient)}
    assert {use[:2] for use in seen if not use[0]} == {(False, "batched")}
    assert all(row["nfe_mean"] >= 8 for row in rows)
    with pytest.raises(KilledError):
        run(tmp_path, settings, model=kill_at(ode(), CALLS_PER_EPOCH + 2))
    weights, _ = run(tmp_path, settings, model=ode())
    assert same(weights, expected)


def test_a_failure_leaves_the_solver_settings(tmp_path):
    model = kill_at(ode(), 2)
    before = model.solver
    with pytest.raises(KilledError):
        run(tmp_path, setting(solver="torchdiffeq"), model=model)
    assert model.solver == before


def test_the_history_is_a_table(tmp_path):
    checkpoint = tmp_path / "c.safetensors"
    rows = train(
        network(), FIT, CHECK, setting(), seed=0, checkpoint=checkpoint, device=CPU, progress=False
    )
    write_history(rows, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["epoch"] for row in table] == ["1", "2", "3"]
    assert list(table[0]) == list(rows[0])
    for read, row in zip(table, rows, strict=True):
        assert read["nfe_mean"] == ""
        assert float(read["train_loss"]) == row["train_loss"]
        assert 0 <= row["train_accuracy"] <= 1
        assert row["seconds"] > 0


def test_grey_images_with_colour_augmentation_are_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match=r"^training\.augmentation\.hue"):
        run(
            tmp_path,
            setting(),
            model=network(channels=1),
            fit=data(25, 0, channels=1),
            check=data(12, 1, channels=1),
        )


def test_the_progress_bar_is_on_stderr_and_does_not_flood_a_log(tmp_path, capsys):
    checkpoint = tmp_path / "c.safetensors"
    train(network(), FIT, CHECK, setting(), seed=0, checkpoint=checkpoint, device=CPU)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 3/3" in captured.err
    assert "loss=" in captured.err
    assert captured.err.count("\r") <= 3
