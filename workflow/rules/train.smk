# Models: trained, or imported from a checkpoint.
# Needs: data.h5. Makes: model.safetensors, model.json, history.csv.


def architecture(wildcards):
    """The keys of a model that fix its architecture; those that it does not use are left out."""
    model = CONFIG.models[wildcards.model]
    unused = {"blocks"} if model.body == "ode" else {"solver"}
    return model.model_dump(exclude={"training", "weights"} | unused)


def training(wildcards):
    """The training settings of a model; a model without an ODE has no solver to set."""
    settings = CONFIG.training_of(wildcards.model).model_dump()
    if CONFIG.models[wildcards.model].body != "ode":
        settings |= {"solver": "batched", "gradient": "direct"}
    return settings


rule train:
    input:
        data=DATA,
    output:
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        history=f"{TRAINED}/history.csv",
    params:
        architecture=architecture,
        training=training,
        subset=lambda wildcards: CONFIG.datasets[
            wildcards.dataset
        ].subset.model_dump(exclude={"test"}),
        # Not an output: it must outlive a killed job for the next one to resume from.
        checkpoint=subpath(output.weights, parent=True),
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is None),
    threads: CONFIG.compute.training_threads
    resources:
        mem_mb=2000,
    log:
        logs("train", "{dataset}/{model}/seed-{seed}"),
    benchmark:
        benchmarks("train", "{dataset}/{model}/seed-{seed}")
    conda:
        ENVIRONMENT
    message:
        "Training {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule import_weights:
    input:
        data=DATA,
        checkpoint=lambda wildcards: CONFIG.models[wildcards.model].weights.replace(
            "{seed}", wildcards.seed
        ),
    output:
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    params:
        architecture=architecture,
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is not None),
    log:
        logs("import_weights", "{dataset}/{model}/seed-{seed}"),
    benchmark:
        benchmarks("import_weights", "{dataset}/{model}/seed-{seed}")
    conda:
        ENVIRONMENT
    message:
        "Importing the weights of {wildcards.model} from {input.checkpoint}"
    script:
        "../scripts/import_weights.py"
