# One attack on one model at one tolerance, norm and epsilon: a cell of the grid.
# Needs: data.h5, a model, the model whose adversarials are transferred, and the attack.h5 of cheaper
# attacks whose broken images are left out. Makes: attack.h5.


rule attack:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        source=source_model,
        cheaper=cheaper_attacks,
    output:
        attack=f"{CELL}/attack.h5",
    log:
        logs(
            "attack",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "attack",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        )
    conda:
        ENVIRONMENT
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(attack_work),
        runtime=minutes(attack_work),
    params:
        code=code_of("attack"),
        coordinates=coordinates,
        settings=attack_settings,
        images=tested_images,
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/attack.py"
