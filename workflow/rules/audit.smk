# What tells robustness from a hidden gradient: gradients compared, attacks checked, adversarials
# judged at other tolerances, and two defences by the tolerance with attackers that know of them.
# Needs: data.h5, a model, attack.h5. Makes: audit.h5, judged.h5, randomised.h5, detection.h5.


rule audit:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        audit=f"{SOLVED}/audit.h5",
    log:
        logs("audit", "{dataset}/{model}/seed-{seed}/tau-{tolerance}"),
    benchmark:
        benchmarks("audit", "{dataset}/{model}/seed-{seed}/tau-{tolerance}")
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(audit_work),
        runtime=minutes(audit_work),
    params:
        code=code_of("audit"),
        coordinates=coordinates,
        settings=audit_settings,
    message:
        "Auditing the gradients of {wildcards.model} (seed {wildcards.seed}) at tau {wildcards.tolerance}"
    script:
        "../scripts/audit.py"


rule judge:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
        attack=f"{CELL}/attack.h5",
    output:
        judged=f"{CELL}/judged.h5",
    log:
        logs(
            "judge",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "judge",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        )
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(judge_work),
        runtime=minutes(judge_work),
    params:
        code=code_of("judge"),
        coordinates=coordinates,
        tolerances=judging_tolerances,
    message:
        "Judging at every tolerance the adversarials of {wildcards.model} (seed {wildcards.seed}) "
        "from tau {wildcards.tolerance}: {wildcards.attack}, {wildcards.norm} "
        "epsilon {wildcards.epsilon}"
    script:
        "../scripts/judge.py"


rule randomise:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        randomised=f"{TRAINED}/randomised/{{norm}}/eps-{{epsilon}}/randomised.h5",
    log:
        logs("randomise", "{dataset}/{model}/seed-{seed}/{norm}/eps-{epsilon}"),
    benchmark:
        benchmarks("randomise", "{dataset}/{model}/seed-{seed}/{norm}/eps-{epsilon}")
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(randomise_work),
        runtime=minutes(randomise_work),
    params:
        code=code_of("randomise"),
        coordinates=coordinates,
        settings=randomisation_settings,
    message:
        "Attacking {wildcards.model} (seed {wildcards.seed}) while its tolerance is drawn: "
        "{wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/randomise.py"


rule detect:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        detection=f"{SOLVED}/detection/{{norm}}/eps-{{epsilon}}/detection.h5",
    log:
        logs(
            "detect",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "detect",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{norm}/eps-{epsilon}",
        )
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(detect_work),
        runtime=minutes(detect_work),
    params:
        code=code_of("detect"),
        coordinates=coordinates,
        settings=detection_settings,
    message:
        "Detecting adversarials of {wildcards.model} (seed {wildcards.seed}) at tau "
        "{wildcards.tolerance} by other tolerances: {wildcards.norm} epsilon {wildcards.epsilon}"
    script:
        "../scripts/detect.py"
