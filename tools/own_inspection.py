"""Look at a model of the user's own, and time it: what `make audit` does in a process of its own.

The user's code runs in this process alone.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from node_robustness.attacks.gradients import with_gradient
from node_robustness.config.config import Config
from node_robustness.files.hdf5 import open_hdf5, read_settings
from node_robustness.grid import params
from node_robustness.jobs import devices
from node_robustness.models import checkpoints
from node_robustness.models.classifier import frozen
from node_robustness.models.evaluation import evaluate, measured_images
from node_robustness.models.make import inspected, make_network
from node_robustness.models.network import Network
from node_robustness.models.own.checks import BATCH, IMAGES, Expected, check_model
from node_robustness.models.own.network import OwnNetwork
from node_robustness.models.own.spec import Inspection
from node_robustness.models.state_dicts import import_weights
from node_robustness.scheduling.steps import Settings, Step
from node_robustness.words import percent
from own_configuration import Found

_LEVELS = (
    "Level 0: no solve of torchdiffeq is found, so that there is no tolerance to change.",
    "Level 1: torchdiffeq is called.",
    "Level 2: the model sets its own tolerance.",
)
_SAID = {"measurable"}  # the check of the network's limits
_AFTER_TRAINING = {"accuracy", "image_range"}
_FEW, _MANY = 4, 64
_LONGEST = 3.0  # seconds that one measurement may take


@dataclass(frozen=True)
class Seen:
    """What the inspection found.

    Attributes:
        found: what the configuration depends on.
        lines: all of it, in sentences.
        fatal: why an audit would mean nothing; None if it would not.
    """

    found: Found
    lines: list[str]
    fatal: str | None


@dataclass(frozen=True)
class Timing:
    """What the steps of a run take.

    Attributes:
        seconds: of each, for one image.
        device: that was timed.
    """

    seconds: Mapping[Step, float]
    device: str


def inspect(config: Config, name: str, data: Path, folder: Path) -> Seen:
    """Build a model, load its weights if there are any, look at it, and save it.

    Args:
        config: has it under `models`.
        name: its name there.
        data: its images, a data.h5.
        folder: where model.safetensors and model.json go.

    Raises:
        UserError: the model cannot be built, or does not fit its weights or the images.
    """
    at = {"dataset": config.experiments[name].datasets[0], "model": name, "seed": 0}
    devices.set_threads(config.compute.threads)
    torch.manual_seed(0)
    weights = params.checkpoint(config, at)
    architecture = params.architecture(config, at)
    network = make_network(name, architecture, data)
    if weights is not None:
        network = import_weights(network, Path(weights), architecture["weights_key"])
        network = inspected(network, data)
    assert isinstance(network, OwnNetwork)
    checkpoints.save(network, folder / "model.safetensors", folder / "model.json")
    found = network.spec.found
    lines = [*_said(found), *network.limits]
    _, images, labels = measured_images(data, IMAGES, torch.device("cpu"))
    if weights is not None:
        lines.append(_accuracy(network, images, labels))
    with open_hdf5(data, "data") as file:
        of_data = read_settings(file)
    expected = Expected(found.classes, of_data["mean"], of_data["std"], found.ode)
    wrong = [c for c in check_model(network, images, labels, expected) if not c.passed]
    said = _SAID if weights is not None else _SAID | _AFTER_TRAINING
    lines += [f"Warning: {c.sentence}." for c in wrong if not c.fatal and c.name not in said]
    fatal = next((c.sentence for c in wrong if c.fatal and c.name not in said), None)
    return Seen(_found(found), lines, fatal)


def _found(found: Inspection) -> Found:
    if not found.solves:
        return Found(found.ode)
    solve = found.solves[found.followed or 0]
    return Found(found.ode, solve.rtol, solve.atol, found.followed is not None)


def _said(found: Inspection) -> list[str]:
    """The level and the solves, one line each."""
    lines = [_LEVELS[found.level]]
    for number, solve in enumerate(found.solves):
        settings = (
            f"rtol {solve.rtol:g}, atol {solve.atol:g}" if solve.steps is None else "fixed steps"
        )
        called = "odeint_adjoint" if solve.adjoint else "odeint"
        lines.append(
            f"  solve {number} in {solve.name or 'the model'}: {called}, {solve.method}, "
            f"{settings}, t from {solve.start:g} to {solve.end:g}"
        )
        if found.one_by_one is None:
            lines[-1] += f"; times of one image: {solve.way}, error {solve.error:.0e}"
        if number == found.followed and len(found.solves) > 1:
            lines[-1] += "; followed"
    return lines


def _accuracy(network: Network, images: Tensor, labels: Tensor) -> str:
    found = evaluate(network, images, batch_size=BATCH)
    right = (found.predictions == labels).float().mean().item()
    line = f"Accuracy on {len(images)} test images: {percent(right)}"
    if found.nfe is not None:
        line += f", with {found.nfe.min()} to {found.nfe.max()} function evaluations an image"
    return f"{line}."


def timed(config: Config, folder: Path, data: Path, steps: Mapping[Step, Settings]) -> Timing:
    """Time the steps of a run on a saved model.

    Args:
        config: the configuration of the run.
        folder: with the model's model.safetensors and model.json.
        data: its images, a data.h5.
        steps: what to time (`steps.kinds`).
    """
    device = devices.choose_device(config.compute.device)
    devices.set_threads(config.compute.threads)
    network = checkpoints.load(folder / "model.safetensors", folder / "model.json").to(device)
    _, images, labels = measured_images(data, _MANY, device)
    seconds = {
        step: _an_image(_pass(network, step, settings), images, labels)
        for step, settings in steps.items()
    }
    return Timing(seconds, devices.describe(device))


def _pass(network: Network, step: Step, settings: Settings) -> Callable[[Tensor, Tensor], object]:
    """What one step computes of images and labels."""
    tolerance, kind = step
    if kind == "forward":
        return torch.no_grad()(lambda images, labels: network.at(tolerance=tolerance)(images))
    if kind == "training":
        return lambda images, labels: F.cross_entropy(network(images), labels).backward()
    solved = with_gradient(network, tolerance, settings)

    def gradient(images: Tensor, labels: Tensor) -> object:
        inputs = images.clone().requires_grad_()
        with frozen(network):
            return torch.autograd.grad(F.cross_entropy(solved(inputs), labels), inputs)

    return gradient


def _an_image(work: Callable[[Tensor, Tensor], object], images: Tensor, labels: Tensor) -> float:
    """Seconds an image, of many images at a time where that does not take too long."""
    few = min(_seconds(work, images[:_FEW], labels[:_FEW]) for _ in range(2))
    if few * len(images) / _FEW > _LONGEST:
        return few / len(images[:_FEW])
    return _seconds(work, images, labels) / len(images)


def _seconds(work: Callable[[Tensor, Tensor], object], images: Tensor, labels: Tensor) -> float:
    started = time.perf_counter()
    work(images, labels)
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
    return time.perf_counter() - started
