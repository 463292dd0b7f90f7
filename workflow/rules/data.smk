# Datasets: official files, checked by SHA-256, and one prepared HDF5 for each dataset.
# Needs: nothing, or a mirror. Makes: resources/{folder}/verified.json, data.h5.


# A mistake in one dataset is reported before models are trained on another. No attack starts while a
# training could: a training is the longest job, and one that comes last runs alone.
BEFORE_TRAINING, TRAINING = 2, 1


rule fetch:
    output:
        # Only the record is declared. Snakemake deletes declared outputs before a job, and files
        # that are in the folder, with the right checksums, are used as they are.
        record=paths.RECORD,
    log:
        "resources/logs/fetch/{folder}.log",
    priority: BEFORE_TRAINING
    localrule: True
    params:
        code=code_of("fetch"),
        source=of_job(params.source_in_folder),
    message:
        "Fetching the files of {wildcards.folder}"
    script:
        "../scripts/fetch.py"


rule prepare:
    input:
        record=of_job(inputs.record),
    output:
        data=DATA,
    log:
        paths.log("prepare", PREPARED),
    priority: BEFORE_TRAINING
    params:
        code=code_of("prepare"),
        source=of_job(params.source),
        validation=of_job(params.validation),
        split_seed=of_job(params.split_seed),
    message:
        "Preparing {wildcards.dataset}: images, labels, splits"
    script:
        "../scripts/prepare.py"
