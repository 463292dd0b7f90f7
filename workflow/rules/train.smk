# Models: trained, or imported from a checkpoint.
# Needs: data.h5. Makes: model.safetensors, model.json, history.csv.


rule train:
    input:
        data=DATA,
    output:
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        history=f"{TRAINED}/history.csv",
    log:
        logs("train", "{dataset}/{model}/seed-{seed}"),
    benchmark:
        benchmarks("train", "{dataset}/{model}/seed-{seed}")
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is None),
    threads: CONFIG.compute.training_threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(training_work),
        runtime=minutes(training_work),
    params:
        code=code_of("train"),
        architecture=architecture,
        training=training,
        subset=lambda wildcards: CONFIG.datasets[wildcards.dataset].subset.model_dump(
            exclude={"test"}
        ),
        # Not an output: it must outlive a killed job for the next one to resume from.
        checkpoint=subpath(output.weights, parent=True),
    message:
        "Training {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule import_weights:
    input:
        data=DATA,
        # The user's own file: to a workflow with this one as a module it has no prefix.
        checkpoint=lambda wildcards: local(imported(wildcards)),
    output:
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    log:
        logs("import_weights", "{dataset}/{model}/seed-{seed}"),
    benchmark:
        benchmarks("import_weights", "{dataset}/{model}/seed-{seed}")
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is not None),
    params:
        code=code_of("import_weights"),
        checkpoint=imported,
        architecture=architecture,
    message:
        "Importing the weights of {wildcards.model} from {input.checkpoint}"
    script:
        "../scripts/import_weights.py"
