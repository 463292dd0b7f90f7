# Is a model robust, or only its gradient hidden? Gradients are compared, attacks checked, adversarial
# examples classified at other tolerances, two defences by the tolerance attacked with knowledge, the
# adjoint solved at other tolerances, the number of function evaluations attacked, and own models asked
# for their certificates.
# Needs: data.h5, a model, attack.h5. Makes: audit.h5, reevaluated.h5, randomised.h5, detection.h5,
# adjoint_sweep.h5, cost.h5, certified.h5.


rule audit:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        audit=result(SOLVED, "audit.h5"),
    log:
        paths.log("audit", SOLVED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.audit),
        runtime=minutes(work.audit),
    params:
        code=code_of("audit"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.audit),
    message:
        "Auditing the gradients of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}"
    script:
        "../scripts/audit.py"


rule reevaluate:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
        attack=ATTACK,
    output:
        reevaluated=result(CELL, "reevaluated.h5"),
    log:
        paths.log("reevaluate", CELL),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.reevaluation),
        runtime=minutes(work.reevaluation),
    params:
        code=code_of("reevaluate"),
        coordinates=of_job(params.coordinates),
        tolerances=of_job(params.matrix_tolerances),
    message:
        "Evaluating at every tolerance the adversarial examples of {wildcards.model} (seed {wildcards.seed}) "
        "from tau {wildcards.tolerance}: {wildcards.attack}, {wildcards.norm} "
        "epsilon {wildcards.epsilon}"
    script:
        "../scripts/reevaluate.py"


rule randomise:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        randomised=result(RANDOMISED, "randomised.h5"),
    log:
        paths.log("randomise", RANDOMISED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.randomisation),
        runtime=minutes(work.randomisation),
    params:
        code=code_of("randomise"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.randomisation),
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) while its tolerance is drawn: "
        "{wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/randomise.py"


rule detect:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        detection=result(DETECTED, "detection.h5"),
    log:
        paths.log("detect", DETECTED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.detection),
        runtime=minutes(work.detection),
    params:
        code=code_of("detect"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.detection),
    message:
        "Detecting adversarial examples of {wildcards.model} (seed {wildcards.seed}) at tau "
        "{wildcards.tolerance} by other tolerances: {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/detect.py"


rule sweep:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        sweep=result(SWEPT, "adjoint_sweep.h5"),
    log:
        paths.log("sweep", SWEPT),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.adjoint_sweep),
        runtime=minutes(work.adjoint_sweep),
    params:
        code=code_of("sweep", modules=of_job(params.methods)),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.adjoint_sweep),
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance} with the "
        "adjoint solved at other tolerances: {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/sweep.py"


rule attack_cost:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        cost=result(COST, "cost.h5"),
    log:
        paths.log("attack_cost", COST),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.cost),
        runtime=minutes(work.cost),
    params:
        code=code_of("attack_cost"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.cost),
    message:
        "Attacking the cost of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}: "
        "{wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/attack_cost.py"


rule certify:
    input:
        data=DATA,
        weights=WEIGHTS,
        spec=SPEC,
        checked=of_job(inputs.checked),
    output:
        certified=result(CERTIFIED, "certified.h5"),
    log:
        paths.log("certify", CERTIFIED),
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(work.certification),
        runtime=minutes(work.certification),
    params:
        code=code_of("certify"),
        coordinates=of_job(params.coordinates),
        settings=of_job(params.certificate),
    message:
        "Certifying {wildcards.model} (seed {wildcards.seed}): {wildcards.norm} epsilon "
        "{wildcards.epsilon}"
    script:
        "../scripts/certify.py"
