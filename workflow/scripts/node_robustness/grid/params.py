"""The params of rules: what the results of a job depend on, except inputs and code.

Snakemake keeps the params of each output and runs its job again when they change, so they have all
that counts and nothing else: no device, no threads, no mirror. Each function takes the
configuration and the coordinates of a job (see `paths.values`).

Every job parses the workflow and with it this module, so it must import quickly (no torch).
"""

from collections.abc import Mapping
from typing import Any

from node_robustness.config.config import Config
from node_robustness.config.experiment import (
    AdjointSweep,
    Audit,
    CostAttack,
    Detection,
    Randomisation,
)
from node_robustness.grid import attack_settings, sources
from node_robustness.grid.cells import RK4_STEPS, TIGHT_TOLERANCE, Cell
from node_robustness.grid.shards import Shard

Coordinates = Mapping[str, Any]


def coordinates(config: Config, at: Coordinates) -> dict[str, Any]:
    """The coordinates of a job; a shard has those of its cell, and its file says the same."""
    return {name: value for name, value in at.items() if name != "shard"}


def cell(config: Config, at: Coordinates) -> Cell:
    """The cell at some coordinates, or that of a shard."""
    return Cell(**coordinates(config, at))


def source(config: Config, at: Coordinates) -> dict[str, Any]:
    """Which files a dataset has, and how they are read; from which mirror makes no difference."""
    dataset = config.datasets[at["dataset"]]
    return {
        "name": dataset.source,
        "files": {role: (f.name, f.sha256) for role, f in dataset.files.items()},
        "class_names": dataset.class_names,
        "image_shape": dataset.image_shape,
        "label_bytes": dataset.label_bytes,
    }


def source_in_folder(config: Config, at: Coordinates) -> dict[str, Any]:
    """The source of the datasets whose files are in a folder of `resources/`."""
    found = (n for n in config.datasets if sources.resource_folder(config, n) == at["folder"])
    return source(config, {"dataset": next(found)})


def validation(config: Config, at: Coordinates) -> float:
    """How many training images a dataset holds out: a share or a number."""
    return config.datasets[at["dataset"]].validation


def split_seed(config: Config, at: Coordinates) -> int:
    """The seed by which images are held out."""
    return config.datasets[at["dataset"]].split_seed


def architecture(config: Config, at: Coordinates) -> dict[str, Any]:
    """What fixes the network of a model, without keys that it does not use."""
    return config.models[at["model"]].architecture()


def training(config: Config, at: Coordinates) -> dict[str, Any]:
    """The training settings of a model; a model without an ODE has no solver to set."""
    settings = config.training_of(at["model"]).model_dump()
    if not config.models[at["model"]].has_ode:
        settings |= {"solver": "batched", "gradient": "direct"}
    return settings


def training_subset(config: Config, at: Coordinates) -> dict[str, Any]:
    """How many images a model is trained and validated on; None for all."""
    return config.datasets[at["dataset"]].subset.model_dump(exclude={"test"})


def checkpoint(config: Config, at: Coordinates) -> str | None:
    """The file that the weights of a model are imported from."""
    return sources.checkpoint(config, at["model"], at["seed"])


def tested_images(config: Config, at: Coordinates) -> int | None:
    """How many test images are evaluated and attacked; None for all."""
    return config.datasets[at["dataset"]].subset.test


def attack(config: Config, at: Coordinates) -> dict[str, Any]:
    """The settings of an attack in its cell."""
    return attack_settings.attack_settings(config, cell(config, at))


def methods(config: Config, at: Coordinates) -> list[str]:
    """The modules of the methods that an attack uses; without one in `at`, the paper's."""
    name = at["attack"] if "attack" in at else papers_attack(config, at)
    assert name is not None
    return [f"node_robustness.attacks.{method}" for method in attack_settings.methods(config, name)]


def part(config: Config, at: Coordinates) -> list[int]:
    """Which images of its cell a shard has."""
    shard = Shard.named(at["shard"])
    return [shard.first, shard.end]


def images_of_part(config: Config, at: Coordinates) -> int:
    """How many test images a shard is cut from: those up to its end, however many there are."""
    return Shard.named(at["shard"]).end


def images_of(
    config: Config,
    at: Coordinates,
    section: Audit | Randomisation | Detection | AdjointSweep | CostAttack,
) -> int:
    """How many test images a section of an experiment measures: never more than are attacked.

    Before data are prepared it may be more than there are.
    """
    attacked = config.datasets[at["dataset"]].images_to_test
    return section.images if attacked is None else min(section.images, attacked)


def probe(config: Config, at: Coordinates) -> dict[str, Any]:
    """What probes are fitted to: the times, and how many validation images (None for all)."""
    section = config.experiments[at["experiment"]].trajectories
    assert section is not None
    return {"times": section.times, "images": config.datasets[at["dataset"]].subset.validation}


def follow(config: Config, at: Coordinates) -> dict[str, Any]:
    """What is followed in a cell, and the tolerance of its reference curve."""
    section = config.experiments[at["experiment"]].trajectories
    assert section is not None
    chosen = section.model_dump(exclude={"attacks", "norms", "epsilons", "tolerances"})
    return {**chosen, "tight_tolerance": TIGHT_TOLERANCE}


def audit(config: Config, at: Coordinates) -> dict[str, Any]:
    """What an audit measures, and the epsilon of its attacks in every norm."""
    experiment = config.experiments[at["experiment"]]
    assert experiment.audit is not None
    return {
        **experiment.audit.model_dump(),
        "images": images_of(config, at, experiment.audit),
        "epsilons": primary_epsilons(config, at),
        "tight_tolerance": TIGHT_TOLERANCE,
        "rk4_steps": RK4_STEPS,
    }


def matrix_tolerances(config: Config, at: Coordinates) -> list[float]:
    """The tolerances of the tolerance matrix, from tight to loose."""
    return sorted({TIGHT_TOLERANCE, *config.experiments[at["experiment"]].tolerances})


def randomisation(config: Config, at: Coordinates) -> dict[str, Any]:
    """The distribution of the tolerance, and the parameters of its attackers."""
    experiment = config.experiments[at["experiment"]]
    section = experiment.randomisation
    assert section is not None
    low, high = experiment.drawn_tolerances(section)
    return {
        **section.model_dump(exclude={"norms", "epsilons", "relative_step"}),
        "images": images_of(config, at, section),
        "low": low,
        "high": high,
        "step": section.relative_step * at["epsilon"],
    }


def detection(config: Config, at: Coordinates) -> dict[str, Any]:
    """The tolerances of the detector, and the parameters of the attacks."""
    experiment = config.experiments[at["experiment"]]
    section = experiment.detection
    assert section is not None
    return {
        **section.model_dump(include={"iterations", "searches", "search_iterations"}),
        "images": images_of(config, at, section),
        "tolerances": sorted(experiment.tolerances),
        "step": section.relative_step * at["epsilon"],
    }


def adjoint_sweep(config: Config, at: Coordinates) -> dict[str, Any]:
    """The paper's attack in a cell, and the tolerances at which its adjoint is solved."""
    experiment = config.experiments[at["experiment"]]
    section, name = experiment.adjoint_sweep, experiment.papers_attack
    assert section is not None
    assert name is not None
    settings = attack_settings.attack_settings(config, Cell(**coordinates(config, at), attack=name))
    for key in ("gradient", "adjoint_tolerance", "surrogate"):
        settings.pop(key, None)
    return {
        "adjoint_norm": "full",  # the paper's, unless the attack says otherwise
        **settings,
        "attack": name,
        "images": images_of(config, at, section),
        "backward_tolerances": sorted(section.backward_tolerances),
    }


def cost(config: Config, at: Coordinates) -> dict[str, Any]:
    """The parameters of the attack on the number of function evaluations."""
    section = config.experiments[at["experiment"]].cost
    assert section is not None
    return {
        **section.model_dump(include={"queries", "iterations"}),
        "images": images_of(config, at, section),
        "step": section.relative_step * at["epsilon"],
    }


def certificate(config: Config, at: Coordinates) -> dict[str, Any]:
    """The method that proves robustness, and of how many test images; None for all."""
    return {
        "method": config.models[at["model"]].certify,
        "images": tested_images(config, at),
    }


def models(config: Config, at: Coordinates) -> list[str]:
    """The models of an experiment, in its order."""
    return config.experiments[at["experiment"]].models


def published(config: Config, at: Coordinates) -> dict[str, dict[str, Any]]:
    """What was published of own models, by model; only of models that say so."""
    every = {name: config.models[name].published for name in models(config, at)}
    return {name: said.model_dump() for name, said in every.items() if said is not None}


def paper(config: Config, at: Coordinates) -> str | None:
    """The dataset whose results in the paper a report shows; None for none."""
    return config.experiments[at["experiment"]].paper


def papers_attack(config: Config, at: Coordinates) -> str | None:
    """The attack of an experiment that is the paper's protocol; None if none is."""
    return config.experiments[at["experiment"]].papers_attack


def primary_epsilons(config: Config, at: Coordinates) -> dict[str, float]:
    """The epsilon of each norm at which the claims of an experiment are made first."""
    experiment = config.experiments[at["experiment"]]
    return {norm: experiment.primary_epsilon(norm) for norm in experiment.norms}


def training_tolerances(config: Config, at: Coordinates) -> dict[str, float | None]:
    """The tolerance in training, by model; None for the settings of an own model.

    Only of models that are solved at other tolerances.
    """
    named = {name: config.models[name] for name in config.experiments[at["experiment"]].models}
    return {name: model.training_tolerance for name, model in named.items() if model.adaptive}
