# Clean evaluation of every model at every tolerance.
# Needs: data.h5, a model. Makes: clean.h5.


rule evaluate:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        clean=result(SOLVED, "clean.h5"),
    log:
        paths.log("evaluate", SOLVED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.evaluation),
        runtime=minutes(work.evaluation),
    params:
        code=code_of("evaluate"),
        coordinates=of_job(params.coordinates),
        images=of_job(params.tested_images),
    message:
        "Evaluating {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}"
    script:
        "../scripts/evaluate.py"
