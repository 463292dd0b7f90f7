"""How long a job takes: its steps, the network, its solver, and the speed of the machine.

An estimate for a run that nobody has timed. What jobs took then corrects it (`time_left`).
`_OPERATIONS` and the like were measured on one core of an AMD EPYC, with 16 filters on images of
8x8 and with 64 on 28x28. Of own models nothing is known before they are built, so that they count
like a built-in one.

Like `config`, this module must import quickly (no torch).
"""

import math
from math import prod

from node_robustness.config.config import Config
from node_robustness.config.models import AnyModel, Model
from node_robustness.scheduling.speed import Speed
from node_robustness.scheduling.steps import Job
from node_robustness.scheduling.work import size_of
from node_robustness.shapes.networks import STEM, state_size

# Operations of a second, in convolutions. What there is besides them, such as normalisation and the
# sums of the solver, costs as much as so many more channels.
_OPERATIONS = 450e9
_BESIDES = 100
_CALL = 3e-4  # seconds of an evaluation of the ODE function, of however few images
_OUTSIDE = 3  # as many calls has a pass outside the ODE
_AT_A_TIME = 256  # images in a batch, about, where memory decides
_PARALLEL = 0.8  # the exponent of the threads: two are 1.7 times as fast as one

# Evaluations of an image by dopri5, up to a tolerance.
_EVALUATIONS = {1e-6: 80, 1e-5: 50, 1e-4: 32, 1e-3: 25, 1e-2: 20, 1e-1: 17, math.inf: 14}
_OWN_TOLERANCE = 1e-3  # of the authors' own settings, as a guess
_OWN_LAYERS = 12  # of an own model without an ODE, as a guess
_FIXED_STAGES = 4  # of a step of fixed length, at most

# A step in forward passes: what of it is calls, and what is operations.
_FORWARDS = {
    "forward": (1.0, 1.0),
    "direct": (2.2, 2.2),
    "adjoint": (20.0, 8.0),
    "training": (2.0, 2.5),
}
_TRAINING_BY_TORCHDIFFEQ = {"direct": (5.0, 5.0), "adjoint": (20.0, 10.0)}

# The share of a job's steps that it takes, where `work` has a bound: an attack is done with images
# that it broke, and leaves out those that others broke.
_TAKEN = {
    "attack": 0.6,
    "attack_shard": 0.6,
    "audit": 0.55,
    "trajectory": 0.7,
    "randomise": 0.5,
    "detect": 0.6,
    "sweep": 0.6,
}

# Seconds until Python, PyTorch and the model are there, with and without a warm start, and of what
# Snakemake does for a job besides.
_START = {True: 0.25, False: 1.8}
_PROBE, _PROBED_IMAGE = 0.025, 3e-5  # seconds of the fit at one time, and of each image
# Seconds of the jobs that collect, and how many more with each cell. The other jobs that compute
# with no model take little more than their start.
_COLLECTING = {
    "bundle": (1.2, 0.0),
    "tables": (1.0, 0.016),
    "figures": (2.0, 0.012),
    "stills": (3.0, 0.02),
    "report": (2.0, 0.01),
    "page": (1.0, 0.002),
}


def start(speed: Speed, *, warm: bool) -> float:
    """Seconds until a job does its work.

    Args:
        speed: of the machine.
        warm: whether it has a warm start.
    """
    return _START[warm] / speed.calls


def collecting(rule: str, cells: int, speed: Speed) -> float:
    """Seconds of a job that computes with no model, after its start, in a grid of so many cells."""
    alone, each = _COLLECTING.get(rule, (0.0, 0.0))
    return (alone + each * cells) / speed.calls


def computing(config: Config, job: Job, speed: Speed, threads: int = 1) -> float:
    """Seconds in which a job computes, after its start."""
    tolerance, kind = job.step
    done = [(kind, tolerance)]
    if kind == "surrogate":
        done = [("direct", job.settings["surrogate"].get("tolerance")), ("forward", tolerance)]
    steps = job.work.steps * _TAKEN.get(job.rule, 1.0)
    passes = sum(_one_step(config, job, *what, speed, threads) for what in done)
    return steps * passes + fits(config, job, speed)


def fits(config: Config, job: Job, speed: Speed) -> float:
    """Seconds of what a job computes besides its steps: the fits of linear probes."""
    follow = config.experiments[job.at["experiment"]].trajectories
    if job.rule != "probe" or follow is None:
        return 0.0
    times = follow.times if isinstance(follow.times, int) else len(follow.times)
    return times * (_PROBE + _PROBED_IMAGE * job.work.images) / speed.arithmetic


def _one_step(
    config: Config, job: Job, kind: str, tolerance: float | None, speed: Speed, threads: int
) -> float:
    """Seconds of one step of a job on all its images."""
    model = config.models[job.at["model"]]
    images, at_a_time = job.work.images, job.work.batch_size or _AT_A_TIME
    if not model.stepped_alone and kind != "training":
        at_a_time = model.joint_images
    evaluations = _evaluations(model, tolerance)
    outside, each = _operations(config, job)
    calls = math.ceil(images / at_a_time) * (evaluations + _OUTSIDE) * _CALL / speed.calls
    numbers = images * (outside + evaluations * each) / _OPERATIONS / speed.arithmetic
    called, operated = _forwards(config, job, kind)
    return called * calls + operated * numbers / math.pow(threads, _PARALLEL)


def _forwards(config: Config, job: Job, kind: str) -> tuple[float, float]:
    """How many forward passes take as long as the calls, and the operations, of a step."""
    if kind == "training":
        training = config.training_of(job.at["model"])
        if training.solver == "torchdiffeq" and config.models[job.at["model"]].has_ode:
            return _TRAINING_BY_TORCHDIFFEQ[training.gradient]
    return _FORWARDS[kind]


def _evaluations(model: AnyModel, tolerance: float | None) -> int:
    """How often the body of a model is evaluated in a pass."""
    if isinstance(model, Model):
        if not model.has_ode:
            return model.blocks
        if model.solver.steps is not None:
            return model.solver.steps * _FIXED_STAGES
    elif not model.has_ode:
        return _OWN_LAYERS
    tight = tolerance or model.training_tolerance or _OWN_TOLERANCE
    return next(count for bound, count in _EVALUATIONS.items() if tight <= bound)


def _operations(config: Config, job: Job) -> tuple[float, float]:
    """Of a pass of one image: outside the body, and of each of its evaluations."""
    model = config.models[job.at["model"]]
    channels, height, width = size_of(config, job.at["dataset"]).image_shape
    downsampling = model.downsampling if isinstance(model, Model) else "convolution"
    state = max(prod(state_size(downsampling, height, width)), 1)
    body = model.channels
    each = 2 * _convolution(state, body, body)
    if downsampling == "convolution":
        return _convolution(state, channels, body, kernel=16), each
    # A layer, and two blocks that halve its images.
    first = _convolution((height - 2) * (width - 2), channels, STEM)
    halved = 2 * _convolution(4 * state, STEM, STEM)
    return first + halved + _convolution(state, STEM, body) + _convolution(state, body, body), each


def _convolution(pixels: int, read: int, written: int, kernel: int = 9) -> float:
    """Operations of a convolution, with what follows it."""
    return 2 * kernel * pixels * (read + _BESIDES) * written
