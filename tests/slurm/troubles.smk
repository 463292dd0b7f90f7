# What goes wrong on a cluster, one rule each: all but `broken` succeed at their second attempt.
# A file named {rule}.started says that the shell command of a rule runs, and how often it did.


rule all:
    input:
        expand(
            "{rule}.done",
            rule=["time", "memory", "cancelled", "preempted", "lost", "broken"],
        ),


def tries(wildcards, attempt):
    return attempt


rule time:
    output:
        "time.done",
    resources:
        runtime=lambda wildcards, attempt: 2**attempt,
        tries=tries,
    shell:
        "echo >> time.started; [ {resources.tries} = 2 ] || sleep 500; touch {output}"


rule memory:
    output:
        "memory.done",
    log:
        "memory.log",
    resources:
        mem_mb=lambda wildcards, attempt: 600 * attempt,
    shell:
        "python3 -c 'import time; x = b\"1\" * 600_000_000; time.sleep(4)' 2> {log}; touch {output}"


rule cancelled:
    output:
        "cancelled.done",
    resources:
        tries=tries,
    shell:
        "echo >> cancelled.started; [ {resources.tries} = 2 ] || sleep 500; touch {output}"


rule preempted:
    output:
        "preempted.done",
    resources:
        slurm_partition="spot",
    shell:
        "echo >> preempted.started; [ $(wc -l < preempted.started) = 2 ] || sleep 500; touch {output}"


rule lost:
    output:
        "lost.done",
    resources:
        slurm_partition="lost",
    shell:
        "echo >> lost.started; [ $(wc -l < lost.started) = 2 ] || sleep 500; touch {output}"


rule broken:
    output:
        "broken.done",
    log:
        "broken.log",
    shell:
        "echo half > {output}; echo 'error: the reason' > {log}; exit 1"
