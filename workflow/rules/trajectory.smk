# The hidden states of clean, attacked and noisy images along the body, and where the margin is lost.
# Needs: data.h5, a model, attack.h5. Makes: probe.h5, trajectory.h5.


rule probe:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        probe=result(SOLVED, "probe.h5"),
    log:
        paths.log("probe", SOLVED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.evaluation),
        runtime=minutes(work.evaluation),
    params:
        code=code_of("probe"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.probe),
    message:
        "Fitting probes of h(t) of {wildcards.model} (seed {wildcards.seed}) at tau "
        "{wildcards.tolerance}"
    script:
        "../scripts/probe.py"


rule trajectory:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
        attack=ATTACK,
        probe=of_job(inputs.probe),
    output:
        trajectory=result(CELL, "trajectory.h5"),
    log:
        paths.log("trajectory", CELL),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.trajectory),
        runtime=minutes(work.trajectory),
    params:
        code=code_of("trajectory"),
        coordinates=of_job(params.coordinates),
        follow=of_job(params.follow),
    message:
        "Following h(t) of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}: "
        "{wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/trajectory.py"
