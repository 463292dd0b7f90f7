# Datasets: official files, checked by SHA-256, and one prepared HDF5 for each dataset.
# Needs: nothing, or a mirror. Makes: resources/{folder}/verified.json, data.h5.


# What is wrong with one dataset is to be said before models are trained on another.
BEFORE_TRAINING = 1


rule fetch:
    output:
        # Only the record is declared: Snakemake deletes declared outputs before a job, and files
        # that lie in the folder already, with the right checksums, are to be used as they are.
        record="resources/{folder}/verified.json",
    log:
        "resources/logs/fetch/{folder}.log",
    benchmark:
        "resources/benchmarks/fetch/{folder}.tsv"
    priority: BEFORE_TRAINING
    localrule: True
    params:
        code=code_of("fetch"),
        source=lambda wildcards: source_of(wildcards.folder),
    message:
        "Fetching the files of {wildcards.folder}"
    script:
        "../scripts/fetch.py"


rule prepare:
    input:
        record=lambda wildcards: f"resources/{sources.resource_folder(CONFIG, wildcards.dataset)}/verified.json",
    output:
        data=DATA,
    log:
        logs("prepare", "{dataset}"),
    benchmark:
        benchmarks("prepare", "{dataset}")
    priority: BEFORE_TRAINING
    params:
        code=code_of("prepare"),
        source=lambda wildcards: source_of(
            sources.resource_folder(CONFIG, wildcards.dataset)
        ),
        validation=lambda wildcards: CONFIG.datasets[wildcards.dataset].validation,
        split_seed=lambda wildcards: CONFIG.datasets[wildcards.dataset].split_seed,
    message:
        "Preparing {wildcards.dataset}: images, labels, splits"
    script:
        "../scripts/prepare.py"
