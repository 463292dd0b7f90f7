"""What a job asks a scheduler for: minutes and megabytes, from the size of its work.

These are requests and no predictions. A queue ends a job that asked for too little, so they are
generous, and they double with every attempt. Like `config`, this module must import quickly.

`_SECONDS` was measured on one core of an AMD EPYC: adjoint gradients of untrained networks of 64
and 128 filters, on images of 28x28 and 32x32, at tolerance 1e-4, where a solve took 44 evaluations.
That a GPU is worth ten such cores is an assumption, on the low side.
"""

import math
from dataclasses import dataclass, replace

from node_robustness.config.config import Config
from node_robustness.config.experiment import Trajectories
from node_robustness.shapes.datasets import Size

# Your own data are counted when they are prepared.
_UNKNOWN_SIZE = Size(60_000, 10_000, 3, 32 * 32)

_START_MINUTES = 10
_START_MEGABYTES = 2000
# Of a function evaluation and its adjoint, for each pair of filters and each pixel of the image.
_SECONDS = 5e-10
_SMALLEST_SECONDS = 5e-3  # of one image in one step, however small the network
_EVALUATIONS = {"ode": 100, "residual": 10}
_CORES_OF_A_GPU = 10
_DEFAULT_MEGABYTES = 1000  # for the images of a batch, as in `memory`
_MAPS = 100  # feature maps of the body's size that a gradient keeps, for an image in a batch
_BYTES = 4
_RUNS = 5  # clean, attacked and noisy, and the rates along them
_PATCHES = 4  # of an interval: repair and insertion, and their controls
_GROWTH = 100  # power iterations and Krylov spaces of an image, in gradient steps


@dataclass(frozen=True)
class Work:
    """The size of a job's work.

    Attributes:
        images: how many it goes through, at least 0.
        steps: gradient steps, epochs or plain passes over them.
        batch_size: images at a time; None: as many as fit into `compute.memory_mb`.
    """

    images: int
    steps: int
    batch_size: int | None


def training_work(config: Config, dataset: str, model: str) -> Work:
    """The work of training a model."""
    settings = config.training_of(model)
    images = config.datasets[dataset].subset.train or _size(config, dataset).train
    return Work(images, settings.epochs, settings.batch_size)


def evaluation_work(config: Config, dataset: str, steps: int, images: int | None = None) -> Work:
    """The work of so many gradient steps, or passes, over some of the test images, or all."""
    tested = config.datasets[dataset].subset.test or _size(config, dataset).test
    return Work(min(images or tested, tested), steps, config.compute.batch_size)


def attack_steps(config: Config, name: str) -> int:
    """The gradient steps or queries of an attack on each image, at most, and their evaluation."""
    return config.attacks[name].steps(config.attacks) + 1


def trajectory_work(config: Config, dataset: str, follow: Trajectories) -> Work:
    """The work of three runs of every image, and of what is expensive for some of them."""
    every = evaluation_work(config, dataset, 1, follow.images)
    intervals = follow.intervals * (follow.intervals + 1) // 2
    expensive = follow.growth * _GROWTH + follow.causal * _PATCHES * intervals
    return replace(every, steps=_RUNS + math.ceil(expensive / max(every.images, 1)))


def minutes(
    config: Config, dataset: str, model: str, work: Work, *, threads: int, attempt: int
) -> int:
    """The wall time to ask for, in minutes, at least 10; twice as much at each further attempt.

    Args:
        config: the configuration.
        dataset: a name from its datasets.
        model: a name from its models.
        work: what is done with them.
        threads: CPU threads of the job, without effect where it asks for a GPU.
        attempt: 1 at first.
    """
    net = config.models[model]
    step = _SECONDS * net.filters**2 * _size(config, dataset).pixels * _EVALUATIONS[net.body]
    cores = _CORES_OF_A_GPU if gpus(config) else threads
    seconds = work.images * work.steps * max(step, _SMALLEST_SECONDS) / cores
    return _grown(_START_MINUTES + math.ceil(seconds / 60), attempt)


def megabytes(config: Config, dataset: str, model: str, work: Work, *, attempt: int) -> int:
    """The memory to ask for, in MB, at least 2000; twice as much at each further attempt.

    The arguments are those of `minutes`.
    """
    size = _size(config, dataset)
    images = work.images * size.channels * size.pixels * _BYTES / 1e6
    if work.batch_size is None:
        batch: float = config.compute.memory_mb or _DEFAULT_MEGABYTES
    else:
        maps = min(work.batch_size, work.images) * config.models[model].filters * size.pixels / 4
        batch = maps * _MAPS * _BYTES / 1e6
    return _grown(_START_MEGABYTES + math.ceil(images + batch), attempt)


def gpus(config: Config) -> int:
    """How many GPUs a job that computes asks for: one, unless the configuration wants none."""
    return int(config.compute.device in ("auto", "cuda"))


def _grown(first: int, attempt: int) -> int:
    return first * int(2 ** (attempt - 1))


def _size(config: Config, dataset: str) -> Size:
    return config.datasets[dataset].size or _UNKNOWN_SIZE
