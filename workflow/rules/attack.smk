# One attack on one model at one tolerance, norm and epsilon: a cell of the grid. An attack on many
# images runs in shards, in parallel, which are merged into the same file.
# Needs: data.h5, a model, the model whose adversarial examples are transferred, and the attack.h5 of
# other attacks whose broken images are left out. Makes: attack.h5.


rule attack:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
        source=of_job(inputs.source_model),
        cheaper=of_job(inputs.cheaper_attacks),
    output:
        attack=ATTACK,
    log:
        paths.log("attack", CELL),
    wildcard_constraints:
        dataset=one_of(CONFIG.datasets.keys() - SPLIT),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.attack),
        runtime=minutes(work.attack),
    params:
        code=code_of("attack", "merge", modules=of_job(params.methods)),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.attack),
        images=of_job(params.tested_images),
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/attack.py"


rule attack_shard:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
        source=of_job(inputs.source_model),
        cheaper=of_job(inputs.cheaper_attacks),
    output:
        attack=SHARD_FILE if CONFIG.compute.keep_shards else temp(SHARD_FILE),
    log:
        paths.log("attack_shard", SHARD),
    wildcard_constraints:
        dataset=one_of(SPLIT),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.shard),
        runtime=minutes(work.shard),
    params:
        code=code_of("attack", modules=of_job(params.methods)),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.attack),
        images=of_job(params.images_of_part),
        part=of_job(params.part),
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}, images {wildcards.shard}"
    script:
        "../scripts/attack.py"


rule merge:
    input:
        data=DATA,
        shards=of_job(inputs.shards_of),
    output:
        attack=ATTACK,
    log:
        paths.log("merge", CELL),
    wildcard_constraints:
        dataset=one_of(SPLIT),
    localrule: True
    params:
        # Those of `attack`, so that either rule may have made the file.
        code=code_of("attack", "merge", modules=of_job(params.methods)),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.attack),
        images=of_job(params.tested_images),
    message:
        "Merging the shards of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} "
        "by {wildcards.attack}, {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/merge.py"
