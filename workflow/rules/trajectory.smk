# The hidden states of clean and adversarial images along the ODE block.
# Needs: data.h5, a model, attack.h5. Makes: trajectory.h5.


rule trajectory:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        attack=f"{CELL}/attack.h5",
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
    conda:
        ENVIRONMENT
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(evaluation_work),
        runtime=minutes(evaluation_work),
    params:
        code=code_of("trajectory"),
        coordinates=coordinates,
        follow=followed,
    message:
        "Following h(t) of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}: "
        "{wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/trajectory.py"
