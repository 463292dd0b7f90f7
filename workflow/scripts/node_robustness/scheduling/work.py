"""The size of the work of a job, stage by stage; `job_sizes` turns it into minutes and megabytes.

Like `config`, this module must import quickly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from node_robustness.config.config import Config
from node_robustness.grid.shards import Shard
from node_robustness.shapes.datasets import Size, validation_images

Coordinates = Mapping[str, Any]
"""Of a job: the values of its wildcards (`grid.paths.values`)."""

# Your own data are counted when they are prepared.
_UNKNOWN_SIZE = Size(60_000, 10_000, 3, 32 * 32)

_RUNS = 5  # clean, attacked and noisy, and the rates along them
_SHARES = 3 * 16  # of the loss of margin: gradients of three perturbations at sixteen nodes
_PATCHES = 4  # of an interval: repair and insertion, and their controls
_ADJOINT = 6  # an adjoint gradient, in direct ones
# Gradients in double precision, at a tolerance as tight as that for which the batch was chosen, of
# images that may need more steps than those on which the memory was measured.
_IN_DOUBLE = 3
_CHECKS, _CHECKED_IMAGES = 20, 500  # passes over at most so many images
_CERTIFICATE = 20  # passes over an image, as a guess
_GROWTH = 100  # power iterations and Krylov spaces of an image, in gradient steps


@dataclass(frozen=True)
class Work:
    """The size of a job's work.

    Attributes:
        images: how many it goes through, at least 0.
        steps: gradient steps, epochs or plain passes over them.
        batch_size: images at a time; None: as many as fit into `compute.memory_mb`.
        batches: the memory that it takes, in times that of a gradient of so many images.
    """

    images: int
    steps: int
    batch_size: int | None
    batches: int = 1


def training(config: Config, at: Coordinates) -> Work:
    """The work of training a model."""
    settings = config.training_of(at["model"])
    images = config.datasets[at["dataset"]].subset.train or size_of(config, at["dataset"]).train
    return Work(images, settings.epochs, settings.batch_size)


def check(config: Config, at: Coordinates) -> Work:
    """The work of the checks of an own model."""
    return passes(config, at, _CHECKS, _CHECKED_IMAGES)


def evaluation(config: Config, at: Coordinates) -> Work:
    """The work of one pass over the test images, for an evaluation or a set of probes."""
    return passes(config, at, 1)


def probing(config: Config, at: Coordinates) -> Work:
    """The work of one pass over the validation images, to which probes are fitted."""
    dataset = config.datasets[at["dataset"]]
    held_out = validation_images(dataset.validation, size_of(config, at["dataset"]).train)
    return Work(dataset.subset.validation or held_out, 1, config.compute.batch_size)


def attack(config: Config, at: Coordinates) -> Work:
    """The work of an attack in one cell: its steps or queries at most, and their evaluation."""
    return passes(config, at, config.attacks[at["attack"]].steps(config.attacks) + 1)


def shard(config: Config, at: Coordinates) -> Work:
    """The work of an attack on the images of one shard."""
    whole = attack(config, at)
    return replace(whole, images=min(Shard.named(at["shard"]).images, whole.images))


def trajectory(config: Config, at: Coordinates) -> Work:
    """The work of the runs, a stronger attack and shares of all images; of growth; of patches."""
    follow = config.experiments[at["experiment"]].trajectories
    assert follow is not None
    every = passes(config, at, 1, follow.images)
    intervals = follow.intervals * (follow.intervals + 1) // 2
    expensive = follow.growth * _GROWTH + follow.causal * _PATCHES * intervals
    steps = _RUNS + follow.strengthen + _SHARES + math.ceil(expensive / max(every.images, 1))
    return replace(every, steps=steps)


def audit(config: Config, at: Coordinates) -> Work:
    """The work of an audit: attacks in every norm, and finite differences along all gradients."""
    experiment = config.experiments[at["experiment"]]
    section = experiment.audit
    assert section is not None
    by_norm = _ADJOINT * section.iterations + section.iterations + section.apgd_iterations
    steps = len(experiment.norms) * by_norm + 8 * section.iterations + 10 * (section.directions + 4)
    return replace(passes(config, at, steps, section.images), batches=_IN_DOUBLE)


def reevaluation(config: Config, at: Coordinates) -> Work:
    """The work of evaluating clean and adversarial images at every tolerance."""
    return passes(config, at, 2 * (len(config.experiments[at["experiment"]].tolerances) + 1))


def randomisation(config: Config, at: Coordinates) -> Work:
    """The work of three attacks on drawn tolerances, one of them with several draws a step."""
    section = config.experiments[at["experiment"]].randomisation
    assert section is not None
    steps = section.iterations * (section.draws + 2) + 4 * section.evaluation_draws
    return passes(config, at, steps, section.images)


def detection(config: Config, at: Coordinates) -> Work:
    """The work of two attacks, and of searches through all tolerances that a detector compares."""
    experiment = config.experiments[at["experiment"]]
    section = experiment.detection
    assert section is not None
    searched = section.searches * section.search_iterations * len(experiment.tolerances)
    return passes(config, at, 2 * section.iterations + searched, section.images)


def adjoint_sweep(config: Config, at: Coordinates) -> Work:
    """The work of the paper's attack with a direct gradient and with every adjoint."""
    experiment = config.experiments[at["experiment"]]
    section, name = experiment.adjoint_sweep, experiment.papers_attack
    assert section is not None
    assert name is not None
    steps = config.attacks[name].steps(config.attacks) + 2  # the evaluation, and a clean gradient
    return passes(config, at, steps * (len(section.backward_tolerances) + 1), section.images)


def cost(config: Config, at: Coordinates) -> Work:
    """The work of a random search and a climb for images that cost more."""
    section = config.experiments[at["experiment"]].cost
    assert section is not None
    return passes(config, at, section.queries + 2 * section.iterations + 2, section.images)


def certification(config: Config, at: Coordinates) -> Work:
    """The work of a proof of robustness: what it does is not known before it has run."""
    return passes(config, at, _CERTIFICATE)


def passes(config: Config, at: Coordinates, steps: int, images: int | None = None) -> Work:
    """The work of so many gradient steps, or passes, over some of the test images, or all."""
    dataset = config.datasets[at["dataset"]]
    tested = dataset.subset.test or size_of(config, at["dataset"]).test
    return Work(min(images or tested, tested), steps, config.compute.batch_size)


def size_of(config: Config, dataset: str) -> Size:
    """How many images a dataset has and how large they are, or a guess before they are counted."""
    return config.datasets[dataset].size or _UNKNOWN_SIZE
