"""Training by stochastic gradient descent that can be interrupted and resumed to the same weights.

All random numbers of an epoch come from generators seeded by (seed, epoch). All state that
outlives an epoch is in one checkpoint file, which is replaced atomically after each epoch. The
weights of the best validation accuracy are kept; test images are never used.
"""

import csv
import hashlib
import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
)
from tqdm import tqdm

from node_robustness.config.models import Training
from node_robustness.errors import UserError
from node_robustness.files.atomic import SOFTWARE, atomic_path
from node_robustness.jobs.record import JobRecord
from node_robustness.models.network import Network
from node_robustness.models.ode_body import FAILURES
from node_robustness.models.own.network import OwnNetwork
from node_robustness.numbers import label
from node_robustness.ode.solve import Status
from node_robustness.training.augmentation import augment

logger = logging.getLogger(__name__)

Labelled = tuple[Tensor, Tensor]
"""Images, uint8 [N, C, H, W], and their labels, int64 [N], N >= 1, on the CPU."""

# The error of the batched solver when the weights have exploded and there is no loss.
_EXPLODED = "the initial state is not finite"

_LARGEST_WEIGHT = 1e4  # of a network that still learns; trained weights are near 1

_REMEDIES = {
    Status.MAX_STEPS: "raise solver.max_steps or solver.tolerance of the model",
    Status.UNDERFLOW: "raise solver.tolerance of the model",
    # The dynamics are bounded; only the division by the tolerance is not finite.
    Status.NONFINITE: "raise solver.tolerance of the model",
}

_LARGER = "raise the tolerances in the model's file"
_REMEDIES_OF_OWN = {
    Status.MAX_STEPS: f"raise max_steps of the model, or {_LARGER}",
    Status.UNDERFLOW: _LARGER,
    Status.NONFINITE: _LARGER,
}

# In a log file each redraw of the progress bar is a line.
_REDRAW_SECONDS_IN_A_LOG = 10.0


class Row(TypedDict):
    """One epoch of a history.

    Training values are means over the epoch's images as the model saw them: augmented, with
    dropout, with weights that change at each step.
    """

    epoch: int  # counts from 1
    learning_rate: float  # at the epoch's first step
    train_loss: float  # cross-entropy, nats
    train_accuracy: float  # share in [0, 1]
    validation_loss: float
    validation_accuracy: float
    nfe_mean: float | None  # function evaluations of a forward pass in training; None: no ODE
    seconds: float  # wall time; the only value that differs between runs


def train(
    model: nn.Module,
    training: Labelled,
    validation: Labelled,
    settings: Training,
    *,
    seed: int,
    checkpoint: Path,
    device: torch.device,
    progress: bool = True,
    record: JobRecord | None = None,
) -> list[Row]:
    """Train a model in place; at the end it has its best weights and is in evaluation mode.

    The same arguments, initial weights, device, thread count and software give the same weights
    bit for bit, whether or not the training was interrupted and resumed.

    The learning rate changes after each epoch (`plateau`, by validation accuracy) or after each
    step (`one_cycle`, `cosine`: from the full rate to 0 over all steps). Of several epochs with the
    same validation accuracy, the first is the best. Validation solves each image separately.

    Args:
        model: maps images [N, C, H, W] in [0, 1] to logits [N, K]. It is moved to `device`.
        training: the images to fit.
        validation: the images that select the epoch.
        settings: how to train.
        seed: of the order, augmentation and dropout, not of the initial weights.
        checkpoint: the file to resume from; it is replaced after each epoch and left at the end. A
            damaged file, or that of another training, is ignored with a warning.
        device: on which to train; images move there batch by batch.
        progress: whether to draw a progress bar on stderr.
        record: of the job, which counts the epochs as model computation.

    Returns:
        One row for each epoch.

    Raises:
        UserError: the loss is not finite, or the augmentation does not fit the images. The
            checkpoint is then that of the last complete epoch.
    """
    record = record or JobRecord()
    fingerprint = _fingerprint(model, training, validation, settings, seed)
    model.to(device)
    steps = math.ceil(len(training[0]) / settings.batch_size)
    optimiser = SGD(
        model.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    schedule = _schedule(optimiser, settings, settings.epochs * steps)
    state = _State(model, optimiser, schedule)
    state.resume(checkpoint, fingerprint)
    bar = _bar(settings.epochs * steps, len(state.history) * steps, progress)
    with _deterministic(), bar:
        while not _finished(state.history, settings):
            epoch = len(state.history) + 1
            before = record.computing_seconds
            rate = optimiser.param_groups[0]["lr"]
            bar.set_description(f"epoch {epoch}/{settings.epochs}", refresh=False)
            with record.computing():
                fitted = _fit(state, training, settings, seed, epoch, device, bar)
                checked = _validate(model, validation, settings, epoch, device)
            if isinstance(schedule, ReduceLROnPlateau):
                schedule.step(checked.accuracy)
            state.add(
                Row(
                    epoch=epoch,
                    learning_rate=rate,
                    train_loss=fitted.loss,
                    train_accuracy=fitted.accuracy,
                    validation_loss=checked.loss,
                    validation_accuracy=checked.accuracy,
                    nfe_mean=fitted.nfe,
                    seconds=record.computing_seconds - before,
                )
            )
            state.write(checkpoint, fingerprint)
    model.load_state_dict(state.best)
    model.eval()
    return state.history


def write_history(rows: list[Row], path: Path) -> None:
    """Write a history as CSV, with floats in full and an empty field where there is no value.

    Args:
        rows: the result of `train`.
        path: the file to write.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(Row.__annotations__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _finished(history: list[Row], settings: Training) -> bool:
    if len(history) == settings.epochs:
        return True
    if settings.early_stopping is None or not history:
        return False
    return len(history) - _best_epoch(history) >= settings.early_stopping


def _best_epoch(history: list[Row]) -> int:
    return max(history, key=lambda row: row["validation_accuracy"])["epoch"]


def _schedule(optimiser: SGD, settings: Training, steps: int) -> LRScheduler:
    match settings.schedule:
        case "plateau":
            return ReduceLROnPlateau(optimiser, mode="max", factor=0.1, patience=settings.patience)
        case "one_cycle":
            # Keep the configured momentum; by default it would vary between 0.85 and 0.95.
            return OneCycleLR(
                optimiser, max_lr=settings.learning_rate, total_steps=steps, cycle_momentum=False
            )
        case "cosine":
            return CosineAnnealingLR(optimiser, T_max=steps)
        case "constant":
            return ConstantLR(optimiser, factor=1.0)


@dataclass
class _Tally:
    """Sums over the images of an epoch."""

    images: int = 0
    total_loss: float = 0.0
    correct: int = 0
    evaluations: int | None = None

    def add(self, loss: float, logits: Tensor, labels: Tensor, nfe: Tensor | None) -> None:
        self.images += len(labels)
        self.total_loss += loss * len(labels)
        self.correct += int((logits.argmax(1) == labels).sum())
        if nfe is not None:
            self.evaluations = (self.evaluations or 0) + int(nfe.sum())

    @property
    def loss(self) -> float:
        return self.total_loss / self.images

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def nfe(self) -> float | None:
        return None if self.evaluations is None else self.evaluations / self.images


def _fit(
    state: "_State",
    training: Labelled,
    settings: Training,
    seed: int,
    epoch: int,
    device: torch.device,
    bar: "tqdm[Any]",
) -> _Tally:
    """One pass over the training images."""
    images, labels = training
    order_seed, augmentation_seed, dropout_seed = (
        int(word) for word in np.random.SeedSequence((seed, epoch)).generate_state(3, np.uint64)
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(order_seed))
    generator = torch.Generator().manual_seed(augmentation_seed)
    tally = _Tally()
    model = _as_trained(state.model.train(), settings)
    with _global_seed(dropout_seed, device):
        for step, rows in enumerate(torch.split(order, settings.batch_size), start=1):
            batch = augment(_to_unit_range(device, images[rows]), settings.augmentation, generator)
            target = labels[rows].to(device)
            state.optimiser.zero_grad()
            where = f"training loss is not finite at epoch {epoch}, step {step}"
            with _naming_the_cause(where, model, settings, untouched=epoch == step == 1):
                logits = model(batch)
                nfe = getattr(model, "nfe", None)
                loss = F.cross_entropy(logits, target)
                tally.add(_finite_loss(loss), logits, target, nfe)
                torch.autograd.backward(loss)
            state.optimiser.step()
            if not isinstance(state.schedule, ReduceLROnPlateau):
                state.schedule.step()
            bar.set_postfix(_progress_fields(tally, state.history), refresh=False)
            bar.update()
    return tally


@torch.no_grad()
def _validate(
    model: nn.Module, data: Labelled, settings: Training, epoch: int, device: torch.device
) -> _Tally:
    tally = _Tally()
    model.eval()
    where = f"validation loss is not finite after epoch {epoch}"
    with _naming_the_cause(where, model, settings, untouched=False):
        batches = (torch.split(part, settings.batch_size) for part in data)
        for images, labels in zip(*batches, strict=True):
            target = labels.to(device)
            logits = model(_to_unit_range(device, images))
            tally.add(_finite_loss(F.cross_entropy(logits, target)), logits, target, None)
    return tally


def _to_unit_range(device: torch.device, images: Tensor) -> Tensor:
    return images.to(device).float() / 255


def _finite_loss(loss: Tensor) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise FloatingPointError
    return value


@contextmanager
def _naming_the_cause(
    where: str, model: nn.Module, settings: Training, *, untouched: bool
) -> Iterator[None]:
    """Turn a divergence or a failed solve into an error that names the remedies.

    Other errors pass. While the weights are untouched, the learning rate is not a cause.

    Raises:
        UserError: the loss diverged, or a solve failed.
    """
    try:
        yield
    except (FloatingPointError, ValueError, AssertionError) as error:
        failed = _gave_up(model, error)
        if failed is None and (untouched or not _diverged(error)):
            raise
        cause, remedies = failed or ("", [])
        if not untouched:
            # With such weights no solver setting helps.
            remedies = [] if _exploded(model) else remedies
            if settings.weight_decay > max(1, 1 / settings.learning_rate):
                # A step of weight decay alone overshoots zero, by more at each step.
                remedies += [f"lower training.weight_decay (now {label(settings.weight_decay)})"]
            remedies += [f"lower training.learning_rate (now {label(settings.learning_rate)})"]
        raise UserError(f"{where}{cause}: {', or '.join(remedies)}") from error


def _exploded(model: nn.Module) -> bool:
    return not all(bool((p.detach().abs() < _LARGEST_WEIGHT).all()) for p in model.parameters())


def _diverged(error: Exception) -> bool:
    return isinstance(error, FloatingPointError) or _EXPLODED in str(error)


def _gave_up(model: nn.Module, error: Exception) -> tuple[str, list[str]] | None:
    """How an adaptive solver failed, and the remedies; None if it did not fail."""
    if not isinstance(model, Network) or model.solver is None or not model.adaptive:
        return None
    solver, remedies = model.solver, _REMEDIES
    if isinstance(model, OwnNetwork):
        remedies = _REMEDIES_OF_OWN
    if isinstance(error, AssertionError):
        failed = {status: "the batch" for words, status in FAILURES.items() if words in str(error)}
    elif isinstance(error, FloatingPointError) and model.status is not None:
        images = Counter(model.status.tolist())
        failed = {s: f"{images[s]} of {images.total()} images" for s in remedies if images[s]}
    else:
        failed = {}
    if not failed:
        return None
    counted = ", ".join(f"{what} ({status.name.lower()})" for status, what in failed.items())
    cause = (
        f", because the solver ({solver.method}, tolerance {solver.tolerance:g}, max_steps "
        f"{solver.max_steps}) failed for {counted}"
    )
    return cause, [*dict.fromkeys(remedies[status] for status in failed)]


def _as_trained(model: nn.Module, settings: Training) -> nn.Module:
    if isinstance(model, Network):
        return model.at(backend=settings.solver, gradient=settings.gradient)
    return model


@contextmanager
def _global_seed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators, which dropout uses, and restore them afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    """Use deterministic algorithms; where there is none, PyTorch only warns."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)


def _bar(total: int, done: int, progress: bool) -> "tqdm[Any]":
    return tqdm(
        total=total,
        initial=done,
        unit="step",
        disable=not progress,
        mininterval=0.1 if sys.stderr.isatty() else _REDRAW_SECONDS_IN_A_LOG,
    )


def _progress_fields(tally: _Tally, history: list[Row]) -> dict[str, str]:
    """The values next to the progress bar: this epoch so far, and the last validation."""
    shown = {"loss": f"{tally.loss:.3f}", "accuracy": f"{tally.accuracy:.3f}"}
    if tally.nfe is not None:
        shown["nfe"] = f"{tally.nfe:.1f}"
    if history:
        shown["validation"] = f"{history[-1]['validation_accuracy']:.3f}"
    return shown


@dataclass
class _State:
    """All state that outlives an epoch."""

    model: nn.Module
    optimiser: SGD
    schedule: LRScheduler
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.history.append(row)
        if _best_epoch(self.history) == row["epoch"]:
            self.best = {name: _copy(value) for name, value in self.model.state_dict().items()}

    def write(self, checkpoint: Path, fingerprint: Mapping[str, object]) -> None:
        names = [name for name, _ in self.model.named_parameters()]
        optimiser = self.optimiser.state_dict()
        buffers = {
            names[position]: state["momentum_buffer"]
            for position, state in optimiser["state"].items()
            if state.get("momentum_buffer") is not None
        }
        groups = {"model": self.model.state_dict(), "best": self.best, "momentum": buffers}
        tensors = {
            f"{group}/{name}": _copy(value)
            for group, members in groups.items()
            for name, value in members.items()
        }
        state = json.dumps(
            {
                "fingerprint": fingerprint,
                "history": self.history,
                "schedule": self.schedule.state_dict(),
                "param_groups": optimiser["param_groups"],
            }
        )
        metadata = {"state": state, "sha256": _checksum(tensors, state)}
        with atomic_path(checkpoint) as temporary:
            save_file(tensors, temporary, metadata)

    def resume(self, checkpoint: Path, fingerprint: Mapping[str, object]) -> None:
        """Load the checkpoint of the same training, if there is one."""
        if not checkpoint.exists():
            return
        try:
            tensors, state = _read_checkpoint(checkpoint)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            logger.warning("%s: damaged (%r): training starts again", checkpoint, error)
            return
        other = [
            key for key, value in fingerprint.items() if state["fingerprint"].get(key) != value
        ]
        if other:
            logger.warning(
                "%s: of another training (other %s): training starts again",
                checkpoint,
                ", ".join(other),
            )
            return
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "momentum": {}}
        for key, tensor in tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = tensor
        self.model.load_state_dict(groups["model"])
        names = [name for name, _ in self.model.named_parameters()]
        self.optimiser.load_state_dict(
            {
                "state": {
                    position: {"momentum_buffer": groups["momentum"].get(name)}
                    for position, name in enumerate(names)
                },
                "param_groups": state["param_groups"],
            }
        )
        self.schedule.load_state_dict(state["schedule"])
        self.history, self.best = state["history"], groups["best"]
        logger.info("%s: resuming after epoch %d", checkpoint, len(self.history))


def _read_checkpoint(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(checkpoint, framework="pt") as file:
        # Copies, because the file is memory-mapped and will be replaced.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    if metadata["sha256"] != _checksum(tensors, metadata["state"]):
        raise ValueError("the checksum is wrong")
    return tensors, json.loads(metadata["state"])


def _fingerprint(
    model: nn.Module, training: Labelled, validation: Labelled, settings: Training, seed: int
) -> dict[str, object]:
    """The values that two trainings must share to give the same weights on one device."""
    weights = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "software": SOFTWARE,
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "training images": _checksum(dict(zip(("images", "labels"), training, strict=True))),
        "validation images": _checksum(dict(zip(("images", "labels"), validation, strict=True))),
        "model": f"{model!r} {getattr(model, 'solver', None)!r}",
        "initial weights": _checksum(weights),
    }


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _checksum(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of names, types, shapes and contents."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
