"""What a job asks a scheduler for: minutes and megabytes, from the size of its work.

These are requests and no predictions. A queue ends a job that asked for too little, so they are
generous, and they double with every attempt. Like `config`, this module must import quickly.

`_SECONDS` was measured on one core of an AMD EPYC: adjoint gradients of untrained networks of 64
and 128 filters, on images of 28x28 and 32x32, at tolerance 1e-4, where a solve took 44 evaluations.
That a GPU is worth ten such cores is an assumption, on the low side.
"""

import math

from node_robustness.config.config import Config
from node_robustness.scheduling.work import Work, size_of

_START_MINUTES = 10
# Without a GPU a process takes 200 to 500 MB before its first batch, and jobs on MNIST took up to
# 400 MB more than what is counted. With a GPU CUDA's libraries come on top.
_START_MEGABYTES = {False: 1000, True: 2000}
# Of a function evaluation and its adjoint, for each pair of filters and each pixel of the image.
_SECONDS = 5e-10
_SMALLEST_SECONDS = 5e-3  # of one image in one step, however small the network
_EVALUATIONS = {True: 100, False: 10}  # with an ODE, and without
_CORES_OF_A_GPU = 10
_DEFAULT_MEGABYTES = 1000  # for the images of a batch, as in `memory`
_MAPS = 100  # feature maps of the body's size that a gradient keeps, for an image in a batch
_BYTES = 4


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
    step = _SECONDS * net.channels**2 * size_of(config, dataset).pixels * _EVALUATIONS[net.has_ode]
    cores = _CORES_OF_A_GPU if gpus(config) else threads
    seconds = work.images * work.steps * max(step, _SMALLEST_SECONDS) / cores
    return _grown(_START_MINUTES + math.ceil(seconds / 60), attempt)


def megabytes(config: Config, dataset: str, model: str, work: Work, *, attempt: int) -> int:
    """The memory to ask for, in MB; twice as much at each further attempt.

    At least 1000 MB, or 2000 MB where a GPU is asked for.

    The arguments are those of `minutes`.
    """
    size = size_of(config, dataset)
    images = work.images * size.channels * size.pixels * _BYTES / 1e6
    if work.batch_size is None:
        batch: float = config.compute.memory_mb or _DEFAULT_MEGABYTES
    else:
        maps = min(work.batch_size, work.images) * config.models[model].channels * size.pixels / 4
        batch = maps * _MAPS * _BYTES / 1e6
    start = _START_MEGABYTES[gpus(config) > 0]
    return _grown(start + math.ceil(images + work.batches * batch), attempt)


def gpus(config: Config) -> int:
    """How many GPUs a job that computes asks for: one, unless the configuration wants none."""
    return int(config.compute.device in ("auto", "cuda"))


def _grown(first: int, attempt: int) -> int:
    return first * int(2 ** (attempt - 1))
