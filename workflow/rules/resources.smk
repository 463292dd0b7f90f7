# The resources of jobs that compute: GPUs, minutes and megabytes (see profiles/README.md).
# Needs: the configuration. Makes: GPUS, and the functions that the rules name under `resources`.
from node_robustness.scheduling import job_sizes, work

GPUS = job_sizes.gpus(CONFIG)


def minutes(stage):
    """The function that gives `runtime` from the work of a job (`scheduling/work.py`)."""

    @for_each_job
    def runtime(wildcards, threads, attempt):
        at = paths.values(dict(wildcards))
        done = stage(CONFIG, at)
        return job_sizes.minutes(
            CONFIG, at["dataset"], at["model"], done, threads=threads, attempt=attempt
        )

    return runtime


def megabytes(stage):
    """The function that gives `mem_mb` from the work of a job."""

    @for_each_job
    def mem_mb(wildcards, attempt):
        at = paths.values(dict(wildcards))
        done = stage(CONFIG, at)
        return job_sizes.megabytes(
            CONFIG, at["dataset"], at["model"], done, attempt=attempt
        )

    return mem_mb
