# Clean evaluation of every model at every tolerance.
# Needs: data.h5, a model. Makes: clean.h5.


rule evaluate:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        clean=f"{SOLVED}/clean.h5",
    log:
        logs("evaluate", "{dataset}/{model}/seed-{seed}/tau-{tolerance}"),
    benchmark:
        benchmarks("evaluate", "{dataset}/{model}/seed-{seed}/tau-{tolerance}")
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(evaluation_work),
        runtime=minutes(evaluation_work),
    params:
        code=code_of("evaluate"),
        coordinates=coordinates,
        images=tested_images,
    message:
        "Evaluating {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}"
    script:
        "../scripts/evaluate.py"
