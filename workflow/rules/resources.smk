# What the jobs that compute ask for: GPUs, minutes and megabytes (see profiles/README.md).
# Needs: the configuration. Makes: GPUS, and the functions that the rules name under `resources`.
from node_robustness import job_sizes

GPUS = job_sizes.gpus(CONFIG)


def training_work(wildcards):
    """The work of a training job."""
    return job_sizes.training_work(CONFIG, wildcards.dataset, wildcards.model)


def testing_work(wildcards):
    """The work of one pass over the test images, which an evaluation or a trajectory is."""
    return job_sizes.testing_work(CONFIG, wildcards.dataset, 1)


def attack_work(wildcards):
    """The work of an attack in one cell."""
    steps = job_sizes.attack_steps(CONFIG.attacks[wildcards.attack])
    return job_sizes.testing_work(CONFIG, wildcards.dataset, steps)


def minutes(work):
    """The function that gives `runtime` from the work of a job."""

    def runtime(wildcards, threads, attempt):
        return job_sizes.minutes(
            CONFIG,
            wildcards.dataset,
            wildcards.model,
            work(wildcards),
            threads=threads,
            attempt=attempt,
        )

    return runtime


def megabytes(work):
    """The function that gives `mem_mb` from the work of a job."""

    def mem_mb(wildcards, attempt):
        return job_sizes.megabytes(
            CONFIG,
            wildcards.dataset,
            wildcards.model,
            work(wildcards),
            attempt=attempt,
        )

    return mem_mb
