"""The cells, models and tolerances of each stage after the attacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from node_robustness.config.attack import GradientAttack
from node_robustness.config.config import Config
from node_robustness.config.experiment import (
    AdjointSweep,
    CostAttack,
    Detection,
    Experiment,
    Randomisation,
)
from node_robustness.grid import paths
from node_robustness.grid.cells import (
    Cell,
    Solved,
    Trained,
    cells,
    epsilons,
    solved,
    trained,
)


@dataclass(frozen=True)
class RandomisedCell(Trained):
    """A model whose tolerance is drawn, under attacks of a norm and an epsilon."""

    PLACE: ClassVar[str] = paths.RANDOMISED

    norm: str
    epsilon: float


@dataclass(frozen=True)
class CertifiedCell(Trained):
    """An own model that proves which images are robust in a norm within an epsilon."""

    PLACE: ClassVar[str] = paths.CERTIFIED

    norm: str
    epsilon: float


@dataclass(frozen=True)
class PerturbedCell(Solved):
    """A model at a tolerance, under attacks of a norm and an epsilon that a section makes."""

    norm: str
    epsilon: float


@dataclass(frozen=True)
class DetectionCell(PerturbedCell):
    """One with a detector."""

    PLACE: ClassVar[str] = paths.DETECTED


@dataclass(frozen=True)
class SweepCell(PerturbedCell):
    """One under the paper's attack, its adjoint solved at several tolerances."""

    PLACE: ClassVar[str] = paths.SWEPT


@dataclass(frozen=True)
class CostCell(PerturbedCell):
    """One whose number of function evaluations is attacked."""

    PLACE: ClassVar[str] = paths.COST


AnyPerturbedCell = TypeVar("AnyPerturbedCell", bound=PerturbedCell)


def fitted(config: Config, name: str) -> Iterator[Trained]:
    """Every set of weights that is trained here and not imported."""
    return (t for t in trained(config, name) if config.models[t.model].weights is None)


def own(config: Config, name: str) -> Iterator[Trained]:
    """Every set of weights of an own model."""
    return (t for t in trained(config, name) if config.models[t.model].is_own)


def certified(config: Config, name: str) -> Iterator[CertifiedCell]:
    """Every own model that proves its robustness, in every norm and within every epsilon."""
    experiment = config.experiments[name]
    for item in own(config, name):
        if config.models[item.model].certify is not None:
            for norm in experiment.norms:
                for epsilon in experiment.epsilons_for(norm):
                    yield CertifiedCell(name, item.dataset, item.model, item.seed, norm, epsilon)


def followed(config: Config, name: str) -> Iterator[Cell]:
    """Every attack cell of an experiment whose trajectories are to be followed.

    What is followed are the steps of every image, or the blocks of a model without an ODE.
    """
    follow = config.experiments[name].trajectories
    if follow is None:
        return
    for cell in cells(config, name):
        if (
            config.models[cell.model].can_be_followed
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
            if config.models[item.model].stepped_alone:
                yield item


def reevaluated(config: Config, name: str) -> Iterator[Cell]:
    """Every cell whose adversarial examples are classified at all tolerances."""
    experiment = config.experiments[name]
    matrix = experiment.matrix
    if matrix is None:
        return
    for cell in cells(config, name):
        if not is_reevaluated(config, cell):
            continue
        own = epsilons(config, experiment, cell.attack, cell.norm)
        primary = experiment.primary_epsilon(cell.norm)
        chosen = matrix.epsilons or [primary if primary in own else max(own)]
        if cell.epsilon in chosen:
            yield cell


def is_reevaluated(config: Config, cell: Cell) -> bool:
    """Whether a cell, at some epsilon, is classified at all tolerances."""
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
    for name in experiment.every_attack:
        attack = config.attacks[name]
        if isinstance(attack, GradientAttack) and attack.by_gradient:
            first.setdefault(attack.gradient, name)
    return [first[kind] for kind in ("adjoint", "direct") if kind in first]


def randomised(config: Config, name: str) -> Iterator[RandomisedCell]:
    """Every model of an experiment that is attacked while its tolerance is drawn."""
    experiment = config.experiments[name]
    section = experiment.randomisation
    if section is None or experiment.distribution is None:
        return
    for item in trained(config, name):
        model = config.models[item.model]
        if model.adaptive and model.stepped_alone:
            for norm, epsilon in perturbations(experiment, section):
                yield RandomisedCell(name, item.dataset, item.model, item.seed, norm, epsilon)


def detected(config: Config, name: str) -> Iterator[DetectionCell]:
    """Every model at a tolerance whose adversarial examples other tolerances are to detect."""
    experiment = config.experiments[name]
    section = experiment.detection
    if section is not None and len(experiment.tolerances) > 1:
        yield from _perturbed(config, name, section, DetectionCell)


def swept(config: Config, name: str) -> Iterator[SweepCell]:
    """Every model at a tolerance whose adjoint is to be solved at others."""
    experiment = config.experiments[name]
    section, attack = experiment.adjoint_sweep, experiment.papers_attack
    if section is not None and attack is not None:
        for cell in _perturbed(config, name, section, SweepCell):
            if cell.norm in config.attacks[attack].norms:
                yield cell


def cost_attacked(config: Config, name: str) -> Iterator[CostCell]:
    """Every model at a tolerance whose number of function evaluations is to be attacked."""
    section = config.experiments[name].cost
    if section is not None:
        yield from _perturbed(config, name, section, CostCell)


def _perturbed(
    config: Config,
    name: str,
    section: Detection | AdjointSweep | CostAttack,
    kind: type[AnyPerturbedCell],
) -> Iterator[AnyPerturbedCell]:
    """The cells of a section: models whose images each take steps that a tolerance bounds."""
    experiment = config.experiments[name]
    for item in solved(config, name):
        tau = item.tolerance
        if not config.models[item.model].stepped_alone:
            continue
        if tau is not None and tau in (section.tolerances or experiment.tolerances):
            for norm, epsilon in perturbations(experiment, section):
                yield kind(name, item.dataset, item.model, item.seed, tau, norm, epsilon)


def perturbations(
    experiment: Experiment, section: Randomisation | Detection | AdjointSweep | CostAttack
) -> Iterator[tuple[str, float]]:
    """The norms and epsilons of a section: unless it says otherwise, the first and its primary."""
    for norm in section.norms or experiment.norms[:1]:
        for epsilon in experiment.epsilons_for(norm):
            if epsilon in (section.epsilons or [experiment.primary_epsilon(norm)]):
                yield norm, epsilon


def shown(config: Config, name: str) -> Iterator[Cell]:
    """The attack cells whose images the report shows: one for each dataset and model.

    The first seed, tolerance, attack and norm of the lists, and the primary epsilon, as far as
    there is such a cell.
    """
    experiment = config.experiments[name]
    norm = experiment.norms[0]
    epsilon = experiment.primary_epsilon(norm)
    nearest: dict[tuple[str, str], tuple[tuple[bool, bool], Cell]] = {}
    for cell in cells(config, name):
        place, distance = (cell.dataset, cell.model), (cell.norm != norm, cell.epsilon != epsilon)
        if place not in nearest or distance < nearest[place][0]:
            nearest[place] = distance, cell
    for _, cell in nearest.values():
        yield cell
