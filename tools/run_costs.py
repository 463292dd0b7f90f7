"""What an audit of a model will cost, from what a step was measured to take on it.

How many steps an attack takes depends on what it breaks, so there are two answers: as if it broke
no image, and as if it broke every image soon.
"""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass

from node_robustness.config.config import Config
from node_robustness.grid import cells, stages
from node_robustness.scheduling import rates, work
from node_robustness.scheduling.simulation import Task, wall
from node_robustness.scheduling.speed import of_this_machine
from node_robustness.scheduling.steps import Job, Step, jobs

_JOB_BYTES = 60_000  # log, record and the attributes of a file
_FIXED_BYTES = 20_000_000
_FOLLOWED_BYTES = 30_000  # of an image that is followed, its states excepted
_FLOAT = 4
_CORES = "cores"
_COLLECTED = ("tables", "figures", "report", "stills")  # each waits for the one before


@dataclass(frozen=True)
class Costs:
    """What a run costs.

    Attributes:
        jobs: how many there are of each rule.
        seconds: of one core, or one device, by rule, without the start of the jobs.
        bytes: on the disk.
        tasks: its jobs, with those that compute with no model.
    """

    jobs: Counter[str]
    seconds: Mapping[str, float]
    bytes: float
    tasks: list[Task]

    def wall(self, cores: int) -> float:
        """Seconds from start to end, on so many cores."""
        return wall(self.tasks, {_CORES: cores})


def costs(config: Config, name: str, seconds: Mapping[Step, float], *, soon: bool) -> Costs:
    """What an experiment costs.

    Args:
        config: the configuration.
        name: of the experiment.
        seconds: what each of `steps.kinds` takes for one image.
        soon: whether attacks break every image soon, or none.
    """
    counted: Counter[str] = Counter()
    spent: dict[str, float] = {}
    computing = []
    for job in jobs(config, name):
        taken = job.work.images * (job.soon if soon else job.work.steps) * seconds[job.step]
        counted[job.rule] += 1
        spent[job.rule] = spent.get(job.rule, 0.0) + taken
        computing.append((job, taken))
    size = _FIXED_BYTES + _JOB_BYTES * counted.total() + _images(config, name)
    return Costs(counted, spent, size, [*_tasks(config, name, computing)])


def _tasks(config: Config, name: str, computing: list[tuple[Job, float]]) -> Iterator[Task]:
    """All jobs: training, then the check, then what is measured, then what collects it."""
    speed, cores = of_this_machine(), {_CORES: config.compute.threads}
    start = rates.start(speed, warm=config.compute.warm_start)
    trained, checked = (
        [number for number, (job, _) in enumerate(computing) if job.rule == rule]
        for rule in ("train", "check_model")
    )
    for number, (job, taken) in enumerate(computing):
        before = {"train": [], "check_model": trained}.get(job.rule, [*trained, *checked])
        seconds = start + taken + rates.fits(config, job, speed)
        yield Task(number, seconds, cores, before)
    needs: list[Hashable] = [*range(len(computing))]
    counted = sum(1 for _ in cells.cells(config, name))
    for rule in _COLLECTED:
        yield Task(rule, start + rates.collecting(rule, counted, speed), {_CORES: 1}, needs)
        needs = [rule]


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
