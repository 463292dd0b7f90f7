"""Check that a configuration asks for no more images than there are, before any work starts.

Images of known datasets are counted when Snakemake parses the workflow, so this module must import
quickly. Your own data are counted when they are prepared, and from then on before every run.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from node_robustness.shapes.datasets import FEWEST_TO_PROBE, held_out

if TYPE_CHECKING:
    from node_robustness.config.config import Config


_MEASURED = ("trajectories", "audit", "randomisation", "detection", "adjoint_sweep", "cost")
"""The sections of an experiment that measure some of the test images."""


def shortages(
    config: "Config", name: str, train: int, test: int, experiments: Iterable[str] | None = None
) -> Iterator[str]:
    """The requests for more images than a dataset has, each with its remedy.

    Defaults ask for no more than there is. A section of an experiment may ask for more than a
    subset, to measure all of it.

    Args:
        config: the configuration.
        name: the dataset.
        train: how many training images it has, those to be held out among them.
        test: how many test images.
        experiments: whose sections are looked at; those of all that name the dataset if None.
    """
    dataset = config.datasets[name]
    written = "validation" in dataset.model_fields_set
    validation = held_out(dataset.validation, train, written=written)
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
