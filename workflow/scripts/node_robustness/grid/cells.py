"""The grid: which cells a configuration asks for.

Snakemake reads it while it parses the workflow: like `config`, this module must import quickly (no
torch).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from node_robustness.config.attack import AnyAttack, SteppedAttack
from node_robustness.config.colours import check_colours
from node_robustness.config.config import Config
from node_robustness.config.experiment import Experiment
from node_robustness.config.models import AnyModel
from node_robustness.config.values import check_distance
from node_robustness.errors import UserError
from node_robustness.grid import paths

TIGHT_TOLERANCE = 1e-5
"""A tolerance at which a solve in single precision is as good as exact."""

RK4_STEPS = 20
"""Equal steps of a solve whose steps depend on nothing."""


@dataclass(frozen=True)
class Trained:
    """One set of weights: a model trained on a dataset from a seed."""

    PLACE: ClassVar[str] = paths.TRAINED

    experiment: str
    dataset: str
    model: str
    seed: int

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        return paths.fill(paths.folder(self.PLACE), vars(self))

    def result(self, name: str, place: str | None = None) -> str:
        """The path of a file with its results, or with those of a place that it belongs to."""
        return paths.fill(paths.result(place or self.PLACE, name), vars(self))


@dataclass(frozen=True)
class Solved(Trained):
    """A model solved at a tolerance.

    None for a model without an ODE or with fixed steps, and for the settings of an own model.
    """

    PLACE: ClassVar[str] = paths.SOLVED

    tolerance: float | None


@dataclass(frozen=True)
class Cell(Solved):
    """A model at a tolerance under an attack of a norm and an epsilon."""

    PLACE: ClassVar[str] = paths.CELL

    attack: str
    norm: str
    epsilon: float


def seeds(model: AnyModel, experiment: Experiment) -> list[int]:
    """The seeds of a model; imported weights that do not name a seed are one model, not many."""
    if model.weights is not None and "{seed}" not in model.weights:
        return experiment.seeds[:1]
    return experiment.seeds


def check_images(config: Config) -> None:
    """Check that every model can learn from the images of its datasets, where these are known.

    Raises:
        UserError: one of them cannot.
    """
    for name, experiment in config.experiments.items():
        for dataset in experiment.datasets:
            shape = config.datasets[dataset].known_shape
            if shape is not None:
                check_images_of(config, name, dataset, shape, "config: ")


def check_images_of(
    config: Config, experiment: str, dataset: str, shape: tuple[int, ...], before: str = ""
) -> None:
    """Look whether every model of an experiment can learn from images of a shape.

    Args:
        config: the configuration.
        experiment: its name.
        dataset: whose images they are.
        shape: channels, height and width.
        before: the beginning of messages.

    Raises:
        UserError: one of them cannot.
    """
    channels, height, width = shape
    _check_distances(config, experiment, dataset, math.sqrt(math.prod(shape)), before)
    for name in config.experiments[experiment].every_attack:
        needed = config.attacks[name].channels
        if needed not in (None, channels):
            raise UserError(
                f"{before}attacks.{name}: takes images of {needed} channels, and those of "
                f"{dataset} have {channels}: remove {name} from experiments.{experiment}.attacks"
            )
    for name in config.experiments[experiment].models:
        model = config.models[name]
        model.check_images(f"{before}models.{name}", f"the images of {dataset}", height, width)
        if model.weights is None:
            check_colours(
                f"{before}training, for model {name}: augmentation",
                f"those of {dataset}",
                config.training_of(name).augmentation,
                channels,
            )


def _check_distances(config: Config, name: str, dataset: str, farthest: float, before: str) -> None:
    """Check that the images of a dataset are farther apart in l2 than epsilons and steps."""
    experiment = config.experiments[name]
    if "l2" not in experiment.norms:
        return
    named = [config.attacks[attack] for attack in experiment.every_attack]
    made_by = {a.made_by: config.attacks[a.made_by] for a in named if a.made_by is not None}
    attacks = dict(zip(experiment.every_attack, named, strict=True)) | made_by
    steps = {
        f"attacks.{attack}.step": settings.step_in("l2")
        for attack, settings in attacks.items()
        if isinstance(settings, SteppedAttack)
    }
    try:
        for epsilon in experiment.epsilons_for("l2"):
            check_distance(f"experiments.{name}.epsilons, for {dataset}", epsilon, "l2", farthest)
        for where, step in steps.items():
            if step is not None:
                check_distance(f"{where}, for {dataset}", step, "l2", farthest)
    except ValueError as error:
        raise UserError(f"{before}{error}") from None


def trained(config: Config, name: str) -> Iterator[Trained]:
    """Every set of weights of an experiment."""
    experiment = config.experiments[name]
    for dataset, model in product(experiment.datasets, experiment.models):
        for seed in seeds(config.models[model], experiment):
            yield Trained(name, dataset, model, seed)


def solved(config: Config, name: str) -> Iterator[Solved]:
    """Every model at every tolerance of an experiment."""
    experiment = config.experiments[name]
    for item in trained(config, name):
        for tolerance in config.models[item.model].columns(experiment.tolerances):
            yield Solved(name, item.dataset, item.model, item.seed, tolerance)


def cells(config: Config, name: str) -> Iterator[Cell]:
    """Every attack cell of an experiment.

    An attack has no cell of a norm that it does not know. A transfer has no cell on its source.
    An attack that draws tolerances has no cell of a model whose images must share one.
    """
    experiment = config.experiments[name]
    for item in solved(config, name):
        for attack, norm in product(experiment.every_attack, experiment.norms):
            settings = config.attacks[attack]
            if item.model == _source(settings, experiment):
                continue
            if not can_run(settings, config.models[item.model], norm):
                continue
            for epsilon in epsilons(config, experiment, attack, norm):
                yield Cell(
                    name,
                    item.dataset,
                    item.model,
                    item.seed,
                    item.tolerance,
                    attack,
                    norm,
                    epsilon,
                )


def can_run(attack: AnyAttack, model: AnyModel, norm: str) -> bool:
    """Whether an attack knows a norm and, if it draws tolerances, each image can have its own."""
    return norm in attack.norms and (not attack.draws_tolerances or model.stepped_alone)


def epsilons(config: Config, experiment: Experiment, attack: str, norm: str) -> list[float]:
    """The epsilons of an attack: all, or the primary one alone.

    Of these the largest if the attack looks for the smallest perturbation.
    """
    every = experiment.epsilons_for(norm)
    if attack not in experiment.attacks:
        every = [experiment.primary_epsilon(norm)]
    return [max(every)] if config.attacks[attack].minimal else every


def source(config: Config, cell: Cell) -> Solved | None:
    """The model that the adversarial examples of a cell are made on; None unless transferred.

    It has the cell's seed, or its first one if it lacks that seed, and the cell's tolerance, or
    that of its training where the cell has none.
    """
    experiment = config.experiments[cell.experiment]
    name = _source(config.attacks[cell.attack], experiment)
    if name is None:
        return None
    model = config.models[name]
    own_seeds = seeds(model, experiment)
    seed = cell.seed if cell.seed in own_seeds else own_seeds[0]
    tolerance = (cell.tolerance or model.training_tolerance) if model.adaptive else None
    return Solved(cell.experiment, cell.dataset, name, seed, tolerance)


def _source(attack: AnyAttack, experiment: Experiment) -> str | None:
    if attack.made_by is None:
        return None
    default = "RES" if "RES" in experiment.models else experiment.models[0]
    return attack.made_on or default
