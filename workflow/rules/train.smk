# Models: trained, or imported from a checkpoint; own models are checked before anything is measured.
# Needs: data.h5. Makes: model.safetensors, model.json, history.csv, checked.json.


rule train:
    input:
        data=DATA,
    output:
        weights=WEIGHTS,
        spec=SPEC,
        history=result(TRAINED, "history.csv"),
    log:
        paths.log("train", TRAINED),
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is None),
    priority: TRAINING
    threads: CONFIG.compute.training_threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.training),
        runtime=minutes(work.training),
    params:
        code=code_of("train"),
        architecture=of_job(params.architecture),
        training=of_job(params.training),
        subset=of_job(params.training_subset),
        # Not an output: it must survive a killed job, so that the next one resumes.
        checkpoint=subpath(output.weights, parent=True),
    message:
        "Training {wildcards.model} on {wildcards.dataset}, seed {wildcards.seed}"
    script:
        "../scripts/train.py"


rule import_weights:
    input:
        data=DATA,
        # The user's file: where this workflow is a module it has no prefix.
        checkpoint=lambda wildcards: local(of_job(params.checkpoint)(wildcards)),
    output:
        weights=WEIGHTS,
        spec=SPEC,
    log:
        paths.log("import_weights", TRAINED),
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.weights is not None),
    # A mistake in a file is reported before others are trained.
    priority: BEFORE_TRAINING
    params:
        code=code_of("import_weights"),
        checkpoint=of_job(params.checkpoint),
        architecture=of_job(params.architecture),
    message:
        "Importing the weights of {wildcards.model} from {input.checkpoint}"
    script:
        "../scripts/import_weights.py"


rule check_model:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
    output:
        checked=result(TRAINED, "checked.json"),
    log:
        paths.log("check_model", TRAINED),
    wildcard_constraints:
        model=one_of(name for name, m in CONFIG.models.items() if m.is_own),
    priority: BEFORE_TRAINING
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.check),
        runtime=minutes(work.check),
    params:
        code=code_of("check_model"),
        coordinates=of_job(params.coordinates),
        architecture=of_job(params.architecture),
    message:
        "Checking {wildcards.model} (seed {wildcards.seed}) on {wildcards.dataset}"
    script:
        "../scripts/check_model.py"
