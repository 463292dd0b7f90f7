"""Split a dataset into training, validation and test images."""

from pathlib import Path

from node_robustness import config
from node_robustness.architecture import check_images
from node_robustness.datasets import find_source, load_split, prepare
from node_robustness.downloads import check
from node_robustness.jobs import job

with job(snakemake.log[0]):
    source = find_source(**snakemake.params.source)
    folder = Path(snakemake.input.record).parent
    # What was fetched may have been replaced since, by hand or by another configuration.
    for remote in source.files:
        check(remote, folder)
    settings = {
        "dataset": snakemake.wildcards.dataset,
        "source": snakemake.params.source["name"],
        "validation": snakemake.params.validation,
        "split_seed": snakemake.params.split_seed,
        "mean": source.mean,
        "std": source.std,
        "files": {remote.name: remote.sha256 for remote in source.files},
    }
    images = source.read(folder)
    # Not params: the jobs that use models and subsets check them too, but perhaps after hours.
    configuration = config.load(snakemake.config)
    for name in configuration.experiments[snakemake.wildcards.experiment].models:
        model = configuration.models[name]
        check_images(
            f"models.{name}",
            f"the images of {snakemake.wildcards.dataset}",
            model.downsampling,
            model.filters,
            *images.train_images.shape[2:],
        )
    prepare(
        *images,
        source.class_names,
        validation=snakemake.params.validation,
        seed=snakemake.params.split_seed,
        path=snakemake.output.data,
        settings=settings,
    )
    subset = configuration.datasets[snakemake.wildcards.dataset].subset
    for split, count in subset.model_dump(exclude_none=True).items():
        load_split(snakemake.output.data, split, count)
