# The resources of jobs that compute: GPUs, minutes and megabytes (see profiles/README.md).
# Needs: the configuration. Makes: GPUS, and the functions that the rules name under `resources`.
from node_robustness.scheduling import job_sizes

GPUS = job_sizes.gpus(CONFIG)


def training_work(wildcards):
    """The work of a training job."""
    return job_sizes.training_work(CONFIG, wildcards.dataset, wildcards.model)


def evaluation_work(wildcards):
    """The work of one pass over the test images, for an evaluation or a set of probes."""
    return job_sizes.evaluation_work(CONFIG, wildcards.dataset, 1)


def trajectory_work(wildcards):
    """The work of three runs of every image, of the analysis of growth, and of patches."""
    follow = CONFIG.experiments[wildcards.experiment].trajectories
    return job_sizes.trajectory_work(CONFIG, wildcards.dataset, follow)


def attack_work(wildcards):
    """The work of an attack in one cell."""
    steps = job_sizes.attack_steps(CONFIG, wildcards.attack)
    return job_sizes.evaluation_work(CONFIG, wildcards.dataset, steps)


def shard_work(wildcards):
    """The work of an attack on the images of one shard."""
    steps = job_sizes.attack_steps(CONFIG, wildcards.attack)
    images = Shard.named(wildcards.shard).images
    return job_sizes.evaluation_work(CONFIG, wildcards.dataset, steps, images)


def audit_work(wildcards):
    """The work of an audit: some attacks, and finite differences of four kinds of gradients."""
    audit = CONFIG.experiments[wildcards.experiment].audit
    steps = 6 * audit.iterations + 10 * (audit.directions + 4)
    return job_sizes.evaluation_work(CONFIG, wildcards.dataset, steps, audit.images)


def reevaluate_work(wildcards):
    """The work of evaluating clean and adversarial images at every tolerance."""
    tolerances = CONFIG.experiments[wildcards.experiment].tolerances
    return job_sizes.evaluation_work(
        CONFIG, wildcards.dataset, 2 * (len(tolerances) + 1)
    )


def randomise_work(wildcards):
    """The work of three attacks on drawn tolerances, one of them with several draws a step."""
    drawn = CONFIG.experiments[wildcards.experiment].randomisation
    steps = drawn.iterations * (drawn.draws + 2) + 4 * drawn.evaluation_draws
    return job_sizes.evaluation_work(CONFIG, wildcards.dataset, steps, drawn.images)


def detect_work(wildcards):
    """The work of a plain attack and of one through all tolerances that the detector compares."""
    experiment = CONFIG.experiments[wildcards.experiment]
    steps = experiment.detection.iterations * (len(experiment.tolerances) + 1)
    return job_sizes.evaluation_work(
        CONFIG, wildcards.dataset, steps, experiment.detection.images
    )


def minutes(work):
    """The function that gives `runtime` from the work of a job."""

    @for_each_job
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

    @for_each_job
    def mem_mb(wildcards, attempt):
        return job_sizes.megabytes(
            CONFIG,
            wildcards.dataset,
            wildcards.model,
            work(wildcards),
            attempt=attempt,
        )

    return mem_mb
