# The hidden states of clean, attacked and noisy images along the body, and which part is to blame.
# Needs: data.h5, a model, attack.h5. Makes: probe.h5, trajectory.h5.


rule probe:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        probe=f"{SOLVED}/probe.h5",
    log:
        logs("probe", "{dataset}/{model}/seed-{seed}/tau-{tolerance}"),
    benchmark:
        benchmarks("probe", "{dataset}/{model}/seed-{seed}/tau-{tolerance}")
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(evaluation_work),
        runtime=minutes(evaluation_work),
    params:
        code=code_of("probe"),
        coordinates=coordinates,
        settings=probe_settings,
    message:
        "Fitting probes of h(t) of {wildcards.model} (seed {wildcards.seed}) at tau "
        "{wildcards.tolerance}"
    script:
        "../scripts/probe.py"


rule trajectory:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        attack=f"{CELL}/attack.h5",
        probe=probe,
    output:
        trajectory=f"{CELL}/trajectory.h5",
    log:
        logs(
            "trajectory",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "trajectory",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        )
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(trajectory_work),
        runtime=minutes(trajectory_work),
    params:
        code=code_of("trajectory"),
        coordinates=coordinates,
        follow=follow_settings,
    message:
        "Following h(t) of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}: "
        "{wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/trajectory.py"
