"""The jobs of a run that compute with a model, and what each of their steps is.

Like `config`, this module must import quickly (no torch).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from node_robustness.config.config import Config
from node_robustness.grid import cells, params, stages
from node_robustness.grid.attack_settings import attack_settings
from node_robustness.grid.cells import Cell, Solved
from node_robustness.scheduling import work
from node_robustness.scheduling.work import Coordinates, Work

Step = tuple[float | None, str]
"""A tolerance, and what is done at it: `forward`, `training`, or the kind of a gradient."""

Settings = Mapping[str, Any]

_SOON = 10  # steps until an image is broken that is easily broken


@dataclass(frozen=True)
class Job:
    """A job that computes with a model.

    Attributes:
        rule: its name.
        at: its coordinates in the grid.
        work: how many images and steps it has at most.
        step: what each of these steps is.
        soon: how many steps it has if attacks break every image soon.
        settings: of the attack, which say how its gradient is solved.
    """

    rule: str
    at: Coordinates
    work: Work
    step: Step
    soon: int
    settings: Settings = field(default_factory=dict)


def _probed(config: Config, name: str) -> Iterator[Solved]:
    """Every model at every tolerance whose states are probed."""
    follow = config.experiments[name].trajectories
    if follow is not None and follow.probe:
        yield from dict.fromkeys(map(_solved, stages.followed(config, name)))


def _solved(cell: Cell) -> Solved:
    return Solved(cell.experiment, cell.dataset, cell.model, cell.seed, cell.tolerance)


# The stages but attacks: their items, the size of their work, and what each of its steps is.
_STAGES: dict[
    str,
    tuple[Callable[[Config, str], Iterator[Any]], Callable[[Config, Coordinates], Work], str],
] = {
    "train": (stages.fitted, work.training, "training"),
    "check_model": (stages.own, work.check, "forward"),
    "certify": (stages.certified, work.certification, "forward"),
    "evaluate": (cells.solved, work.evaluation, "forward"),
    "probe": (_probed, work.probing, "forward"),
    "trajectory": (stages.followed, work.trajectory, "direct"),
    "audit": (stages.audited, work.audit, "direct"),
    "reevaluate": (stages.reevaluated, work.reevaluation, "forward"),
    "randomise": (stages.randomised, work.randomisation, "direct"),
    "detect": (stages.detected, work.detection, "direct"),
    "sweep": (stages.swept, work.adjoint_sweep, "adjoint"),
    "attack_cost": (stages.cost_attacked, work.cost, "direct"),
}
_ATTACKS = {"attack": work.attack, "attack_shard": work.shard}


def job(config: Config, rule: str, at: Coordinates) -> Job | None:
    """The job of a rule at some coordinates; None if it computes with no model."""
    if rule in _ATTACKS:
        settings, size = (
            attack_settings(config, params.cell(config, at)),
            _ATTACKS[rule](config, at),
        )
        kind = "forward" if settings["gradient"] == "none" else settings["gradient"]
        # Expensive attacks leave out what others broke.
        soon = 1 if config.attacks[at["attack"]].expensive else min(_SOON, size.steps)
        return Job(rule, at, size, (at["tolerance"], kind), soon, settings)
    if rule in _STAGES:
        _, size_of, kind = _STAGES[rule]
        size = size_of(config, at)
        return Job(rule, at, size, (at.get("tolerance"), kind), size.steps)
    return None


def jobs(config: Config, name: str) -> Iterator[Job]:
    """The jobs of an experiment that compute with a model, with no attack in shards."""
    items: dict[str, Callable[[Config, str], Iterator[Any]]] = {
        **{rule: items for rule, (items, _, _) in _STAGES.items()},
        "attack": cells.cells,
    }
    for rule, items_of in items.items():
        for item in items_of(config, name):
            found = job(config, rule, vars(item))
            assert found is not None
            yield found


def kinds(config: Config, name: str) -> dict[Step, Settings]:
    """The steps whose time decides what an experiment costs, with the settings of their attacks."""
    every = sorted(jobs(config, name), key=lambda job: bool(job.settings))
    return {job.step: job.settings for job in every}
