# What the paper's procedure takes, one image at a time: the time that a run is compared with.
# Needs: data.h5, a model. Makes: pace.h5.


rule pace:
    input:
        data=DATA,
        weights=f"{TRAINED}/model.safetensors",
        spec=f"{TRAINED}/model.json",
    output:
        pace=f"{CELL}/pace.h5",
    log:
        logs(
            "pace",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        ),
    benchmark:
        benchmarks(
            "pace",
            "{dataset}/{model}/seed-{seed}/tau-{tolerance}/{attack}/{norm}/eps-{epsilon}",
        )
    threads: CONFIG.compute.threads
    resources:
        gpu=GPUS,
        mem_mb=megabytes(pace_work),
        runtime=minutes(pace_work),
    params:
        code=code_of("pace"),
        coordinates=coordinates,
        settings=attack_settings,
        images=paced_images,
    message:
        "Timing the paper's procedure on {wildcards.model} (seed {wildcards.seed}) "
        "at tau {wildcards.tolerance}, image by image"
    script:
        "../scripts/pace.py"
