"""The paper's classifiers: downsampling, a residual or ODE body, and a linear head.

RES, MIX and OON of Carrara et al. (2019) are choices of `Spec`. Weights are saved as safetensors
beside a readable JSON spec; the authors' own checkpoints can be imported.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from node_robustness.adjoint import AdjointSettings, with_adjoint_gradient
from node_robustness.architecture import STEM, check_images
from node_robustness.checkpoints import read_state
from node_robustness.errors import UserError
from node_robustness.ode_function import ODEFunction, group_norm
from node_robustness.small_batches import at_least_some_rows
from node_robustness.solvers import Solution, Status, solve
from node_robustness.storage import atomic_path, open_hdf5, read_settings

_AGAIN = "delete it and run again"

# Specs of earlier versions have not got these; their defaults say what such a model is.
_LATER_KEYS = {"backend", "batch_size"}


@dataclass(frozen=True)
class Spec:
    """Everything that fixes a classifier's architecture.

    Attributes:
        channels: image channels.
        classes: number of classes.
        mean: of each channel, subtracted inside the model.
        std: of each channel, divided by inside the model.
        downsampling: `residual` (image side to about a quarter) or `convolution` (to a half).
        body: `residual` or `ode`.
        filters: channels C of the body.
        blocks: residual blocks of a residual body.
        dropout: probability before the last layer, in training.
        method: solver of an ODE body.
        tolerance: tau in training.
        max_steps: attempted solver steps at most.
        steps: number of equal steps; None for steps that the tolerance allows.
        backend: see `SolverSettings`; in training another may be chosen.
        batch_size: images that torchdiffeq solves as one equation, except in training.
    """

    channels: int
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    downsampling: Literal["residual", "convolution"]
    body: Literal["residual", "ode"]
    filters: int = 64
    blocks: int = 6
    dropout: float = 0.5
    method: str = "dopri5"
    tolerance: float = 1e-3
    max_steps: int = 1000
    steps: int | None = None
    backend: Literal["batched", "torchdiffeq"] = "batched"
    batch_size: int = 1

    def to_json(self) -> str:
        """The spec as readable JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Spec":
        """The spec of a JSON text.

        Raises:
            ValueError: not a spec.
        """
        values = json.loads(text)
        names = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or not names - _LATER_KEYS <= set(values) <= names:
            raise ValueError(f"a model spec has exactly the keys {', '.join(sorted(names))}")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None


@dataclass(frozen=True)
class SolverSettings:
    """How an ODE body is solved.

    Attributes:
        method: a name in `tableaus.TABLEAUS`, or any of torchdiffeq's with that backend.
        tolerance: tau, relative and absolute; without effect if `steps` is given. Of the batched
            backend also a tensor [n], one for each image of a batch.
        max_steps: attempted steps at most; without effect if `steps` is given.
        steps: number of equal steps; None for steps that the tolerance allows.
        backend: `batched` (every image has its own steps) or `torchdiffeq` (the batch is one
            equation).
        gradient: `direct` (through the steps) or `adjoint` (a second solve, backwards).
        adjoint_tolerance: tau of the backward solve; None for that of the forward one.
        adjoint_norm: what steers the steps of the backward solve: `full`, the paper's (the errors
            of state, adjoint and the gradients' integrals for time and parameters), or `seminorm`
            (all but the parameters').
        batch_size: of torchdiffeq, how many images at most are one equation, except in training;
            None for the whole batch, whatever its size.
        checkpoint: direct gradients of the batched backend take every step a second time in the
            backward pass, instead of keeping its intermediate results.
    """

    method: str
    tolerance: float | Tensor
    max_steps: int
    steps: int | None = None
    backend: Literal["batched", "torchdiffeq"] = "batched"
    gradient: Literal["direct", "adjoint"] = "direct"
    adjoint_tolerance: float | Tensor | None = None
    adjoint_norm: Literal["full", "seminorm"] = "full"
    batch_size: int | None = None
    checkpoint: bool = False


def spec_for(name: str, architecture: Mapping[str, Any], data: Path) -> Spec:
    """The spec of a configured architecture for the images of a prepared data set.

    Args:
        name: of the model.
        architecture: the keys of `config.Model` that fix it.
        data: a data.h5 file.

    Raises:
        UserError: the images are too small for it.
    """
    with open_hdf5(data, "data") as file:
        _, channels, height, width = file["train/images"].shape
        classes, settings = len(file["class_names"]), read_settings(file)
    check_images(
        f"models.{name}",
        f"the images of {data}",
        architecture["downsampling"],
        architecture["filters"],
        height,
        width,
    )

    def of_channels(values: list[float]) -> tuple[float, ...]:
        return tuple(values * channels if len(values) == 1 else values)

    return Spec(
        channels=channels,
        classes=classes,
        mean=of_channels(settings["mean"]),
        std=of_channels(settings["std"]),
        **{key: value for key, value in architecture.items() if key != "solver"},
        **architecture.get("solver", {}),
    )


class ResidualBlock(nn.Module):
    """GN, ReLU, conv3x3, GN, ReLU, conv3x3, plus shortcut (pre-activation, no biases)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = group_norm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = group_norm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] to [n, outputs, H / stride, W / stride]."""
        # In place: nothing, autograd included, needs a normalised state before its ReLU.
        active = F.relu_(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out: Tensor = self.conv2(F.relu_(self.norm2(self.conv1(active)))) + shortcut
        return out


class ResidualBody(nn.Sequential):
    """Residual blocks of one width."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__(*(ResidualBlock(channels, channels) for _ in range(blocks)))

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C, H, W]."""
        return at_least_some_rows(super().forward, h)

    def block(self, number: int, h: Tensor) -> Tensor:
        """One block alone, [n, C, H, W] to [n, C, H, W]."""
        return at_least_some_rows(self[number], h)


class ODEBody(nn.Module):
    """h(1) from h(0) by solving dh/dt = f(t, h) at given solver settings.

    Attributes:
        settings: may be replaced at any time.
        nfe: function evaluations of the last forward solve for each image, int32 [n].
        nfe_backward: those of its backward solve, int32 [n], once there was one (adjoint gradients
            of the batched backend); each is of the dynamics together with their derivatives.
        status: a `solvers.Status` for each image of the last forward solve, int64 [n].
    """

    def __init__(self, channels: int, settings: SolverSettings) -> None:
        super().__init__()
        self.function = ODEFunction(channels)
        self.settings = settings
        self.nfe: Tensor | None = None
        self.nfe_backward: Tensor | None = None
        self.status: Tensor | None = None

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to [n, C, H, W]."""
        self.nfe_backward = None
        if self.settings.backend == "torchdiffeq":
            return self._torchdiffeq(h)
        adjoint = self.settings.gradient == "adjoint" and torch.is_grad_enabled()
        with torch.no_grad() if adjoint else nullcontext():
            solution = self.solve(h, (0.0, 1.0))
        self.nfe, self.status = solution.nfe.int(), solution.status
        return self._with_adjoint(h, solution.states[-1]) if adjoint else solution.states[-1]

    def _with_adjoint(self, h: Tensor, final: Tensor) -> Tensor:
        def note(evaluations: Tensor) -> None:
            self.nfe_backward = evaluations

        settings = AdjointSettings(
            tolerance=self._adjoint_tolerance,
            method=self.settings.method,
            steps=self.settings.steps,
            max_steps=self.settings.max_steps,
            parameters_in_norm=self.settings.adjoint_norm == "full",
        )
        return with_adjoint_gradient(h, final, self.function, settings, note)

    @property
    def _adjoint_tolerance(self) -> float | Tensor:
        own = self.settings.adjoint_tolerance
        return self.settings.tolerance if own is None else own

    def solve(
        self,
        h: Tensor,
        times: tuple[float, ...] | Tensor,
        keep_nodes: bool = False,
        keep_node_states: bool = False,
        nodes: Sequence[Tensor] | None = None,
    ) -> Solution:
        """The states at the given times, [T, n, C, H, W], with per-image cost and status.

        Args:
            h: states at the first of the times, [n, C, H, W].
            times: see `solvers.solve`.
            keep_nodes: see `solvers.solve`.
            keep_node_states: see `solvers.solve`.
            nodes: of other solves with the same settings, whose steps are to be taken again.

        Raises:
            ValueError: the backend is torchdiffeq, whose steps are not those of an image.
        """
        if self.settings.backend != "batched":
            raise ValueError(f"backend {self.settings.backend} has no steps of every image")
        return solve(
            self.function.bind(h),
            h,
            times,
            tolerance=self.settings.tolerance,
            method=self.settings.method,
            steps=self.settings.steps,
            nodes=nodes,
            max_steps=self.settings.max_steps,
            keep_nodes=keep_nodes,
            keep_node_states=keep_node_states,
            checkpoint=self.settings.checkpoint,
        )

    def _torchdiffeq(self, h: Tensor) -> Tensor:
        own = None if self.training else self.settings.batch_size
        solved = [self._one_equation(rows) for rows in h.split(own or len(h))]
        final, nfe, status = (torch.cat(parts) for parts in zip(*solved, strict=True))
        self.nfe, self.status = nfe, status
        return final

    def _one_equation(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states h(1) as torchdiffeq finds them, their evaluations and their status."""
        # Only who asks for torchdiffeq needs it, and it takes half a second to import.
        from torchdiffeq import odeint, odeint_adjoint

        settings, steps = self.settings, self.settings.steps
        if isinstance(settings.tolerance, Tensor):
            raise ValueError("torchdiffeq solves a batch as one equation: give one tolerance")
        options: dict[str, Any] = {"max_num_steps": settings.max_steps}
        if steps is not None:
            options = {"grid_constructor": partial(_uniform_grid, steps)}
        integrate, adjoint = odeint, {}
        if settings.gradient == "adjoint":
            norm = {} if settings.adjoint_norm == "full" else {"norm": "seminorm"}
            tolerance = self._adjoint_tolerance
            integrate = odeint_adjoint
            adjoint = {
                "adjoint_rtol": tolerance,
                "adjoint_atol": tolerance,
                "adjoint_options": options | norm,
            }
        function = _Counted(self._with_parameters())
        status = Status.SUCCESS
        try:
            final: Tensor = integrate(
                function,
                h,
                torch.tensor([0.0, 1.0], dtype=h.dtype, device=h.device),
                rtol=settings.tolerance,
                atol=settings.tolerance,
                method=settings.method,
                options=options,
                **adjoint,
            )[-1]
        except AssertionError as error:
            failed = (kind for words, kind in FAILURES.items() if words in str(error))
            status = next(failed, Status.SUCCESS)
            if self.training or status == Status.SUCCESS:
                raise
            final = h * torch.nan
        nfe = torch.full((len(h),), function.evaluations, dtype=torch.int32, device=h.device)
        found = torch.full_like(nfe, status, dtype=torch.int64)
        if status == Status.SUCCESS:
            # Of equal steps torchdiffeq looks at none.
            found[~torch.isfinite(final.detach()).flatten(1).all(1)] = Status.NONFINITE
        return final, nfe, found

    def _with_parameters(self) -> ODEFunction:
        """The function; for the paper's adjoint one whose parameters ask for gradients.

        Torchdiffeq leaves frozen parameters out of the backward solve, and so out of the error norm
        that steers its steps.
        """
        full = self.settings.gradient == "adjoint" and self.settings.adjoint_norm == "full"
        frozen = not any(parameter.requires_grad for parameter in self.function.parameters())
        if full and frozen and torch.is_grad_enabled():
            return deepcopy(self.function).requires_grad_()
        return self.function


FAILURES = {
    "max_num_steps exceeded": Status.MAX_STEPS,
    "underflow in dt": Status.UNDERFLOW,
    "non-finite values": Status.NONFINITE,
}
"""What torchdiffeq says when it gives up on a batch."""


def _uniform_grid(steps: int, _function: object, _state: Tensor, times: Tensor) -> Tensor:
    first, last = times[0].item(), times[-1].item()
    return torch.linspace(first, last, steps + 1, dtype=times.dtype, device=times.device)


class _Counted(nn.Module):
    """A function that counts its evaluations."""

    def __init__(self, function: ODEFunction) -> None:
        super().__init__()
        self.function = function
        self.evaluations = 0

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        self.evaluations += 1
        out: Tensor = self.function(t, h)
        return out


class Head(nn.Module):
    """GN, ReLU, global average pooling, dropout, linear."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def features(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to what the last layer reads, [n, C]."""
        features: Tensor = self.dropout(F.relu_(self.norm(h)).mean((2, 3)))
        return features

    def forward(self, h: Tensor) -> Tensor:
        """[n, C, H, W] to logits [n, K]."""
        return self.classify(self.features(h))

    def classify(self, features: Tensor) -> Tensor:
        """[n, C] to logits [n, K]."""
        # Row by row: a matrix product rounds differently in a batch of ten than in one of twenty.
        return (features[:, None] * self.linear.weight).sum(2) + self.linear.bias


class Classifier(nn.Module):
    """Images [n, channels, H, W] in [0, 1] to logits [n, classes]; normalises inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1), persistent=False)
        self.downsampling: nn.Module = (
            nn.Sequential(
                nn.Conv2d(spec.channels, STEM, 3),
                ResidualBlock(STEM, STEM, stride=2),
                ResidualBlock(STEM, spec.filters, stride=2),
            )
            if spec.downsampling == "residual"
            else nn.Conv2d(spec.channels, spec.filters, 4, 2, padding=1)
        )
        settings = SolverSettings(
            spec.method,
            spec.tolerance,
            spec.max_steps,
            spec.steps,
            backend=spec.backend,
            batch_size=spec.batch_size if spec.backend == "torchdiffeq" else None,
        )
        self.body: nn.Module = (
            ODEBody(spec.filters, settings)
            if spec.body == "ode"
            else ResidualBody(spec.filters, spec.blocks)
        )
        self.head = Head(spec.filters, spec.classes, spec.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, channels, H, W] in [0, 1]."""
        logits: Tensor = self.head(self.body(self.embed(images)))
        return logits

    def embed(self, images: Tensor) -> Tensor:
        """The state h(0) at which the body starts, [n, C, H', W']."""
        return at_least_some_rows(self.downsampling, (images - self.mean) / self.std)

    @property
    def ode(self) -> ODEBody | None:
        """The ODE body, or None."""
        return self.body if isinstance(self.body, ODEBody) else None

    @property
    def nfe(self) -> Tensor | None:
        """Function evaluations of the last forward pass for each image, or None without an ODE."""
        return None if self.ode is None else self.ode.nfe

    @property
    def solver(self) -> SolverSettings | None:
        """The solver settings, or None without an ODE."""
        return None if self.ode is None else self.ode.settings

    @solver.setter
    def solver(self, settings: SolverSettings | None) -> None:
        if self.ode is not None and settings is not None:
            self.ode.settings = settings


@contextmanager
def solving(model: Classifier, **changes: Any) -> Iterator[Classifier]:
    """The model with other solver settings for a while; nothing happens without an ODE.

    A `tolerance` of None leaves the model its own.
    """
    before = model.solver
    if changes.get("tolerance", 0) is None:
        del changes["tolerance"]
    if before is not None:
        model.solver = replace(before, **changes)
    try:
        yield model
    finally:
        model.solver = before


@contextmanager
def backward_solves() -> Iterator[None]:
    """Name the backward solve of torchdiffeq that gives up, of which no image is left to attack.

    Raises:
        UserError: it did.
    """
    try:
        yield
    except AssertionError as error:
        failed = [status.name.lower() for words, status in FAILURES.items() if words in str(error)]
        if not failed:
            raise
        raise UserError(
            f"the backward solve of torchdiffeq gave up on a batch ({failed[0]}): raise "
            "solver.max_steps of the model or adjoint_tolerance of the attack, or set gradient of "
            "the attack to direct"
        ) from error


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters, for a while."""
    modes = [(module, module.training) for module in model.modules()]
    asked = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, required in zip(model.parameters(), asked, strict=True):
            parameter.requires_grad_(required)


def save(model: Classifier, weights: Path, spec: Path) -> None:
    """Write a model as safetensors and its spec as JSON."""
    with atomic_path(weights) as path:
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    with atomic_path(spec) as path:
        path.write_text(model.spec.to_json())


def load(weights: Path, spec: Path) -> Classifier:
    """Read a saved model, in evaluation mode.

    Raises:
        UserError: a file is missing, damaged, or of another model.
    """
    try:
        model = Classifier(Spec.from_json(spec.read_text()))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{spec}: not a model spec ({reason}): {_AGAIN}") from None
    try:
        state = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{weights}: cannot be read ({error}): {_AGAIN}") from None
    _fill(model, state, weights, _AGAIN)
    return model.eval()


def import_weights(spec: Spec, path: Path) -> Classifier:
    """A model with weights from elsewhere: see `checkpoints.read_state`.

    Raises:
        UserError: the file is missing, damaged, or fits another architecture.
    """
    model = Classifier(spec)
    _fill(model, read_state(path), path)
    return model.eval()


def _fill(
    model: Classifier, state: Mapping[str, Tensor], path: Path, remedy: str | None = None
) -> None:
    """Give a model its weights; a remedy stands for those of weights made elsewhere.

    Raises:
        UserError: they are not those of such a model, or are not numbers.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    unknown = sorted(state.keys() - expected.keys())
    if missing or unknown:
        what = f"lacks {missing[0]}" if missing else f"has an unknown {unknown[0]}"
        raise UserError(
            f"{path}: holds the weights of another architecture ({what}): "
            f"{remedy or 'check downsampling, body and blocks of the model'}"
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise UserError(
                f"{path}: {name} has shape {list(tensor.shape)} where the model has "
                f"{list(expected[name].shape)}: "
                f"{remedy or 'check filters and the dataset of the model'}"
            )
        if not tensor.is_floating_point() or tensor.layout is not torch.strided or tensor.is_meta:
            kind = f"{tensor.dtype}, {tensor.layout}, {tensor.device}".replace("torch.", "")
            raise UserError(
                f"{path}: {name} is no plain tensor of real numbers ({kind}): "
                f"{remedy or 'save weights that are not quantised, sparse or without values'}"
            )
        if not bool(tensor.to(expected[name].dtype).isfinite().all()):
            raise UserError(
                f"{path}: {name} holds values that are not finite (in float32): "
                f"{remedy or 'take a checkpoint of before its training diverged'}"
            )
    model.load_state_dict(state)


def parameter_count(model: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(math.prod(parameter.shape) for parameter in model.parameters())
