# One attack on one model at one tolerance, norm and epsilon: a cell of the grid. Of many images it is
# made in shards, side by side, and merged to the same file.
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
    wildcard_constraints:
        dataset=one_of(CONFIG.datasets.keys() - SPLIT),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(attack_work),
        runtime=minutes(attack_work),
    params:
        code=code_of("attack", "merge", modules=methods),
        coordinates=coordinates,
        settings=attack_settings,
        images=tested_images,
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/attack.py"


rule attack_shard:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        source=source_model,
        cheaper=cheaper_attacks,
    output:
        attack=SHARD if CONFIG.compute.keep_shards else temp(SHARD),
    log:
        logs(
            "attack_shard",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}/{shard}",
        ),
    benchmark:
        benchmarks(
            "attack_shard",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}/{shard}",
        )
    wildcard_constraints:
        dataset=one_of(SPLIT),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(shard_work),
        runtime=minutes(shard_work),
    params:
        code=code_of("attack", modules=methods),
        coordinates=coordinates,
        settings=attack_settings,
        images=images_of_part,
        part=part,
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}, images {wildcards.shard}"
    script:
        "../scripts/attack.py"


rule merge:
    input:
        data=DATA,
        shards=shards,
    output:
        attack=f"{CELL}/attack.h5",
    log:
        logs(
            "merge",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "merge",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        )
    wildcard_constraints:
        dataset=one_of(SPLIT),
    localrule: True
    params:
        # Those of `attack`, so that the file counts as made by either.
        code=code_of("attack", "merge", modules=methods),
        coordinates=coordinates,
        settings=attack_settings,
        images=tested_images,
    message:
        "Merging the shards of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/merge.py"
