"""Split a dataset into training, validation and test images."""

from pathlib import Path

from node_robustness.config import loading
from node_robustness.config.enough_images import shortages
from node_robustness.data.downloads import check
from node_robustness.data.sources import find_source
from node_robustness.data.splits import prepare
from node_robustness.errors import UserError
from node_robustness.grid import cells
from node_robustness.jobs.log import job
from node_robustness.shapes.datasets import held_out

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
    # Not params: what asks for less is no reason to prepare them again. The jobs that use models
    # and subsets check them too, but perhaps after hours.
    configuration, w = loading.load(snakemake.config), snakemake.wildcards
    cells.check_images_of(configuration, w.experiment, w.dataset, images.train_images.shape[1:])
    sizes = len(images.train_images), len(images.test_images)
    for line in shortages(configuration, w.dataset, *sizes, [w.experiment]):
        raise UserError(line)
    prepare(
        *images,
        source.class_names,
        validation=held_out(
            snakemake.params.validation,
            sizes[0],
            written="validation" in configuration.datasets[w.dataset].model_fields_set,
        ),
        seed=snakemake.params.split_seed,
        path=snakemake.output.data,
        settings=settings,
    )
