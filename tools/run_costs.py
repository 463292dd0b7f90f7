"""What a run will cost: its jobs, their steps, and what a step was measured to take.

How many steps an attack takes depends on what it breaks, so there are two answers: as if it broke
no image, and as if it broke every image soon.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from node_robustness.config.config import Config
from node_robustness.grid import cells, stages
from node_robustness.grid.attack_settings import attack_settings
from node_robustness.scheduling import work
from node_robustness.scheduling.work import Work

Step = tuple[float | None, str]
"""A tolerance, and what is done at it: `forward`, `training`, or the kind of a gradient."""

Settings = Mapping[str, Any]

_SOON = 10  # steps until an image is broken that is easily broken
_JOB_SECONDS = 4.0  # Python, PyTorch and the model, of each job
_FIXED_SECONDS = 45.0  # data, tables, figures and report
_JOB_BYTES = 60_000  # log, benchmark, record and the attributes of a file
_FIXED_BYTES = 20_000_000
_FOLLOWED_BYTES = 30_000  # of an image that is followed, its states excepted
_FLOAT = 4


@dataclass(frozen=True)
class Job:
    """A job that computes with a model.

    Attributes:
        rule: its name.
        work: how many images and steps it has.
        step: what each of these steps is.
        soon: how many steps it has if attacks break every image soon.
        settings: of the attack, which say how its gradient is solved.
    """

    rule: str
    work: Work
    step: Step
    soon: int
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Costs:
    """What a run costs.

    Attributes:
        jobs: how many there are of each rule.
        seconds: of one core, or one device, by rule.
        bytes: on the disk.
    """

    jobs: Counter[str]
    seconds: Mapping[str, float]
    bytes: float

    def wall(self, cores: int) -> float:
        """Seconds from start to end, on so many cores."""
        training = self.seconds.get("train", 0.0)
        rest = sum(self.seconds.values()) - training + _JOB_SECONDS * self.jobs.total()
        return _FIXED_SECONDS + training + rest / cores


def jobs(config: Config, name: str) -> Iterator[Job]:
    """The jobs of an experiment that compute with a model."""
    for item in stages.fitted(config, name):
        yield _steady("train", work.training(config, vars(item)), (None, "training"))
    for solved in cells.solved(config, name):
        step = solved.tolerance, "forward"
        yield _steady("evaluate", work.evaluation(config, vars(solved)), step)
    for cell in cells.cells(config, name):
        settings, size = attack_settings(config, cell), work.attack(config, vars(cell))
        kind = "forward" if settings["gradient"] == "none" else settings["gradient"]
        # Expensive attacks leave out what others broke.
        soon = 1 if config.attacks[cell.attack].expensive else min(_SOON, size.steps)
        yield Job("attack", size, (cell.tolerance, kind), soon, settings)
    for stage, (items, size_of) in _STAGES.items():
        for item in items(config, name):
            at: Mapping[str, Any] = vars(item)
            yield _steady(stage, size_of(config, at), (at.get("tolerance"), "direct"))


def _steady(rule: str, size: Work, step: Step) -> Job:
    """A job whose steps do not depend on what attacks break."""
    return Job(rule, size, step, size.steps)


_STAGES: dict[
    str, tuple[Callable[[Config, str], Iterator[Any]], Callable[[Config, work.Coordinates], Work]]
] = {
    "trajectory": (stages.followed, work.trajectory),
    "audit": (stages.audited, work.audit),
    "reevaluate": (stages.reevaluated, work.reevaluation),
    "randomise": (stages.randomised, work.randomisation),
    "detect": (stages.detected, work.detection),
    "sweep": (stages.swept, work.adjoint_sweep),
    "attack_cost": (stages.cost_attacked, work.cost),
}


def steps(config: Config, name: str) -> dict[Step, Settings]:
    """The steps whose time decides what a run costs, with the settings of an attack that has it."""
    return {job.step: job.settings for job in jobs(config, name) if job.rule == "attack"} | {
        job.step: {} for job in jobs(config, name) if job.rule != "attack"
    }


def costs(config: Config, name: str, seconds: Mapping[Step, float], *, soon: bool) -> Costs:
    """What an experiment costs.

    Args:
        config: the configuration.
        name: of the experiment.
        seconds: what each of `steps` takes for one image.
        soon: whether attacks break every image soon, or none.
    """
    counted: Counter[str] = Counter()
    spent: dict[str, float] = {}
    for job in jobs(config, name):
        counted[job.rule] += 1
        taken = job.work.images * (job.soon if soon else job.work.steps) * seconds[job.step]
        spent[job.rule] = spent.get(job.rule, 0.0) + taken
    size = _FIXED_BYTES + _JOB_BYTES * counted.total() + _images(config, name)
    return Costs(counted, spent, size)


def _images(config: Config, name: str) -> float:
    """The bytes of images and states in the files of attacks and trajectories."""
    total = 0.0
    followed = set(stages.followed(config, name))
    for cell in cells.cells(config, name):
        size = work.size_of(config, cell.dataset)
        tested = work.evaluation(config, vars(cell)).images
        total += tested * size.channels * size.pixels * _FLOAT
        if cell in followed:
            total += work.trajectory(config, vars(cell)).images * _FOLLOWED_BYTES
    return total
