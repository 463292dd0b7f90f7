"""The sources of files that a run does not make: datasets and imported weights."""

import re
from pathlib import Path

from node_robustness.config.config import Config
from node_robustness.errors import UserError
from node_robustness.grid.cells import trained


def checkpoint(config: Config, model: str, seed: int | str) -> str | None:
    """The file that a model's weights are imported from; None for a model that is trained."""
    weights = config.models[model].weights
    return None if weights is None else weights.replace("{seed}", str(seed))


def check_checkpoints(config: Config) -> None:
    """Check that the files of all imported weights exist, relative to the working directory.

    Raises:
        UserError: one of them is missing, or has a path that Snakemake takes for a pattern.
    """
    for name in config.experiments:
        for item in trained(config, name):
            path = checkpoint(config, item.model, item.seed)
            if path is None:
                continue
            pattern = re.search("[{}<>]", path)
            if pattern is not None:
                raise UserError(
                    f"config: models.{item.model}.weights: {path} has {pattern[0]!r} in it, which "
                    "is a pattern to Snakemake: give the file, or a link to it, another path"
                )
            if not Path(path).is_file():
                found = f"{path} is a folder" if Path(path).is_dir() else f"there is no file {path}"
                raise UserError(
                    f"config: models.{item.model}.weights: {found} in "
                    f"{Path.cwd()}: correct the path, or remove the key to train the model"
                )


def check_files(config: Config) -> None:
    """Check the Python files of all own models, as far as that goes without running them.

    Raises:
        UserError: with one line for every model whose file is missing, is not Python code, or does
            not define what it should.
    """
    lines = []
    for name in dict.fromkeys(m for e in config.experiments.values() for m in e.models):
        try:
            config.models[name].check_file()
        except UserError as error:
            lines.append(f"config: models.{name}.{error}")
    if lines:
        raise UserError("\n".join(lines))


def resource_folder(config: Config, dataset: str) -> str:
    """The folder under `resources/` that holds the files of a dataset.

    Datasets that split a known source differently share its files.
    """
    source = config.datasets[dataset].source
    return dataset if source in ("idx", "cifar_binary") else source


def mirrors_of(config: Config, folder: str) -> list[str]:
    """The mirrors that any dataset of a folder under `resources/` names, without repetition."""
    named = (d.mirrors for n, d in config.datasets.items() if resource_folder(config, n) == folder)
    return list(dict.fromkeys(mirror for mirrors in named for mirror in mirrors))
