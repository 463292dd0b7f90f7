"""Audit one model without Snakemake: from a model, images and labels to the table of verdicts.

The functions are those that the scripts of the workflow call, and so are the numbers.
"""

import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from node_robustness.attacks.engine import attack
from node_robustness.attacks.files import write_attack
from node_robustness.attacks.gradients import with_gradient
from node_robustness.attacks.make import make
from node_robustness.audits.files import write_audit
from node_robustness.audits.gradients import STEP
from node_robustness.audits.network import audit_network
from node_robustness.config.compute import Compute
from node_robustness.config.config import Config
from node_robustness.config.loading import load
from node_robustness.errors import UserError
from node_robustness.grid import params
from node_robustness.grid.attack_settings import attack_settings, cheaper
from node_robustness.grid.cells import Cell, Solved, cells, solved
from node_robustness.grid.stages import audited
from node_robustness.jobs import devices
from node_robustness.models.classifier import Classifier, backward_solves, frozen
from node_robustness.models.evaluation import evaluate, write_clean
from node_robustness.models.memory import images_at_a_time
from node_robustness.models.own.checks import (
    FEW,
    IMAGES,
    Expected,
    ModelCheck,
    check_model,
    refuse,
)
from node_robustness.models.own.network import OwnNetwork
from node_robustness.perturbations.sizes import broken_within
from node_robustness.verdict.experiment import of_experiment

EXPERIMENT = "audit"
DATASET = "images"
"""The names under which the files of an audit lie in its folder."""

LARGER = (10.0, 100.0)
"""Tolerances that are measured by default, as multiples of the model's own."""

EPSILONS = {"linf": {1: 0.1, 3: 8 / 255}, "l2": {1: 1.0, 3: 0.5}}
"""Default epsilons by norm and number of channels: those at which MNIST and CIFAR-10 are usually
attacked."""

Array = Tensor | NDArray[Any]
Numbers = float | Sequence[float]
AnyNetwork = Classifier | OwnNetwork


def audit(
    model: nn.Module,
    images: Array,
    labels: Array,
    *,
    name: str = "model",
    tolerances: Numbers | None = None,
    norms: str | Sequence[str] = ("linf",),
    epsilons: Numbers | Mapping[str, Numbers] | None = None,
    attacks: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "standard",
    seed: int = 0,
    index: Sequence[int] | None = None,
    batch_size: int | None = None,
    output: int | str = 0,
    solve: int | str | None = None,
    folder: Path | str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Audit a model: evaluate it, attack it, check gradients and attacks, and give verdicts.

    First the model is checked for what would make the results mean nothing
    (`models.own.checks`). Findings that are not fatal become warnings; all outcomes are in
    ``attrs["checks"]`` of the table.

    Args:
        model: Images [n, C, H, W] in [0, 1] to logits [n, K], on any device. Calls of torchdiffeq
            in it are solved with separate steps for each image (docs/own-models.md).
        images: Float [n, C, H, W] in [0, 1].
        labels: Their classes, integers [n].
        name: Of the model, in tables and files.
        tolerances: Tolerances of the solver to measure in addition to what the model's code says;
            by default `LARGER` multiples of that. A model without adaptive steps has none.
        norms: Norms of the attacks: ``linf``, ``l2``, ``l2_rms``.
        epsilons: Largest perturbations, one list or one for each norm; by default `EPSILONS`.
        attacks: Names of presets or attacks (docs/attacks.md), or the settings of attacks by name,
            with the keys that a configuration has.
        seed: Fixes what attacks draw at random, together with `index`.
        index: Numbers of the images, such as their rows in a test set; 0 to n - 1 if None.
        batch_size: Images at a time; as many as the memory allows if None. It changes no result.
        output: Which element is the logits, if the model returns several.
        solve: Of which solve gradients and steps are audited, by the name of its module or by its
            number in a pass, if there are several; the first if None.
        folder: Where the files of the audit are kept, as a run of the workflow has them; by default
            they are deleted.
        progress: Whether to show a progress bar.

    Returns:
        The table of verdicts (docs/verdict.md): one row for every tolerance, norm and epsilon. The
        tolerance of the model's own settings is NaN.

    Raises:
        UserError: An argument is wrong, or a check of the model is fatal; the message is one line.
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"audit: model must be a torch.nn.Module (given: {type(model).__name__})")
    images, labels = _checked(images, labels)
    if batch_size is not None and batch_size < 1:
        raise UserError(f"audit: batch_size: {batch_size} is not 1 or more; leave it out")
    rows = np.arange(len(images)) if index is None else np.array([*index], np.int64)
    if len(rows) != len(images):
        raise UserError(f"audit: index has {len(rows)} numbers for {len(images)} images")
    if folder is not None:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"audit: folder: {folder} cannot be made: {error.strerror}") from None
    with ExitStack() as stack:
        if folder is None:
            folder = stack.enter_context(TemporaryDirectory())
        stack.enter_context(_full_precision())
        stack.enter_context(frozen(model))
        stack.enter_context(backward_solves())
        network = _network(model, images, output, solve)
        images, labels = images.to(network.device), labels.to(network.device)
        measured = _tolerances(network, tolerances)
        config = _configuration(network, images, name, measured, norms, epsilons, attacks, seed)
        checks = [] if isinstance(network, Classifier) else _checks(network, images, labels)
        for check in checks:
            if not check.passed:
                warnings.warn(f"{check.name}: {check.sentence}", stacklevel=2)
        run = _Run(network, images, labels, rows, config, Path(folder), batch_size)
        jobs = [*run.jobs({None, *measured})]
        bar = tqdm(total=len(images) * len(jobs), unit="image", disable=not progress)
        stack.enter_context(bar)
        for number, job in enumerate(jobs, start=1):
            job(bar.update)
            # An audit measures fewer images than there may be.
            bar.update(number * len(images) - bar.n)
        paper = config.experiments[EXPERIMENT].papers_attack
        table = of_experiment(run.files, paper, {}, {})["verdicts"]
    table.attrs["checks"] = [asdict(check) for check in checks]
    return table


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply on a GPU with all digits of single precision, as jobs do (`devices.set_up`)."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before


def _checked(images: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """The images as float32 and the labels as int64.

    Raises:
        UserError: they are not images in [0, 1] and their classes.
    """
    x, y = (torch.as_tensor(values).detach() for values in (images, labels))
    if x.ndim != 4 or not len(x) or not x.is_floating_point():
        raise UserError(
            f"audit: images must be float [n, C, H, W] in [0, 1], n >= 1 (given: {_kind(x)})"
        )
    if not bool((x >= 0).all() and (x <= 1).all()):
        raise UserError(
            f"audit: images must lie in [0, 1] (given: {x.min():.4g} to {x.max():.4g}): scale "
            "them, and put what the model does with pixels (such as a normalisation) into the model"
        )
    if y.shape != x.shape[:1] or y.is_floating_point() or y.is_complex() or bool((y < 0).any()):
        raise UserError(
            f"audit: labels must be {len(x)} class numbers from 0, one for each image "
            f"(given: {_kind(y)})"
        )
    return x.float(), y.long()


def _network(
    model: nn.Module, images: Tensor, output: int | str, solve: int | str | None
) -> AnyNetwork:
    if isinstance(model, Classifier | OwnNetwork):
        return model
    device = next((p.device for p in model.parameters()), images.device)
    return OwnNetwork.of(model, images[:FEW].to(device), output=output, solve=solve)


def _checks(network: OwnNetwork, images: Tensor, labels: Tensor) -> list[ModelCheck]:
    """The outcomes of the checks of the model.

    Raises:
        UserError: one of them is fatal.
    """
    found, some = network.spec.found, images[:IMAGES]
    if int(labels.max()) >= found.classes:
        raise UserError(
            f"audit: labels go up to {int(labels.max())}, and the model gives {found.classes} "
            "logits"
        )
    std, mean = torch.std_mean(some, (0, 2, 3))
    expected = Expected(found.classes, mean.tolist(), std.tolist(), found.ode)
    checks = [*check_model(network, some, labels[:IMAGES], expected)]
    refuse(checks, "audit")
    return checks


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"


def _configuration(
    network: AnyNetwork,
    images: Tensor,
    name: str,
    tolerances: Sequence[float],
    norms: str | Sequence[str],
    epsilons: Numbers | Mapping[str, Numbers] | None,
    attacks: str | Sequence[str] | Mapping[str, Mapping[str, Any]],
    seed: int,
) -> Config:
    """The configuration of a run of the workflow that measures the same.

    Raises:
        UserError: an argument is wrong.
    """
    defined = attacks if isinstance(attacks, Mapping) else {}
    settings = {
        "experiments": {
            EXPERIMENT: {
                "datasets": [DATASET],
                "models": [name],
                "seeds": [seed],
                # It may not be empty; a tolerance that nobody asked for is left out later.
                "tolerances": [*tolerances] or [1.0],
                "attacks": _listed(attacks),
                "norms": _listed(norms),
                "epsilons": _epsilons(_listed(norms), images.shape[1], epsilons),
                **dict.fromkeys(["trajectories", "matrix", "randomisation", "detection"]),
            }
        },
        # The images are given: those of this source are never read.
        "datasets": {DATASET: {"source": "digits"}},
        "models": {name: _model(network)},
        "attacks": {key: dict(value) for key, value in defined.items()},
    }
    try:
        return load(settings)
    except UserError as error:
        line = str(error).splitlines()[0].removeprefix("config: ")
        raise UserError(f"audit: {line.removeprefix(f'experiments.{EXPERIMENT}.')}") from None


def _listed(values: Any) -> list[Any]:
    """One value or several as a list."""
    if isinstance(values, Tensor):
        values = values.tolist()
    return [values] if isinstance(values, str | int | float) else [*values]


def _epsilons(
    norms: Sequence[str], channels: int, given: Numbers | Mapping[str, Numbers] | None
) -> dict[str, list[float]]:
    """The epsilons of each norm."""
    if isinstance(given, Mapping):
        return {norm: _listed(values) for norm, values in given.items()}
    if given is not None:
        return {norm: _listed(given) for norm in norms}
    found = {}
    for norm in norms:
        if channels not in EPSILONS.get(norm, {}):
            raise UserError(
                f"audit: epsilons: give those of norm {norm} for images of {channels} channels"
            )
        found[norm] = [EPSILONS[norm][channels]]
    return found


def _tolerances(network: AnyNetwork, given: Numbers | None) -> list[float]:
    """The tolerances to measure; an own model has the author's settings in addition.

    Raises:
        UserError: there are none, or none can be measured.
    """
    if not _adaptive(network):
        if given is not None:
            raise UserError(
                "audit: tolerances: the model takes no steps that a tolerance bounds: leave "
                "tolerances out"
            )
        return []
    own = isinstance(network, OwnNetwork)
    if given is None and network.solver is not None:
        assert isinstance(network.solver.tolerance, float)
        return [factor * network.solver.tolerance for factor in (LARGER if own else (1.0, *LARGER))]
    chosen = [] if given is None else _listed(given)
    if not own and not chosen:
        raise UserError("audit: tolerances: is empty: list at least one")
    return chosen


def _adaptive(network: AnyNetwork) -> bool:
    """Whether a tolerance bounds the steps of a network."""
    if isinstance(network, OwnNetwork):
        return network.spec.found.ode == "adaptive"
    return network.solver is not None and network.solver.steps is None


def _model(network: AnyNetwork) -> dict[str, Any]:
    """The network as an entry of a configuration."""
    if isinstance(network, OwnNetwork):
        return {"module": f"{DATASET}.py", "ode": network.spec.found.ode}
    spec = network.spec
    solver = ("method", "tolerance", "max_steps", "steps", "backend", "batch_size")
    entry = {key: getattr(spec, key) for key in ("downsampling", "body", "filters", "blocks")}
    return entry | {"solver": {key: getattr(spec, key) for key in solver}}


Progress = Callable[[int], object]
Job = Callable[[Progress], None]


@dataclass
class _Run:
    """The jobs of an audit, as the scripts of the workflow do them."""

    network: AnyNetwork
    images: Tensor
    labels: Tensor
    index: NDArray[np.int64]
    config: Config
    folder: Path
    batch_size: int | None

    def __post_init__(self) -> None:
        self.files: defaultdict[str, list[Path]] = defaultdict(list)
        self.rows = self.index, self.labels.cpu().numpy()

    def jobs(self, tolerances: Container[float | None]) -> Iterator[Job]:
        """Those at some tolerances, in an order in which each finds the files that it needs."""
        for item in solved(self.config, EXPERIMENT):
            if item.tolerance in tolerances:
                yield partial(self.evaluate, item)
        for item in audited(self.config, EXPERIMENT):
            if item.tolerance in tolerances:
                yield partial(self.audit, item)
        chosen = (c for c in cells(self.config, EXPERIMENT) if c.tolerance in tolerances)
        for cell in dict.fromkeys(before for last in chosen for before in self.up_to(last)):
            yield partial(self.attack, cell)

    def up_to(self, cell: Cell) -> Iterator[Cell]:
        """A cell after those whose broken images it leaves out."""
        for other in cheaper(self.config, cell):
            yield from self.up_to(other)
        yield cell

    def path(self, kind: str, item: Solved, name: str) -> Path:
        """The path of a file of an item, which is noted among those of its kind."""
        path = self.folder / item.result(name)
        self.files[kind].append(path)
        return path

    def at_a_time(self, network: nn.Module) -> int:
        """The batch size for a network."""
        return images_at_a_time(Compute(batch_size=self.batch_size), network, self.images)

    def cost(self, started: float) -> dict[str, Any]:
        """What computed a file, and for how long."""
        device = devices.describe(self.images.device)
        return {"seconds": time.perf_counter() - started, "device": device}

    def evaluate(self, item: Solved, progress: Progress) -> None:
        """Write clean.h5 as evaluate.py does."""
        model = self.network.at(tolerance=item.tolerance)
        started = time.perf_counter()
        found = evaluate(model, self.images, batch_size=self.at_a_time(model), progress=progress)
        write_clean(
            self.path("clean", item, "clean.h5"),
            vars(item),
            *self.rows,
            found,
            **self.cost(started),
        )

    def audit(self, item: Solved, progress: Progress) -> None:
        """Write audit.h5 as audit.py does."""
        settings = params.audit(self.config, vars(item))
        some = slice(settings["images"])
        tight = self.network.at(tolerance=settings["tight_tolerance"])
        started = time.perf_counter()
        found = audit_network(
            self.network.at(tolerance=item.tolerance),
            self.images[some],
            self.labels[some],
            self.index[some].tolist(),
            settings,
            seed=item.seed,
            batch_size=self.at_a_time(tight),
            progress=progress,
        )
        write_audit(
            self.path("audits", item, "audit.h5"),
            {**vars(item), **settings, "finite_difference_step": STEP},
            self.rows[0][some],
            self.rows[1][some],
            found,
            **self.cost(started),
        )

    def attack(self, cell: Cell, progress: Progress) -> None:
        """Write attack.h5 as attack.py does."""
        settings = attack_settings(self.config, cell)
        skip = None
        if "skips" in settings:
            before = [
                self.folder / other.result("attack.h5") for other in cheaper(self.config, cell)
            ]
            skip = torch.from_numpy(broken_within(before, settings["skips"]["within"], self.index))
        attacked = with_gradient(self.network, cell.tolerance, settings)
        started = time.perf_counter()
        found = attack(
            attacked,
            self.images,
            self.labels,
            make(settings, cell.norm, cell.epsilon),
            index=self.index.tolist(),
            seed=cell.seed,
            skip=skip,
            batch_size=self.at_a_time(attacked),
            progress=progress,
        )
        write_attack(
            self.path("attacks", cell, "attack.h5"),
            {**vars(cell), **settings},
            *self.rows,
            self.images,
            found,
            **self.cost(started),
        )
