"""Whether there are the images that a configuration asks for, said before any work starts.

Those of known datasets are counted when Snakemake parses the workflow, so this module must import
quickly; data of your own when they are prepared, and from then on before every run.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from node_robustness.dataset_sizes import FEWEST_TO_PROBE, held_out, size_of
from node_robustness.errors import UserError

if TYPE_CHECKING:
    from node_robustness.config import Config

_MEASURED = ("trajectories", "audit", "randomisation", "detection", "pace")
"""The sections of an experiment that measure some of the test images."""


def shortages(
    config: "Config", name: str, train: int, test: int, experiments: Iterable[str] | None = None
) -> Iterator[str]:
    """What is asked of a dataset that has fewer images than that, each with its remedy.

    What nobody wrote asks for no more than there is, and a section of an experiment may ask for
    more than a subset, to measure all of it.

    Args:
        config: the configuration.
        name: the dataset.
        train: how many training images it has, those to be held out among them.
        test: how many test images.
        experiments: whose sections are looked at; those of all that name the dataset if None.
    """
    dataset = config.datasets[name]
    validation = held_out(dataset, train)
    if not 0 < validation < train:
        yield (
            f"datasets.{name}.validation: {dataset.validation:g} holds {validation} of {train} "
            "training images out: choose it so that both splits get some"
        )
        return
    there = {"train": train - validation, "validation": validation, "test": test}
    for split, wanted in dataset.subset.model_dump(exclude_none=True).items():
        if wanted > there[split]:
            yield (
                f"datasets.{name}.subset.{split}: {wanted} images are asked for, {there[split]} "
                "are available: lower it or leave it out"
            )
    validation = min(validation, dataset.subset.validation or validation)
    for experiment in config.experiments if experiments is None else experiments:
        if name in config.experiments[experiment].datasets:
            yield from _shortages_of_sections(config, experiment, name, validation, test)


def _shortages_of_sections(
    config: "Config", experiment: str, name: str, validation: int, test: int
) -> Iterator[str]:
    for key in _MEASURED:
        section = getattr(config.experiments[experiment], key)
        written = section is not None and "images" in section.model_fields_set
        if written and section.images is not None and section.images > test:
            yield (
                f"experiments.{experiment}.{key}.images: {section.images} images are asked for, "
                f"{name} has {test} to test: lower it or leave it out"
            )
    follow = config.experiments[experiment].trajectories
    if follow is None or not follow.probe or "probe" not in follow.model_fields_set:
        return
    if validation < FEWEST_TO_PROBE:
        yield (
            f"experiments.{experiment}.trajectories.probe: {name} has {validation} validation "
            f"images, and a probe needs {FEWEST_TO_PROBE}: hold out more (validation, and "
            "subset.validation, of the dataset) or leave probe out"
        )


def check_prepared(config: "Config", prepared: Iterable[tuple[str, str]], results: Path) -> None:
    """Refuse what asks for more images than there are in data of the user's own.

    Args:
        config: the configuration.
        prepared: experiments and their datasets whose data.h5 the run takes as it is.
        results: the folder of all results.

    Raises:
        UserError: more is asked for than there is.
    """
    for experiment, name in prepared:
        path = results / experiment / name / "data.h5"
        if size_of(config.datasets[name]) is None and path.is_file():
            # Imported here because it takes a while and few runs need it.
            from node_robustness.datasets import count_images

            for line in shortages(config, name, *count_images(path), [experiment]):
                raise UserError(f"config: {line}")
