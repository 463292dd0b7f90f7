"""The whole configuration: its sections, and the checks between them.

The JSON schema and docs/reference/configuration.md are generated from these classes:
`python -m node_robustness.config.docs` rewrites both. This module is read every time that Snakemake
parses the workflow, also inside every job, so it must import quickly: no torch.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from node_robustness.config.attack import AnyAttack, SteppedAttack
from node_robustness.config.compute import Compute
from node_robustness.config.datasets import (
    FOLDERS,
    NO_PANELS,
    ROLES,
    SOURCES,
    Dataset,
    folded,
)
from node_robustness.config.enough_images import shortages
from node_robustness.config.experiment import Experiment
from node_robustness.config.methods import BUILT_IN, METHODS, Attack
from node_robustness.config.models import AnyModel, Training
from node_robustness.config.presets import PRESETS, from_preset
from node_robustness.config.values import Name, Section, check_distance
from node_robustness.numbers import label
from node_robustness.words import listed

_IN_STEPS = listed([name for name, method in METHODS.items() if method.IN_STEPS], "or")


def _with_built_in(own: object) -> object:
    return {**BUILT_IN, **own} if isinstance(own, dict) else own


class Config(Section):
    """The whole configuration."""

    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)] = Field(
        description="each makes results/{name}/"
    )
    datasets: dict[Name, Dataset] = Field(description="the datasets that experiments name")
    models: dict[Name, AnyModel] = Field(description="the models that experiments name")
    attacks: Annotated[dict[Name, Attack], BeforeValidator(_with_built_in)] = Field(
        {},
        description="attacks that experiments may name, in addition to the built-in ones or in "
        "place of those of the same name",
        validate_default=True,
    )
    training: Training = Field(
        Training(), description="for every model that does not say otherwise"
    )
    compute: Compute = Field(Compute(), description="device, threads, batch and shard size")

    @model_validator(mode="after")
    def _no_attack_is_called_like_a_preset(self) -> Self:
        for name in PRESETS:
            if name in self.attacks:
                raise ValueError(f"attacks.{name}: {name!r} is a preset: choose another name")
        return self

    @model_validator(mode="after")
    def _nothing_else_has_the_folder_of_a_name(self) -> Self:
        for section, folders in FOLDERS.items():
            for name in getattr(self, section):
                if folded(name) in folders:
                    raise ValueError(
                        f"{section}.{name}: the folder of that name holds other files of a run: "
                        "choose another name"
                    )
        for name, dataset in self.datasets.items():
            if dataset.source in ROLES and folded(name) in SOURCES:
                raise ValueError(
                    f"datasets.{name}: resources/{folded(name)} is for the files of the known "
                    "dataset of that name: choose another name"
                )
        for section in ("experiments", "datasets", "models"):
            _apart(section, getattr(self, section))
        for name, experiment in self.experiments.items():
            _apart(f"experiments.{name}.attacks", experiment.every_attack)
        return self

    @model_validator(mode="after")
    def _figures_have_panels_of_a_name(self) -> Self:
        for section in ("datasets", "models", "attacks"):
            for name in NO_PANELS:
                if name in getattr(self, section):
                    raise ValueError(
                        f"{section}.{name}: is a property of every object in the JavaScript of "
                        "figures: choose another name"
                    )
        return self

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            _known(f"{where}.datasets", experiment.datasets, "datasets", self.datasets)
            _known(f"{where}.models", experiment.models, "models", self.models)
            for key in ("attacks", "primary_attacks"):
                named = getattr(experiment, key) or []
                _known(f"{where}.{key}", named, "attacks or presets", self._nameable)
            for norm in experiment.norms:
                for epsilon in experiment.epsilons_for(norm):
                    check_distance(f"{where}.epsilons", epsilon, norm)
            for attack in experiment.every_attack:
                self._check_attack(where, experiment, attack)
            _chosen_from_the_grid(where, experiment)
            if experiment.adjoint_sweep is not None:
                self._check_swept(where, experiment.papers_attack)
        for model, settings in self.models.items():
            training = self.training_of(model)
            method = settings.only_torchdiffeq_has
            if method and settings.weights is None and training.solver != "torchdiffeq":
                raise ValueError(
                    f"training, for model {model}: method {method} needs solver: torchdiffeq"
                )
            if training.gradient == "adjoint" and training.solver != "torchdiffeq":
                raise ValueError(
                    f"training, for model {model}: gradient: adjoint needs solver: torchdiffeq"
                )
        return self

    @model_validator(mode="after")
    def _there_are_enough_images(self) -> Self:
        for name, dataset in self.datasets.items():
            if dataset.size is not None:
                for line in shortages(self, name, dataset.size.train, dataset.size.test):
                    raise ValueError(line)
        return self

    @model_validator(mode="after")
    def _shards_can_be_counted(self) -> Self:
        if self.compute.shard_size is not None:
            for name in dict.fromkeys(d for e in self.experiments.values() for d in e.datasets):
                dataset = self.datasets[name]
                if dataset.source in ROLES and dataset.subset.test is None:
                    raise ValueError(
                        f"compute.shard_size: how many test images {name} has is known only once "
                        f"it is prepared: set datasets.{name}.subset.test to their number, or "
                        "remove shard_size"
                    )
        return self

    @property
    def _nameable(self) -> list[str]:
        return [*self.attacks, *PRESETS]

    def _check_attack(self, where: str, experiment: Experiment, name: str) -> None:
        """Refuse an attack that cannot run as an experiment asks."""
        attack = self.attacks[name]
        key = "attacks" if name in experiment.attacks else "primary_attacks"
        # A preset leaves out what cannot run. An attack that is named must run.
        named = not from_preset(name, experiment.every_attack)
        if isinstance(attack, SteppedAttack):
            _check_step(name, attack, experiment.norms)
        if attack.made_by is not None:
            self._check_transfer(where, experiment, name, attack, attack.made_by)
            if named and len(experiment.models) == 1:
                raise ValueError(
                    f"{where}.{key}: {name} takes adversarial examples of "
                    f"{experiment.models[0]} to other models, and there are none: remove it, or "
                    f"add one to {where}.models"
                )
        if attack.draws_tolerances and experiment.distribution is None:
            raise ValueError(
                f"{where}.{key}: {name} averages gradients over drawn tolerances, and there is "
                f"no distribution of them: give {where}.randomisation a low and a high, or remove "
                f"{name}"
            )
        if named and not set(attack.norms) & set(experiment.norms):
            raise ValueError(
                f"{where}.{key}: {name} knows none of the norms {', '.join(experiment.norms)}: "
                f"remove it, or add {' or '.join(attack.norms)} to norms"
            )

    def _check_swept(self, where: str, name: str | None) -> None:
        """Refuse a sweep of an attack whose gradient cannot be the adjoint's."""
        attack = None if name is None else self.attacks[name]
        if attack is None or not attack.by_gradient or attack.draws_tolerances:
            named = "none of the attacks is the paper's" if name is None else f"{name} takes none"
            raise ValueError(
                f"{where}.adjoint_sweep: it solves the adjoint of the paper's attack at other "
                f"tolerances, and {named}: name an attack by gradients with paper_attack, or "
                "remove adjoint_sweep"
            )

    def _check_transfer(
        self, where: str, experiment: Experiment, name: str, transfer: AnyAttack, made_by: str
    ) -> None:
        _known(f"attacks.{name}.by", [made_by], "attacks", self.attacks)
        by = self.attacks[made_by]
        if not by.IN_STEPS:
            raise ValueError(
                f"attacks.{name}.by: {made_by} has method {by.method}: name an attack of "
                f"method {_IN_STEPS}"
            )
        if isinstance(by, SteppedAttack):
            _check_step(made_by, by, experiment.norms)
        if transfer.made_on is not None:
            _known(
                f"attacks.{name}.source", [transfer.made_on], f"{where}.models", experiment.models
            )

    def training_of(self, model: str) -> Training:
        """The training settings of a model: its own keys take precedence over the common ones."""
        merged = self.training.model_dump()
        own = self.models[model].training.model_dump(exclude_unset=True)
        merged["augmentation"] |= own.pop("augmentation", {})
        return Training.model_validate(merged | own)


def _apart(where: str, names: Iterable[str]) -> None:
    """Refuse names whose folders are one where the file system ignores case."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(folded(name), name)
        if other != name:
            raise ValueError(
                f"{where}: {other} and {name} differ only in case, and on some file systems their "
                "folders would be one: rename one of them"
            )


def _check_step(name: str, attack: SteppedAttack, norms: Sequence[str]) -> None:
    for norm in norms:
        if isinstance(attack.step, dict) and norm not in attack.step:
            raise ValueError(f"attacks.{name}.step has no entry for norm {norm}: add one")
        step = attack.step_in(norm)
        if step is not None:
            check_distance(f"attacks.{name}.step", step, norm)


def _chosen_from_the_grid(where: str, experiment: Experiment) -> None:
    """Refuse a section that chooses what the experiment's lists do not have."""
    every: dict[str, list[Any]] = {
        "attacks": experiment.every_attack,
        "norms": experiment.norms,
        "tolerances": experiment.tolerances,
        "epsilons": [e for n in experiment.norms for e in experiment.epsilons_for(n)],
    }
    for section in (
        "trajectories",
        "matrix",
        "randomisation",
        "detection",
        "adjoint_sweep",
        "cost",
    ):
        for key, values in every.items():
            chosen: list[object] = getattr(getattr(experiment, section), key, None) or []
            for value in chosen:
                if value not in values:
                    raise ValueError(
                        f"{where}.{section}.{key}: {_plain(value)} is not in "
                        f"{where}.{key} ({', '.join(dict.fromkeys(map(_plain, values)))})"
                    )


def _plain(value: object) -> str:
    return label(value) if isinstance(value, float) else str(value)


def _known(where: str, names: list[str], section: str, defined: Iterable[str]) -> None:
    for name in names:
        if name not in defined:
            have = ", ".join(defined) or "nothing"
            raise ValueError(f"{where}: {name!r} is not defined under {section} (there is: {have})")
