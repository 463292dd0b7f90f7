"""The configuration that `make audit` writes for one model of the user's own.

It is text with comments, to be read and edited. An edited one is recognised by its first lines,
which hold a digest of the others.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.config.presets import expand
from node_robustness.config.values import NAME
from node_robustness.errors import UserError
from node_robustness.numbers import label, parse_number
from node_robustness.shapes.datasets import Size, size_of

FOLDER = Path("config/own")
"""Where the configurations lie: in the user's hands, and not in git."""

LARGER = (10, 100)
"""How many times the author's tolerance the tolerances of the grid are."""

LARGEST_TOLERANCE = 1e3
EPSILONS: dict[str, dict[str, list[str]]] = {
    "digits": {"linf": ["0.05", "0.1", "0.2"], "l2": ["0.25", "0.5", "1"]},
    "mnist": {"linf": ["0.1", "0.2", "0.3"], "l2": ["1", "1.5", "2"]},
    "fashion_mnist": {"linf": ["0.02", "0.05", "0.1"], "l2": ["0.5", "1", "1.5"]},
    "cifar10": {"linf": ["2/255", "4/255", "8/255"], "l2": ["0.1", "0.25", "0.5"]},
    "cifar100": {"linf": ["2/255", "4/255", "8/255"], "l2": ["0.1", "0.25", "0.5"]},
}
"""The epsilons that are usual for a dataset, by norm."""

_TRAINING: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 12, "batch_size": 32},
    "mnist": {"epochs": 2, "batch_size": 64},
    "fashion_mnist": {"epochs": 4, "batch_size": 64},
    "cifar10": {"epochs": 10, "batch_size": 128},
    "cifar100": {"epochs": 20, "batch_size": 128},
}
_VALIDATION = 500
_FOLLOWED = 20
_MARK = re.compile(r"^# Written by `make audit` \((?P<digest>[0-9a-f]{16})\)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line.

    Attributes:
        module: the user's file, or a module by its dotted name.
        dataset: the name of a known dataset.
        keys: further keys of the model, such as `weights`.
        name: of the model and the experiment; from the module's if empty.
        mirror: where the files of the dataset are looked for first.
        norm: of the perturbations.
        epsilons: as they were written; those usual for the dataset if empty.
        tolerances: as they were written; larger ones than the author's if empty.
        attacks: names of attacks or presets.
        images: how many test images are attacked.
    """

    module: str
    dataset: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    mirror: str = ""
    norm: str = "linf"
    epsilons: Sequence[str] = ()
    tolerances: Sequence[str] = ()
    attacks: Sequence[str] = ("standard",)
    images: int = 100

    def __post_init__(self) -> None:
        if self.dataset not in EPSILONS:
            raise UserError(
                f"DATASET={self.dataset}: make audit knows {', '.join(EPSILONS)}; for your own "
                "data write a configuration (docs/own-models.md, config/README.md)"
            )

    @property
    def called(self) -> str:
        """The name of the model and of the experiment."""
        path = Path(self.module)
        last = path.stem if path.suffix == ".py" else self.module.rpartition(".")[2]
        name = self.name or re.sub(r"\W", "_", last, flags=re.ASCII)
        if not re.fullmatch(NAME, name):
            raise UserError(f"NAME={name}: begin it with a letter, then letters, digits and _")
        return name

    @property
    def path(self) -> Path:
        """The configuration's."""
        return FOLDER / f"{self.called}.yaml"

    @property
    def trains(self) -> bool:
        """Whether the model comes without weights."""
        return "weights" not in self.keys

    @property
    def size(self) -> Size:
        """The size of the dataset."""
        size = size_of(self.dataset)
        assert size is not None  # it is a known one
        return size


@dataclass(frozen=True)
class Found:
    """What the inspection found, as far as the configuration depends on it.

    Attributes:
        ode: `adaptive`, `fixed` or `none`; None before the inspection.
        rtol, atol: the author's, of the solve that is followed; None without adaptive steps.
        followed: whether the state can be followed through time.
    """

    ode: str | None = None
    rtol: float | None = None
    atol: float | None = None
    followed: bool = False

    @property
    def own_tolerance(self) -> float | None:
        """The tolerance at which the solve is the author's; None without adaptive steps."""
        if self.ode != "adaptive" or self.rtol is None or self.atol is None:
            return None
        return max(self.rtol, self.atol)


def text(request: Request, found: Found) -> str:
    """The configuration, with comments."""
    body = _body(request, found)
    return f"{_head(request)}# Written by `make audit` ({_digest(body)}).\n{body}"


def is_edited(written: str) -> bool:
    """Whether a configuration is not as it was written."""
    mark = _MARK.search(written)
    return mark is None or mark["digest"] != _digest(written[mark.end() + 1 :])


def checked(written: str) -> Config:
    """The configuration of a text."""
    try:
        raw = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise UserError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise UserError("holds no map of keys: delete it to have it written again")
    return load(raw)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def _head(request: Request) -> str:
    return (
        "# yaml-language-server: $schema=../../workflow/schemas/config.schema.json\n"
        "#\n"
        f"# The audit of {request.module} on {request.dataset}.\n"
        "#\n"
        f"#   snakemake --cores all --configfile {request.path}\n"
        "#\n"
        "# It is yours: once you have edited it, `make audit` runs it as it is. Delete it to have\n"
        "# it written again. docs/own-models.md explains it, docs/reference/configuration.md has\n"
        "# all keys.\n"
    )


def _body(request: Request, found: Found) -> str:
    name = request.called
    model = {"module": request.module, **request.keys}
    if found.ode is not None:
        model["ode"] = found.ode
    epsilons = request.epsilons or _epsilons(request)
    middle = epsilons[len(epsilons) // 2]
    sections = [
        f"""
experiments:
  {name}:
    datasets: [{request.dataset}]
    models: [{name}]
{_tolerances(request, found)}
    attacks: {_flow(list(request.attacks))} # quick or standard: strong enough for a verdict
    norms: [{request.norm}]
    epsilons: {_numbers("EPSILONS", epsilons)} # of images in [0, 1]
{_sections(request, found, middle)}

datasets:
  {request.dataset}:
    source: {request.dataset}
"""
    ]
    if request.mirror:
        sections.append(f"    mirrors: {_flow([request.mirror])}\n")
    sections.append(
        f"    subset: {{validation: {_validation(request)}, test: {request.images}}}"
        " # more test images later keep these\n"
    )
    keys = "".join(f"    {key}: {_flow(value)}\n" for key, value in model.items())
    sections.append(f"\nmodels:\n  {name}:\n{keys}")
    if request.trains:
        training = "".join(f"  {k}: {_flow(v)}\n" for k, v in _training(request).items())
        sections.append(f"\n# Without `weights` the model is trained.\ntraining:\n{training}")
    return "".join(sections)


def _tolerances(request: Request, found: Found) -> str:
    own = found.own_tolerance
    if own is None:
        values = list(request.tolerances) or ["1e-2", "1e-1"]
        why = "takes fixed steps" if found.ode == "fixed" else "has no ODE that is found"
        said = (
            f"    # The model {why}: a tolerance has no effect.\n"
            "    # It is measured at its own settings alone.\n"
        )
    else:
        larger = [label(own * factor) for factor in LARGER if own * factor < LARGEST_TOLERANCE]
        values = list(request.tolerances) or larger or [label(own)]
        said = (
            f"    # The author's settings, rtol {found.rtol:g} and atol {found.atol:g}, are\n"
            "    # measured, too: own settings. A tolerance takes their place, in the same ratio.\n"
        )
    return f"{said}    tolerances: {_numbers('TOLERANCES', values)}"


def _sections(request: Request, found: Found, middle: str) -> str:
    lines = []
    if found.followed:
        lines.append(
            "    # The hidden state h(t), of some images under one attack at the middle epsilon.\n"
            f"    trajectories: {{attacks: [{_followed_attack(request)}], epsilons: [{middle}], "
            f"images: {min(_FOLLOWED, request.images)}, causal: 10}}"
        )
    else:
        lines.append("    trajectories: null # there is no hidden state to follow")
    if found.own_tolerance is not None:
        lines.append(
            "    # Defences by a drawn tolerance, and by comparing tolerances: {} turns one on.\n"
            "    randomisation: null\n"
            "    detection: null"
        )
    else:
        lines.append("    # These compare tolerances.")
        lines += [f"    {section}: null" for section in ("matrix", "randomisation", "detection")]
    return "\n".join(lines)


def _followed_attack(request: Request) -> str:
    every = expand(request.attacks)
    return next((a for a in ("bim_direct", "apgd_ce") if a in every), every[0])


def _training(request: Request) -> dict[str, Any]:
    return {**_TRAINING[request.dataset], "learning_rate": 0.05, "schedule": "one_cycle"}


def _epsilons(request: Request) -> list[str]:
    usual = EPSILONS[request.dataset]
    if request.norm in usual:
        return usual[request.norm]
    if request.norm != "l2_rms":
        raise UserError(f"NORM={request.norm}: choose linf, l2 or l2_rms")
    scale = math.sqrt(request.size.channels * request.size.pixels)
    return [f"{float(epsilon) / scale:.2g}" for epsilon in usual["l2"]]


def _validation(request: Request) -> int:
    """How many images choose the weights in training, and fit the probes of trajectories."""
    return min(_VALIDATION, request.size.train // 10)


def _numbers(variable: str, words: Sequence[str]) -> str:
    """Numbers as they were written."""
    for word in words:
        try:
            parse_number(word)
        except ValueError as error:
            raise UserError(f"{variable}: {error}") from None
    return f"[{', '.join(words)}]"


def _flow(value: object) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, width=math.inf).strip()[1:-1]
