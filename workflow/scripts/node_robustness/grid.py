"""The grid: which cells a configuration asks for, and where each file of a run lies.

Everything that Snakemake needs to know while it parses the workflow is here; like `config`, this
module must import quickly (no torch).
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from node_robustness import architecture
from node_robustness.colours import check_colours
from node_robustness.config import Config, Detection, Experiment, Model, Randomisation
from node_robustness.config_attacks import (
    EOTPGD,
    AnyAttack,
    GradientAttack,
    SteppedAttack,
    Surrogate,
    Transfer,
)
from node_robustness.config_values import check_distance
from node_robustness.dataset_sizes import image_shape, images_to_test
from node_robustness.errors import UserError
from node_robustness.numbers import token

NO_TOLERANCE = "none"
"""The tolerance token of a model that takes no adaptive steps."""

TIGHT_TOLERANCE = 1e-5
"""A tolerance at which a solve in single precision is as good as exact."""

RK4_STEPS = 20
"""Equal steps of a solve whose steps depend on nothing."""


@dataclass(frozen=True)
class Trained:
    """One set of weights: a model trained on a dataset from a seed."""

    experiment: str
    dataset: str
    model: str
    seed: int

    @property
    def weights_folder(self) -> str:
        """The folder of its weights under `results/`."""
        return f"{self.experiment}/{self.dataset}/{self.model}/seed-{self.seed}"

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        return self.weights_folder


@dataclass(frozen=True)
class Solved(Trained):
    """A model solved at a tolerance; None for a model without an ODE or with fixed steps."""

    tolerance: float | None

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        tau = NO_TOLERANCE if self.tolerance is None else token(self.tolerance)
        return f"{super().folder}/tau-{tau}"


@dataclass(frozen=True)
class Cell(Solved):
    """A model at a tolerance under an attack of a norm and an epsilon."""

    attack: str
    norm: str
    epsilon: float

    @property
    def solved_folder(self) -> str:
        """The folder of its model at its tolerance under `results/`."""
        return super().folder

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        return f"{super().folder}/{self.attack}/{self.norm}/eps-{token(self.epsilon)}"


@dataclass(frozen=True)
class Shard:
    """Some of the test images of a cell: from the one at `first` up to, without, that at `end`."""

    first: int
    end: int

    @property
    def name(self) -> str:
        """Its part of the name of its file."""
        return f"{self.first}-{self.end}"

    @classmethod
    def named(cls, name: str) -> "Shard":
        """The shard of a name."""
        return cls(*map(int, name.split("-")))

    @property
    def images(self) -> int:
        """How many they are."""
        return self.end - self.first


@dataclass(frozen=True)
class Randomised(Trained):
    """A model whose tolerance is drawn, under attacks of a norm and an epsilon."""

    norm: str
    epsilon: float

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        return f"{super().folder}/randomised/{self.norm}/eps-{token(self.epsilon)}"


@dataclass(frozen=True)
class Detected(Solved):
    """A model at a tolerance, with a detector, under attacks of a norm and an epsilon."""

    norm: str
    epsilon: float

    @property
    def folder(self) -> str:
        """Its folder under `results/`."""
        return f"{super().folder}/detection/{self.norm}/eps-{token(self.epsilon)}"


def seeds(model: Model, experiment: Experiment) -> list[int]:
    """The seeds of a model; imported weights that do not name a seed are one model, not many."""
    if model.weights is not None and "{seed}" not in model.weights:
        return experiment.seeds[:1]
    return experiment.seeds


def checkpoint(config: Config, model: str, seed: int | str) -> str | None:
    """The file that a model's weights are imported from; None for a model that is trained."""
    weights = config.models[model].weights
    return None if weights is None else weights.replace("{seed}", str(seed))


def check_checkpoints(config: Config) -> None:
    """Look for the files of all imported weights, relative to the working directory.

    Raises:
        UserError: one of them is not there, or has a path that Snakemake takes for a pattern.
    """
    for name in config.experiments:
        for item in trained(config, name):
            path = checkpoint(config, item.model, item.seed)
            if path is None:
                continue
            pattern = re.search("[{}<>]", path)
            if pattern is not None:
                raise UserError(
                    f"config: models.{item.model}.weights: {path} has {pattern[0]!r} in it, which "
                    "is a pattern to Snakemake: give the file, or a link to it, another path"
                )
            if not Path(path).is_file():
                found = f"{path} is a folder" if Path(path).is_dir() else f"there is no file {path}"
                raise UserError(
                    f"config: models.{item.model}.weights: {found} in "
                    f"{Path.cwd()}: correct the path, or remove the key to train the model"
                )


def check_images(config: Config) -> None:
    """Look whether every model can learn from the images of its datasets, where these are known.

    Raises:
        UserError: one of them cannot.
    """
    for name, experiment in config.experiments.items():
        for dataset in experiment.datasets:
            shape = image_shape(config.datasets[dataset])
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
        before: what a message begins with.

    Raises:
        UserError: one of them cannot.
    """
    channels, height, width = shape
    _check_distances(config, experiment, dataset, math.sqrt(math.prod(shape)), before)
    for name in config.experiments[experiment].models:
        model = config.models[name]
        architecture.check_images(
            f"{before}models.{name}",
            f"the images of {dataset}",
            model.downsampling,
            model.filters,
            height,
            width,
        )
        if model.weights is None:
            check_colours(
                f"{before}training, for model {name}: augmentation",
                f"those of {dataset}",
                config.training_of(name).augmentation,
                channels,
            )


def _check_distances(config: Config, name: str, dataset: str, farthest: float, before: str) -> None:
    """Look whether the images of a dataset are farther apart in l2 than epsilons and steps."""
    experiment = config.experiments[name]
    if "l2" not in experiment.norms:
        return
    named = [config.attacks[attack] for attack in experiment.attacks]
    made_by = {a.by: config.attacks[a.by] for a in named if isinstance(a, Transfer)}
    attacks = dict(zip(experiment.attacks, named, strict=True)) | made_by
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


def tolerances(model: Model, experiment: Experiment) -> list[float | None]:
    """The tolerances of a model: one column without any if it takes no adaptive steps."""
    return [*experiment.tolerances] if adaptive(model) else [None]


def adaptive(model: Model) -> bool:
    """Whether a model has an ODE whose steps the tolerance bounds."""
    return model.body == "ode" and model.solver.steps is None


def stepped_alone(model: Model) -> bool:
    """Whether nothing that a model computes for an image takes its steps for other images too."""
    return model.body != "ode" or model.solver.backend == "batched"


def trained(config: Config, name: str) -> Iterator[Trained]:
    """Every set of weights of an experiment."""
    experiment = config.experiments[name]
    for dataset, model in product(experiment.datasets, experiment.models):
        for seed in seeds(config.models[model], experiment):
            yield Trained(name, dataset, model, seed)


def fitted(config: Config, name: str) -> Iterator[Trained]:
    """Those of them that are trained here, and not imported."""
    return (t for t in trained(config, name) if config.models[t.model].weights is None)


def solved(config: Config, name: str) -> Iterator[Solved]:
    """Every model at every tolerance of an experiment."""
    experiment = config.experiments[name]
    for item in trained(config, name):
        for tolerance in tolerances(config.models[item.model], experiment):
            yield Solved(name, item.dataset, item.model, item.seed, tolerance)


def cells(config: Config, name: str) -> Iterator[Cell]:
    """Every attack cell of an experiment.

    An attack has no cell of a norm that it does not know, one that transfers adversarials has none
    of its own source, and one that draws tolerances has none of a model whose images cannot have
    each their own.
    """
    experiment = config.experiments[name]
    for item in solved(config, name):
        for attack, norm in product(experiment.attacks, experiment.norms):
            settings = config.attacks[attack]
            if item.model == _source(settings, experiment):
                continue
            if not _can_run(settings, config.models[item.model], norm):
                continue
            for epsilon in epsilons(settings, experiment, norm):
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


def _can_run(attack: AnyAttack, model: Model, norm: str) -> bool:
    """Whether an attack knows a norm and, where it draws tolerances, finds each image its own."""
    return norm in attack.NORMS and (not isinstance(attack, EOTPGD) or stepped_alone(model))


def epsilons(attack: AnyAttack, experiment: Experiment, norm: str) -> list[float]:
    """The epsilons of an attack: the largest alone if it looks for the smallest perturbation."""
    every = experiment.epsilons_for(norm)
    return [max(every)] if attack.MINIMAL else every


def source(config: Config, cell: Cell) -> Solved | None:
    """The model that makes the adversarials of a cell; None but where they are transferred.

    It has the cell's seed, or its own first one where it has not, and the cell's tolerance, or
    that of its training where the cell has none.
    """
    experiment = config.experiments[cell.experiment]
    name = _source(config.attacks[cell.attack], experiment)
    if name is None:
        return None
    model = config.models[name]
    own_seeds = seeds(model, experiment)
    seed = cell.seed if cell.seed in own_seeds else own_seeds[0]
    tolerance = (cell.tolerance or model.solver.tolerance) if adaptive(model) else None
    return Solved(cell.experiment, cell.dataset, name, seed, tolerance)


def cheaper(config: Config, cell: Cell) -> list[Cell]:
    """The cells whose broken images a cell leaves out: none unless its attack is a dear one.

    An image that they broke within the smallest epsilon is broken at every epsilon, whatever the
    dear attack would find. One that they broke at a larger epsilon is not left out there: the dear
    attack could still come upon a smaller adversarial, which counts at the smaller epsilons too.

    Only attacks by gradients spare others their work. Whether a black box or random noise breaks
    what gradients do not is a question of its own, which must be put to all gradients. The paper's
    protocol, and adversarials that are judged at other tolerances, stand for themselves.
    """
    experiment = config.experiments[cell.experiment]
    own: AnyAttack = config.attacks[cell.attack]
    if (
        not experiment.skip_broken
        or not own.DEAR
        or cell.attack == experiment.papers_attack
        or _is_judged(config, cell)
    ):
        return []
    every = ((name, config.attacks[name]) for name in experiment.attacks)
    return [
        replace(cell, attack=name, epsilon=min(epsilons(attack, experiment, cell.norm)))
        for name, attack in every
        if isinstance(attack, GradientAttack)
        and not attack.DEAR
        and _can_run(attack, config.models[cell.model], cell.norm)
    ]


def is_split(config: Config, dataset: str) -> bool:
    """Whether attacks on a dataset are made in shards.

    They are if it has more test images than one holds, and where shards are kept even if it has
    not, as it may have later.
    """
    size, images = config.compute.shard_size, images_to_test(config.datasets[dataset])
    if size is None or images is None:
        return False
    return config.compute.keep_shards or images > size


def shards(config: Config, cell: Cell) -> list[Shard]:
    """The shards of a cell whose dataset is split, in the order of their images.

    Images that are solved as one equation stay together, as their results depend on each other:
    there a shard holds as many whole batches as `shard_size` begins.
    """
    size, images = config.compute.shard_size, images_to_test(config.datasets[cell.dataset])
    assert size is not None  # see is_split
    assert images is not None
    joint = _joint_images(config, cell)
    size = -(-size // joint) * joint
    return [Shard(first, min(first + size, images)) for first in range(0, images, size)]


def _joint_images(config: Config, cell: Cell) -> int:
    """How many images are one equation in a cell; `memory.images_at_a_time` gives as many."""
    made_on = source(config, cell)
    for name in (cell.model, made_on.model) if made_on else (cell.model,):
        if not stepped_alone(config.models[name]):
            return config.models[name].solver.batch_size
    return 1


def _source(attack: AnyAttack, experiment: Experiment) -> str | None:
    if not isinstance(attack, Transfer):
        return None
    default = "RES" if "RES" in experiment.models else experiment.models[0]
    return attack.source or default


def followed(config: Config, name: str) -> Iterator[Cell]:
    """Every attack cell of an experiment whose trajectories are to be followed.

    What is followed are the steps of every image, or the blocks of a model without an ODE.
    """
    follow = config.experiments[name].trajectories
    if follow is None:
        return
    for cell in cells(config, name):
        if (
            stepped_alone(config.models[cell.model])
            and (
                cell.tolerance is None or cell.tolerance in (follow.tolerances or [cell.tolerance])
            )
            and cell.attack in (follow.attacks or [cell.attack])
            and (follow.norms is None or cell.norm in follow.norms)
            and cell.epsilon in (follow.epsilons or [cell.epsilon])
        ):
            yield cell


def audited(config: Config, name: str) -> Iterator[Solved]:
    """Every model at every tolerance of an experiment whose gradients are to be audited."""
    if config.experiments[name].audit is not None:
        for item in solved(config, name):
            if stepped_alone(config.models[item.model]):
                yield item


def judged(config: Config, name: str) -> Iterator[Cell]:
    """Every attack cell of an experiment whose adversarials are judged at all tolerances."""
    experiment = config.experiments[name]
    matrix = experiment.matrix
    if matrix is None:
        return
    for cell in cells(config, name):
        own = epsilons(config.attacks[cell.attack], experiment, cell.norm)
        if _is_judged(config, cell) and cell.epsilon in (matrix.epsilons or [middle(own)]):
            yield cell


def _is_judged(config: Config, cell: Cell) -> bool:
    """Whether a cell, or its like at another epsilon, is judged at all tolerances."""
    experiment = config.experiments[cell.experiment]
    matrix = experiment.matrix
    return (
        matrix is not None
        and cell.tolerance is not None
        and cell.attack in (matrix.attacks or _first_of_each_gradient(config, experiment))
        and cell.norm in (matrix.norms or experiment.norms[:1])
    )


def _first_of_each_gradient(config: Config, experiment: Experiment) -> list[str]:
    """The first attack with adjoint and the first with direct gradients, where there are."""
    first: dict[str, str] = {}
    for name in experiment.attacks:
        attack = config.attacks[name]
        if isinstance(attack, GradientAttack):
            first.setdefault(attack.gradient, name)
    return [first[kind] for kind in ("adjoint", "direct") if kind in first]


def randomised(config: Config, name: str) -> Iterator[Randomised]:
    """Every model of an experiment that is attacked while its tolerance is drawn."""
    experiment = config.experiments[name]
    section = experiment.randomisation
    if section is None or experiment.distribution is None:
        return
    for item in trained(config, name):
        model = config.models[item.model]
        if adaptive(model) and stepped_alone(model):
            for norm, epsilon in perturbations(experiment, section):
                yield Randomised(name, item.dataset, item.model, item.seed, norm, epsilon)


def detected(config: Config, name: str) -> Iterator[Detected]:
    """Every model at a tolerance whose adversarials are to be detected by the other tolerances."""
    experiment = config.experiments[name]
    section = experiment.detection
    if section is None or len(experiment.tolerances) == 1:
        return
    for item in solved(config, name):
        tau = item.tolerance
        if not stepped_alone(config.models[item.model]):
            continue
        if tau is not None and tau in (section.tolerances or experiment.tolerances):
            for norm, epsilon in perturbations(experiment, section):
                yield Detected(name, item.dataset, item.model, item.seed, tau, norm, epsilon)


def paced(config: Config, name: str) -> Iterator[Cell]:
    """Every cell of an experiment in which the time of the paper's procedure is taken.

    The first seed of every model at every tolerance, in the first norm at the middle epsilon.
    """
    experiment = config.experiments[name]
    if experiment.pace is None:
        return
    norm = experiment.norms[0]
    for cell in cells(config, name):
        if (
            cell.attack == experiment.papers_attack
            and cell.norm == norm
            and cell.epsilon == middle(experiment.epsilons_for(norm))
            and cell.seed == seeds(config.models[cell.model], experiment)[0]
        ):
            yield cell


def perturbations(
    experiment: Experiment, section: Randomisation | Detection
) -> Iterator[tuple[str, float]]:
    """The norms and epsilons of a section: unless it says otherwise, the first and the middle."""
    for norm in section.norms or experiment.norms[:1]:
        every = experiment.epsilons_for(norm)
        for epsilon in every:
            if epsilon in (section.epsilons or [middle(every)]):
                yield norm, epsilon


def middle(epsilons: list[float]) -> float:
    """The middle one; of an even number the larger one of two."""
    return sorted(epsilons)[len(epsilons) // 2]


def attack_settings(config: Config, cell: Cell) -> dict[str, Any]:
    """Everything that counts of an attack in a cell, and nothing else: what its file records.

    The size of a step is in the units of the norm. An attack without a gradient of the model that
    it attacks has `gradient: none`; a model without an ODE has one kind, `direct`.
    """
    attack = config.attacks[cell.attack]
    settings = _parameters(attack, config.models[cell.model], cell.norm, cell.epsilon)
    made_on = source(config, cell)
    if isinstance(attack, Transfer) and made_on is not None:
        by, model = config.attacks[attack.by], config.models[made_on.model]
        made_by = _parameters(by, model, cell.norm, cell.epsilon)
        settings["by"] = made_by | ({"early_stop": False} if "early_stop" in made_by else {})
        settings["source"] = {
            "model": made_on.model,
            "seed": made_on.seed,
            "tolerance": made_on.tolerance,
        }
    if isinstance(attack, EOTPGD):
        if adaptive(config.models[cell.model]):
            settings["drawn"] = config.experiments[cell.experiment].distribution
        else:
            del settings["draws"]
    spared_by = cheaper(config, cell)
    if spared_by:
        settings["skips"] = {
            "broken_by": {other.attack: other.epsilon for other in spared_by},
            "within": min(config.experiments[cell.experiment].epsilons_for(cell.norm)),
        }
    return settings


def _parameters(attack: AnyAttack, model: Model, norm: str, epsilon: float) -> dict[str, Any]:
    gradient = set(GradientAttack.model_fields) - {"method"}
    settings = attack.model_dump(exclude=gradient) | _gradient(attack, model)
    if isinstance(attack, SteppedAttack):
        del settings["relative_step"]
        settings["step"] = step_size(attack, norm, epsilon)
    return settings


def _gradient(attack: AnyAttack, model: Model) -> dict[str, Any]:
    if not isinstance(attack, GradientAttack):
        return {"gradient": "none"}
    if attack.gradient == "direct" or model.body != "ode":
        return {"gradient": "direct"}
    settings: dict[str, Any] = {"gradient": attack.gradient}
    if attack.surrogate is not None:
        return settings | {"surrogate": _surrogate(attack.surrogate, model)}
    adjoint = {"adjoint_tolerance": attack.adjoint_tolerance, "adjoint_norm": attack.adjoint_norm}
    return settings | adjoint


def _surrogate(surrogate: Surrogate, model: Model) -> dict[str, Any]:
    """The solver settings that differ from the model's."""
    if surrogate.steps is not None:
        return {"method": surrogate.method, "steps": surrogate.steps}
    adaptive = "dopri5" if model.solver.steps is not None else model.solver.method
    method = surrogate.method or adaptive
    return {"method": method, "tolerance": surrogate.tolerance, "steps": None}


def step_size(attack: SteppedAttack, norm: str, epsilon: float) -> float:
    """The step of an attack, in the units of the norm."""
    if attack.relative_step is not None:
        return attack.relative_step * epsilon
    step = attack.step_in(norm)
    assert step is not None  # the configuration demands one of the two
    return step


def resource_folder(config: Config, dataset: str) -> str:
    """The folder under `resources/` that holds the files of a dataset.

    Datasets that split a known source differently share its files.
    """
    source = config.datasets[dataset].source
    return dataset if source in ("idx", "cifar_binary") else source


def mirrors_of(config: Config, folder: str) -> list[str]:
    """The mirrors that any dataset of a folder under `resources/` names, without repetition."""
    named = (d.mirrors for n, d in config.datasets.items() if resource_folder(config, n) == folder)
    return list(dict.fromkeys(mirror for mirrors in named for mirror in mirrors))


def shown(config: Config, name: str) -> Iterator[Cell]:
    """The attack cells whose images the report shows: one for each dataset and model.

    The first seed, tolerance, attack and norm of the lists, and the middle one of the epsilons, as
    far as there is such a cell.
    """
    experiment = config.experiments[name]
    norm = experiment.norms[0]
    epsilon = middle(experiment.epsilons_for(norm))
    nearest: dict[tuple[str, str], tuple[tuple[bool, bool], Cell]] = {}
    for cell in cells(config, name):
        place, distance = (cell.dataset, cell.model), (cell.norm != norm, cell.epsilon != epsilon)
        if place not in nearest or distance < nearest[place][0]:
            nearest[place] = distance, cell
    for _, cell in nearest.values():
        yield cell
