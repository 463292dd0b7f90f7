"""The inputs of rules whose number depends on the configuration, and the targets of a run.

Each function takes the configuration and the coordinates of a job (see `paths.values`).

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

from collections.abc import Callable, Iterable

from node_robustness.config.config import Config
from node_robustness.grid import cells, paths, sources, stages
from node_robustness.grid.attack_settings import cheaper
from node_robustness.grid.cells import Trained
from node_robustness.grid.params import Coordinates, cell
from node_robustness.grid.shards import shards

Inputs = Callable[[Config, Coordinates], list[str]]


def record(config: Config, at: Coordinates) -> str:
    """The record of the files that a dataset is made from."""
    return paths.fill(paths.RECORD, {"folder": sources.resource_folder(config, at["dataset"])})


def source_model(config: Config, at: Coordinates) -> list[str]:
    """The weights and the spec of the model whose adversarial examples a cell takes, if any."""
    source = cells.source(config, cell(config, at))
    names = ("model.safetensors", "model.json")
    return [] if source is None else [source.result(name, paths.TRAINED) for name in names]


def checked(config: Config, at: Coordinates) -> list[str]:
    """The checks of the own models that a job works with: its model, and the source of a cell."""
    trained = [Trained(*(at[name] for name in ("experiment", "dataset", "model", "seed")))]
    source = cells.source(config, cell(config, at)) if "attack" in at else None
    needed = [*trained, *([] if source is None else [source])]
    return [
        item.result("checked.json", paths.TRAINED)
        for item in needed
        if config.models[item.model].is_own
    ]


def cheaper_attacks(config: Config, at: Coordinates) -> list[str]:
    """The cells whose broken images a cell leaves out, if any."""
    return [item.result("attack.h5") for item in cheaper(config, cell(config, at))]


def shards_of(config: Config, at: Coordinates) -> list[str]:
    """The shards of a cell, in the order of their images."""
    item, pattern = cell(config, at), paths.result(paths.CELL, paths.SHARD_FILE)
    return [
        paths.fill(pattern, vars(item) | {"shard": shard.name}) for shard in shards(config, item)
    ]


def probe(config: Config, at: Coordinates) -> str | list[str]:
    """The file of probes by which the decision of a cell is read along t; no files without."""
    section = config.experiments[at["experiment"]].trajectories
    assert section is not None
    return cell(config, at).result("probe.h5", paths.SOLVED) if section.probe else []


def probes(config: Config, at: Coordinates) -> list[str]:
    """The probes of all models and tolerances that are followed, if there are any."""
    section = config.experiments[at["experiment"]].trajectories
    if section is None or not section.probe:
        return []
    followed = stages.followed(config, at["experiment"])
    return list(dict.fromkeys(cell.result("probe.h5", paths.SOLVED) for cell in followed))


def of_experiment(
    items: Callable[[Config, str], Iterable[Trained]], name: str, place: str | None = None
) -> Inputs:
    """The function for the files of one name of all items of an experiment.

    Args:
        items: the function that gives the items of an experiment.
        name: of the files.
        place: whose results they are; the items' own if None.
    """

    def files(config: Config, at: Coordinates) -> list[str]:
        return [item.result(name, place) for item in items(config, at["experiment"])]

    return files


def targets(config: Config) -> list[str]:
    """The files that a complete run has."""
    trained = (item for name in config.experiments for item in cells.trained(config, name))
    claims = dict.fromkeys(
        f"results/{item.experiment}/claims/{item.dataset}-{item.model}.json" for item in trained
    )
    return [
        *(f"results/{name}/report.html" for name in config.experiments),
        *(f"results/{name}/figures/images" for name in config.experiments),
        *claims,
    ]
