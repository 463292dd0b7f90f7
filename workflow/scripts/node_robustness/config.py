"""The typed configuration: every key, its default, its range, and what it means.

The JSON schema and the tables of `config/README.md` are generated from these classes:
`python -m node_robustness.config_docs` rewrites both. This module is read every time that Snakemake
parses the workflow, also inside every job, so it must import quickly: no torch.
"""

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from node_robustness.architecture import MAX_GROUPS, groups
from node_robustness.config_attacks import EOTPGD, METHOD, METHODS, Attack, SteppedAttack, Transfer
from node_robustness.config_values import (
    FILE_NAME,
    MAP,
    ONE,
    PATTERNS,
    SHA256,
    WEIGHTS,
    Count,
    Mirror,
    Name,
    Names,
    Natural,
    NonNegative,
    Norms,
    Numbers,
    NumbersByNorm,
    Positive,
    Section,
    Seed,
    Seeds,
    Share,
    Times,
    Tolerance,
    Tolerances,
    check_distance,
)
from node_robustness.dataset_sizes import FEWEST_TO_PROBE, check_order, size_of
from node_robustness.enough_images import shortages
from node_robustness.errors import UserError
from node_robustness.numbers import label
from node_robustness.presets import BUILT_IN, PAPER_ATTACK, PRESETS, expand, from_preset


class Subset(Section):
    """How many images to use of each split; a larger number keeps the smaller one's images."""

    train: Count | None = Field(None, description="training images; all if unset")
    validation: Count | None = Field(None, description="validation images; all if unset")
    test: Count | None = Field(
        None, description="test images, the same in every cell; all if unset"
    )


def _folded(name: str) -> str:
    """What tells files apart on every file system: some take no note of case or composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _file_name(name: str) -> str:
    if name in (".", "..") or not name.isprintable() or len(name.encode()) > _LONGEST_FILE_NAME:
        raise ValueError(
            f"{reprlib.repr(name)} is no name of a file: write at most {_LONGEST_FILE_NAME} bytes "
            "without control characters"
        )
    if _folded(name) == _RECORD:
        raise ValueError(f"{_RECORD} is a file of ours in the same folder: rename it on the mirror")
    return name


class DataFile(Section):
    """One file of a dataset of your own."""

    name: Annotated[str, AfterValidator(_file_name)] = Field(
        pattern=FILE_NAME, description="file name, as it stands on the mirror and under resources/"
    )
    sha256: str = Field(pattern=SHA256, description="SHA-256 of the file")


# Names of folders that lie where those of the user's names do, or that paths are read by.
_FOLDERS = {
    "datasets": ("tables", "figures", "claims", "logs", "benchmarks"),
    "models": ("benchmarks",),
    "attacks": ("benchmarks", "detection"),
}
# Properties that every object of JavaScript has: a figure cannot have a panel of such a name.
_NO_PANELS = (
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
)
_MOST_CLASSES = 256
# What `fetch` writes next to the files of a dataset.
_RECORD = "verified.json"
# Of the 255 that file systems allow, some are left for the names of temporary files.
_LONGEST_FILE_NAME = 200
_IN_STEPS = ("fgsm", "bim", "pgd")
_IN_STEPS_TEXT = f"{', '.join(_IN_STEPS[:-1])} or {_IN_STEPS[-1]}"
_ROLES: dict[str, list[set[str]]] = {
    "idx": [{"train_images", "train_labels", "test_images", "test_labels"}],
    "cifar_binary": [{"archive"}, {"train", "test"}],
}


def _check_classes(names: Sequence[str]) -> None:
    """Refuse what are no classes to tell apart."""
    if len(names) == 1:
        raise ValueError(
            f"class_names: {names[0]!r} is the only class, of which there is nothing to tell "
            "apart: name two at least"
        )
    # As they are seen in tables and figures.
    seen = [unicodedata.normalize("NFC", " ".join(name.split())) for name in names]
    for number, name in enumerate(names):
        if not name.strip() or not name.isprintable():
            raise ValueError(
                f"class_names: {name!r} is no name: write what class {number} is called"
            )
        if seen[number] in seen[:number]:
            raise ValueError(
                f"class_names: {name!r} is listed twice, for the labels "
                f"{seen.index(seen[number])} and {number}: rename one of them"
            )


def _check_files(files: Mapping[str, DataFile]) -> None:
    """Refuse two files under one name, and a test set that is the training set."""
    first: dict[str, str] = {}
    for role, file in files.items():
        other = first.setdefault(_folded(file.name), role)
        if file != files[other]:
            same = file.name == files[other].name
            raise ValueError(
                f"files.{other} and files.{role} are two files "
                + ("of one name" if same else "whose names are one on some file systems")
                + f" ({file.name}): rename one on the mirror"
            )
    for train, test in (("train", "test"), ("train_images", "test_images")):
        if train in files and test in files and files[train].sha256 == files[test].sha256:
            raise ValueError(
                f"files.{train} and files.{test} are the same file (their sha256 is one): give the "
                "test images in a file of their own"
            )


class Dataset(Section):
    """A dataset: where its files come from, and how it is split."""

    source: Literal[
        "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "idx", "cifar_binary"
    ] = Field(description="a known dataset, or the file format of one of your own")
    mirrors: list[Mirror] = Field(
        [],
        description="folders tried before the built-in ones: https://..., http://... or "
        "file:///folder; for idx and cifar_binary the only ones",
    )
    files: dict[str, DataFile] = Field(
        {},
        description="only for idx (train_images, train_labels, test_images, test_labels) and "
        "cifar_binary (archive, or train and test): name and SHA-256 of each file",
    )
    class_names: list[str] = Field(
        [], description="only for idx and cifar_binary: names of the classes, two at least"
    )
    image_shape: tuple[Count, Count, Count] | None = Field(
        None, description="only for cifar_binary: channels, height, width"
    )
    label_bytes: Count = Field(
        1,
        le=2,
        description="only for cifar_binary: label bytes before each image; the last one counts",
    )
    validation: NonNegative = Field(
        0.1, description="share (below 1) or number of training images held out to choose the model"
    )
    split_seed: Seed = Field(0, description="seed of the split and of the order of the images")
    subset: Subset = Field(Subset(), description="run on fewer images")

    @model_validator(mode="after")
    def _own_data_is_described(self) -> Self:
        own = self.source in _ROLES
        if own and not (self.files and self.class_names and self.mirrors):
            raise ValueError(f"source {self.source} needs mirrors, files and class_names")
        if own and set(self.files) not in _ROLES[self.source]:
            wanted = ", or ".join(" and ".join(sorted(roles)) for roles in _ROLES[self.source])
            raise ValueError(f"files of source {self.source} must be: {wanted}")
        _check_files(self.files)
        if own:
            _check_classes(self.class_names)
        if self.source == "cifar_binary" and len(self.class_names) > _MOST_CLASSES:
            raise ValueError(
                f"class_names: a label of source cifar_binary is a byte, which tells "
                f"{_MOST_CLASSES} classes apart, and there are {len(self.class_names)}: write "
                "fewer, or use source idx"
            )
        if self.source == "cifar_binary" and self.image_shape is None:
            raise ValueError("source cifar_binary needs image_shape, for example [3, 32, 32]")
        if self.image_shape is not None:
            check_order("image_shape", self.image_shape)
        surplus = [key for key in ("files", "class_names") if getattr(self, key) and not own]
        if self.source != "cifar_binary":
            surplus += [k for k in ("image_shape", "label_bytes") if k in self.model_fields_set]
        if surplus:
            raise ValueError(f"source {self.source} takes no {' or '.join(surplus)}: remove it")
        if self.validation == 0 or (self.validation >= 1 and self.validation % 1):
            raise ValueError(
                "validation must be a share between 0 and 1 or a whole number of images"
            )
        return self


_SOURCES = frozenset(get_args(Dataset.model_fields["source"].annotation)) - _ROLES.keys()
"""The known datasets, whose files lie in a folder of their own name."""

FIXED = ("euler", "midpoint", "rk4", "heun2", "heun3", "explicit_adams", "implicit_adams")
"""Methods that take equal steps."""

TORCHDIFFEQ_ONLY = ("dopri8", "heun2", "heun3", "explicit_adams", "implicit_adams")
"""Methods that the batched backend has not."""


class Solver(Section):
    """The ODE solver of a model."""

    backend: Literal["batched", "torchdiffeq"] = Field(
        "batched",
        description="batched: every image has its own steps, whatever the batch; torchdiffeq: that "
        "library itself, `batch_size` images as one equation; such a model has no audit, "
        "trajectories, randomisation or detection, which need the steps of every image",
    )
    method: Literal[
        "dopri5",
        "bosh3",
        "adaptive_heun",
        "fehlberg2",
        "euler",
        "midpoint",
        "rk4",
        "dopri8",
        "heun2",
        "heun3",
        "explicit_adams",
        "implicit_adams",
    ] = Field(
        "dopri5",
        description="names as in torchdiffeq; dopri8, heun2, heun3, explicit_adams and "
        f"implicit_adams need backend: torchdiffeq; {', '.join(FIXED)} take `steps`",
    )
    tolerance: Tolerance = Field(1e-3, description="tau in training: rtol and atol")
    max_steps: Count = Field(
        1000, description="an image that needs more steps ends with status max_steps"
    )
    steps: Count | None = Field(
        None,
        description="number of equal steps: for the methods that take them, on which tolerance "
        "and max_steps are without effect (implicit_adams: tolerance bounds its iterations)",
    )
    batch_size: Count = Field(
        1,
        description="only for torchdiffeq: how many images are one equation, except in training; "
        "with more than 1 a prediction depends on the images beside it",
    )

    @model_validator(mode="after")
    def _the_backend_can_do_it(self) -> Self:
        if self.backend == "batched" and self.method in TORCHDIFFEQ_ONLY:
            raise ValueError(f"method {self.method} needs backend: torchdiffeq")
        if self.backend == "batched" and self.batch_size != 1:
            raise ValueError(
                "batch_size is for backend: torchdiffeq; batched gives every image its own steps: "
                "remove batch_size"
            )
        return self

    @model_validator(mode="after")
    def _steps_fit_the_method(self) -> Self:
        fixed = self.method in FIXED
        if fixed and self.steps is None:
            raise ValueError(f"method {self.method} needs steps, for example 20")
        if not fixed and self.steps is not None:
            raise ValueError(f"method {self.method} chooses its steps itself: remove steps")
        return self


class Augmentation(Section):
    """Random changes of the training images, on tensors."""

    crop_padding: Natural = Field(0, description="random crop after this much zero padding, pixels")
    horizontal_flip: bool = Field(False, description="mirror each image with probability 1/2")
    hue: NonNegative = Field(0.0, description="largest hue shift, as a share of the circle", le=0.5)
    saturation: NonNegative = Field(0.0, description="largest relative change of saturation", le=1)


class Training(Section):
    """How a model is trained: stochastic gradient descent with momentum."""

    epochs: Count = Field(25, description="passes over the training images")
    batch_size: Count = Field(128, description="images a step")
    learning_rate: Positive = Field(
        0.1, description="initial (plateau, cosine) or peak (one_cycle)"
    )
    momentum: NonNegative = Field(0.9, description="momentum of SGD", lt=1)
    weight_decay: NonNegative = Field(1e-4, description="weight decay of SGD")
    schedule: Literal["plateau", "one_cycle", "cosine", "constant"] = Field(
        "plateau",
        description="plateau: divide the rate by 10 when validation accuracy stops rising",
    )
    patience: Natural = Field(5, description="plateau: epochs without a gain before the rate falls")
    early_stopping: Count | None = Field(
        None, description="stop after this many epochs without a gain in validation accuracy"
    )
    augmentation: Augmentation = Field(Augmentation(), description="random changes of the images")
    solver: Literal["batched", "torchdiffeq"] = Field(
        "batched",
        description="batched: every image has its own steps; torchdiffeq: the batch is one "
        "equation, as in the paper",
    )
    gradient: Literal["direct", "adjoint"] = Field(
        "direct",
        description="direct: through the solver's steps; adjoint: by a second solve backwards "
        "(needs solver: torchdiffeq)",
    )


class Model(Section):
    """A classifier: downsampling, body, head (paper, section 4)."""

    downsampling: Literal["residual", "convolution"] = Field(
        description="residual: 3x3 convolution and two residual blocks of stride 2; "
        "convolution: one 4x4 convolution of stride 2"
    )
    body: Literal["residual", "ode"] = Field(description="residual blocks or one ODE block")
    filters: Count = Field(64, description="channels of the body")
    blocks: Count = Field(6, description="residual blocks of a residual body")
    dropout: NonNegative = Field(0.5, description="dropout before the last layer", lt=1)
    solver: Solver = Field(Solver(), description="only for body: ode")
    weights: Annotated[str, Field(pattern=WEIGHTS)] | None = Field(
        None,
        description="take the weights from this file instead of training: a state dict under the "
        "authors' names or ours, as .safetensors or as .pth (by itself, or as its model, "
        "state_dict or model_state_dict); {seed} in the path is replaced by the seed",
    )
    training: Training = Field(
        Training(), description="the keys of `training` that differ for this model"
    )

    @model_validator(mode="after")
    def _filters_fit_group_norm(self) -> Self:
        if self.filters % groups(self.filters):
            raise ValueError(
                f"filters: {self.filters} must be at most {MAX_GROUPS}, or a multiple of "
                f"{MAX_GROUPS} (for GroupNorm)"
            )
        return self


class Trajectories(Section):
    """Which cells get a trajectory file, and what it holds (docs/trajectories.md)."""

    attacks: Names | None = Field(None, description="attacks to follow; all if unset")
    norms: Norms | None = Field(None, description="norms to follow; all if unset")
    epsilons: Numbers | None = Field(None, description="epsilons to follow; all if unset")
    tolerances: Numbers | None = Field(None, description="tolerances to follow; all if unset")
    images: Count | None = Field(
        None, description="images that are followed, the first that were attacked; all if unset"
    )
    times: Times = Field(
        51,
        description="where h(t) is looked at: so many equally spaced times in [0, 1], or a list "
        "that rises from 0 to 1; a model without an ODE is followed block by block",
    )
    states: Natural = Field(4, description="images whose full states are kept")
    precision: Literal["float16", "float32"] = Field("float16", description="of the kept states")
    growth: Natural = Field(
        16,
        description="images whose growth is split into what the Jacobian explains and the rest, "
        "with exponents, bounds and a tight reference curve",
    )
    causal: Natural = Field(
        100, description="adversarials in which intervals are repaired, to see which are to blame"
    )
    intervals: Count = Field(
        10,
        description="equal parts of [0, 1]: every run of neighbouring ones is repaired by itself; "
        "a model without an ODE has its blocks",
    )
    probe: bool = Field(
        True,
        description="fit a linear probe of h(t) at every time to validation images, which takes "
        f"{FEWEST_TO_PROBE}; if unset, where there are as many",
    )


class Audit(Section):
    """What tells robustness from a hidden gradient, for every model at every tolerance."""

    images: Count = Field(32, description="the first test images, right or wrong")
    directions: Count = Field(
        2, description="random directions of the finite differences, beside those of the gradients"
    )
    iterations: Count = Field(
        10, description="steps of the attack that is repeated with twice as many"
    )


class Matrix(Section):
    """Which adversarials are judged at every tolerance, and at a tight one."""

    attacks: Names | None = Field(
        None,
        description="attacks whose adversarials are judged; if unset the first with adjoint and "
        "the first with direct gradients",
    )
    norms: Norms | None = Field(None, description="their norms; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the middle one of each norm if unset"
    )


class Randomisation(Section):
    """A tolerance drawn at test time for every image and pass, as a defence, and its attackers."""

    distribution: Literal["log_uniform"] = Field(
        "log_uniform", description="log_uniform: the logarithm is uniform between low and high"
    )
    low: Tolerance | None = Field(
        None, description="smallest tolerance; the smallest of the experiment if unset"
    )
    high: Tolerance | None = Field(
        None, description="largest tolerance; the largest of the experiment if unset"
    )
    images: Count = Field(64, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attackers; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the middle one of each norm if unset"
    )
    iterations: Count = Field(10, description="gradient steps of every attacker")
    relative_step: Share = Field(0.25, description="step size as a share of epsilon")
    draws: Count = Field(
        5, description="draws over which the attacker eot averages the gradient of one step"
    )
    evaluation_draws: Count = Field(20, description="draws at which every image is judged")


class Detection(Section):
    """Adversarials told by the disagreement between the tolerances, and an attack that knows."""

    images: Count = Field(64, description="the first test images, right or wrong")
    norms: Norms | None = Field(None, description="norms of the attacks; the first one if unset")
    epsilons: Numbers | None = Field(
        None, description="their epsilons; the middle one of each norm if unset"
    )
    tolerances: Numbers | None = Field(
        None, description="of the classifier that is attacked; all if unset"
    )
    iterations: Count = Field(10, description="gradient steps of both attacks")
    relative_step: Share = Field(0.25, description="step size as a share of epsilon")
    penalty: NonNegative = Field(
        1.0,
        description="cross-entropy that the attack which knows the detector gives for one unit of "
        "its score",
    )


class Pace(Section):
    """What the paper's attack takes as its authors run it, one image at a time by torchdiffeq."""

    images: Count = Field(
        10, description="the first test images, at every tolerance, of the first seed"
    )


class Experiment(Section):
    """One grid: the product of its lists, minus what makes no sense."""

    datasets: Names = Field(description="names from `datasets`")
    models: Names = Field(description="names from `models`")
    seeds: Seeds = Field([0], description="training seeds")
    tolerances: Tolerances = Field(description="tau at test time; models without an ODE have none")
    attacks: Annotated[Names, AfterValidator(expand)] = Field(
        description="names from `attacks`, of built-in attacks, or of presets: "
        f"{', '.join(PRESETS)} (docs/attacks.md)"
    )
    norms: Norms = Field(description="linf; l2; l2_rms: the paper's, root mean square over pixels")
    epsilons: NumbersByNorm = Field(
        description="largest perturbation, for images in [0, 1]; one list, or a list for each norm"
    )
    skip_broken: bool = Field(
        True,
        description="dear attacks (apgd, fab, cw, square) leave out the images that a cheaper "
        "attack by gradients broke within the smallest epsilon; no verdict depends on it "
        "(docs/attacks.md)",
    )
    trajectories: Trajectories | None = Field(
        Trajectories(), description="follow h(t) of clean and adversarial images; null: none"
    )
    audit: Audit | None = Field(
        Audit(), description="compare gradients, and check the attacks; null: not"
    )
    matrix: Matrix | None = Field(
        Matrix(), description="judge adversarials at every tolerance; null: none"
    )
    randomisation: Randomisation | None = Field(
        Randomisation(), description="attack a tolerance that is drawn at test time; null: not"
    )
    detection: Detection | None = Field(
        Detection(), description="detect adversarials by several tolerances; null: not"
    )
    pace: Pace | None = Field(
        None,
        description="take the time of the paper's attack image by image, to compare the run's "
        "with; null: not",
    )
    paper: Literal["mnist", "cifar10"] | None = Field(
        None, description="show the paper's figures of this dataset beside ours"
    )

    paper_attack: Name | None = Field(
        None,
        description="the attack that is the paper's protocol in verdicts (docs/verdict.md); "
        f"{PAPER_ATTACK} if unset and among the attacks",
    )

    @model_validator(mode="after")
    def _the_papers_attack_runs(self) -> Self:
        if self.paper_attack is not None and self.paper_attack not in self.attacks:
            raise ValueError(
                f"paper_attack: {self.paper_attack} is not among the attacks "
                f"({', '.join(self.attacks)}): add it to attacks, or name one of these"
            )
        return self

    @property
    def papers_attack(self) -> str | None:
        """The attack that is the paper's protocol; None if none is."""
        return self.paper_attack or next((a for a in self.attacks if a == PAPER_ATTACK), None)

    @model_validator(mode="after")
    def _every_norm_has_epsilons(self) -> Self:
        if isinstance(self.epsilons, dict):
            for norm in self.norms:
                if norm not in self.epsilons:
                    raise ValueError(f"epsilons has no list for norm {norm}: add one")
            for norm in self.epsilons:
                if norm not in self.norms:
                    raise ValueError(
                        f"epsilons has a list for {norm}: remove it, or add {norm} to norms"
                    )
        return self

    @model_validator(mode="after")
    def _tolerances_can_be_drawn(self) -> Self:
        drawn = self.randomisation
        if drawn is not None and (drawn.low is not None or drawn.high is not None):
            low, high = self.drawn_tolerances(drawn)
            if low >= high:
                raise ValueError(
                    f"randomisation: low ({label(low)}) must be less than high ({label(high)})"
                )
        return self

    def drawn_tolerances(self, drawn: Randomisation) -> tuple[float, float]:
        """The smallest and the largest tolerance of a randomised model."""
        low = min(self.tolerances) if drawn.low is None else drawn.low
        high = max(self.tolerances) if drawn.high is None else drawn.high
        return low, high

    @property
    def distribution(self) -> dict[str, Any] | None:
        """The kind and the bounds of the tolerances that are drawn; None if none are."""
        drawn = self.randomisation
        if drawn is None:
            return None
        low, high = self.drawn_tolerances(drawn)
        if low == high:
            return None
        return {"distribution": drawn.distribution, "low": low, "high": high}

    def epsilons_for(self, norm: str) -> list[float]:
        """The epsilons of one norm."""
        if isinstance(self.epsilons, dict):
            return {str(key): values for key, values in self.epsilons.items()}[norm]
        return self.epsilons


class Compute(Section):
    """Where and how wide the work runs; none of it changes a result beyond rounding."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto: cuda, else mps, else cpu"
    )
    batch_size: Count | None = Field(
        None, description="images at a time; as many as memory_mb allows if unset"
    )
    memory_mb: Count | None = Field(
        None,
        description="memory for the images that are attacked at a time, in MB; if unset 1,000, or "
        "four fifths of what is free on a CUDA device",
    )
    shard_size: Count | None = Field(
        None,
        description="an attack on more test images than that is split into shards of so many, each "
        "a job of its own; if unset an attack is one job",
    )
    keep_shards: bool = Field(
        False,
        description="make every attack in shards and keep them, so that of more test images later "
        "only the new ones are attacked",
    )
    threads: Count = Field(1, description="CPU threads of an evaluation, attack or trajectory job")
    training_threads: Count = Field(1, description="CPU threads of a training job")

    @model_validator(mode="after")
    def _there_are_shards_to_keep(self) -> Self:
        if self.keep_shards and self.shard_size is None:
            raise ValueError("keep_shards needs shard_size: say how many images a shard holds")
        return self


def _with_built_in(own: object) -> object:
    return {**BUILT_IN, **own} if isinstance(own, dict) else own


class Config(Section):
    """The whole configuration."""

    experiments: Annotated[dict[Name, Experiment], Field(min_length=1)] = Field(
        description="each makes results/{name}/"
    )
    datasets: dict[Name, Dataset] = Field(description="the datasets that experiments name")
    models: dict[Name, Model] = Field(description="the models that experiments name")
    attacks: Annotated[dict[Name, Attack], BeforeValidator(_with_built_in)] = Field(
        {},
        description="attacks that experiments may name beside the built-in ones, or instead of "
        "them under the same name",
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
        for section, folders in _FOLDERS.items():
            for name in getattr(self, section):
                if _folded(name) in folders:
                    raise ValueError(
                        f"{section}.{name}: the folder of that name holds other files of a run: "
                        "choose another name"
                    )
        for name, dataset in self.datasets.items():
            if dataset.source in _ROLES and _folded(name) in _SOURCES:
                raise ValueError(
                    f"datasets.{name}: resources/{_folded(name)} is for the files of the known "
                    "dataset of that name: choose another name"
                )
        for section in ("experiments", "datasets", "models"):
            _apart(section, getattr(self, section))
        for name, experiment in self.experiments.items():
            _apart(f"experiments.{name}.attacks", experiment.attacks)
        return self

    @model_validator(mode="after")
    def _figures_have_panels_of_a_name(self) -> Self:
        for section in ("datasets", "models", "attacks"):
            for name in _NO_PANELS:
                if name in getattr(self, section):
                    raise ValueError(
                        f"{section}.{name}: means something else to the JavaScript of figures: "
                        "choose another name"
                    )
        return self

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        for name, experiment in self.experiments.items():
            where = f"experiments.{name}"
            _known(f"{where}.datasets", experiment.datasets, "datasets", self.datasets)
            _known(f"{where}.models", experiment.models, "models", self.models)
            _known(f"{where}.attacks", experiment.attacks, "attacks or presets", self._nameable)
            for norm in experiment.norms:
                for epsilon in experiment.epsilons_for(norm):
                    check_distance(f"{where}.epsilons", epsilon, norm)
            for attack in experiment.attacks:
                self._check_attack(where, experiment, attack)
            self._check_pace(where, experiment)
            _chosen_from_the_grid(where, experiment)
        for model, settings in self.models.items():
            training = self.training_of(model)
            method = settings.solver.method
            trained = settings.body == "ode" and settings.weights is None
            if trained and method in TORCHDIFFEQ_ONLY and training.solver != "torchdiffeq":
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
            size = size_of(dataset)
            if size is not None:
                for line in shortages(self, name, size.train, size.test):
                    raise ValueError(line)
        return self

    @model_validator(mode="after")
    def _shards_can_be_counted(self) -> Self:
        if self.compute.shard_size is not None:
            for name in dict.fromkeys(d for e in self.experiments.values() for d in e.datasets):
                dataset = self.datasets[name]
                if dataset.source in _ROLES and dataset.subset.test is None:
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
        """Refuse an attack that cannot be made as an experiment asks for it."""
        attack = self.attacks[name]
        # A preset is made of what is possible; who names an attack wants to have it.
        named = not from_preset(name, experiment.attacks)
        if isinstance(attack, SteppedAttack):
            _check_step(name, attack, experiment.norms)
        if isinstance(attack, Transfer):
            self._check_transfer(where, experiment, name, attack)
            if named and len(experiment.models) == 1:
                raise ValueError(
                    f"{where}.attacks: {name} takes adversarials of {experiment.models[0]} to "
                    f"other models, and there are none: remove it, or add one to {where}.models"
                )
        if isinstance(attack, EOTPGD) and experiment.distribution is None:
            raise ValueError(
                f"{where}.attacks: {name} averages gradients over drawn tolerances, and there is "
                f"no distribution of them: give {where}.randomisation a low and a high, or remove "
                f"{name}"
            )
        if named and not set(attack.NORMS) & set(experiment.norms):
            raise ValueError(
                f"{where}.attacks: {name} knows none of the norms {', '.join(experiment.norms)}: "
                f"remove it, or add {' or '.join(attack.NORMS)} to norms"
            )

    def _check_transfer(
        self, where: str, experiment: Experiment, name: str, transfer: Transfer
    ) -> None:
        _known(f"attacks.{name}.by", [transfer.by], "attacks", self.attacks)
        by = self.attacks[transfer.by]
        if by.method not in _IN_STEPS:
            raise ValueError(
                f"attacks.{name}.by: {transfer.by} has method {by.method}: name an attack of "
                f"method {_IN_STEPS_TEXT}"
            )
        if isinstance(by, SteppedAttack):
            _check_step(transfer.by, by, experiment.norms)
        if transfer.source is not None:
            _known(
                f"attacks.{name}.source", [transfer.source], f"{where}.models", experiment.models
            )

    def _check_pace(self, where: str, experiment: Experiment) -> None:
        if experiment.pace is None:
            return
        name = experiment.papers_attack
        if name is None:
            raise ValueError(
                f"{where}.pace is that of the paper's attack, which is not among the attacks: add "
                f"{PAPER_ATTACK}, say which one is as paper_attack, or remove pace"
            )
        method = self.attacks[name].method
        if method not in _IN_STEPS:
            raise ValueError(
                f"{where}.pace: {name} has method {method}: set paper_attack to an attack of "
                f"method {_IN_STEPS_TEXT}, or remove pace"
            )

    def training_of(self, model: str) -> Training:
        """The training settings of a model: its own keys over the common ones."""
        merged = self.training.model_dump()
        own = self.models[model].training.model_dump(exclude_unset=True)
        merged["augmentation"] |= own.pop("augmentation", {})
        return Training.model_validate(merged | own)


def _apart(where: str, names: Iterable[str]) -> None:
    """Refuse names whose folders are one where the file system ignores case."""
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(_folded(name), name)
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
        "attacks": experiment.attacks,
        "norms": experiment.norms,
        "tolerances": experiment.tolerances,
        "epsilons": [e for n in experiment.norms for e in experiment.epsilons_for(n)],
    }
    for section in ("trajectories", "matrix", "randomisation", "detection"):
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


def load(raw: Mapping[str, Any]) -> Config:
    """Check a configuration as Snakemake read it.

    Raises:
        UserError: with one line for every mistake, each naming its key and the way to mend it.
    """
    try:
        return Config.model_validate(_with_nulls(raw))
    except ValidationError as error:
        lines = dict.fromkeys(_line(detail) for detail in error.errors())
        raise UserError("\n".join(lines)) from None


def _with_nulls(value: object) -> object:
    """The configuration with `null` for "null": in `snakemake --config` every value is text."""
    if isinstance(value, Mapping):
        return {key: _with_nulls(item) for key, item in value.items()}
    return None if value == "null" else value


def _line(detail: ErrorDetails) -> str:
    """One mistake as one line: `config: key.path: what is wrong and how to mend it`."""
    tagged = [part for part in detail["loc"] if part not in (ONE, MAP)]
    if detail["type"].startswith("union_tag_") and isinstance(detail["input"], dict):
        tagged.append("method")
    location = [part for part in tagged if not str(part).startswith(METHOD)]
    keys = location[:-1] if len(location) > 1 and location[-1] == "[key]" else location
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in keys)
    where = " ".join(where.removeprefix(".").split())
    given = _shown(detail["input"])
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_beside(tagged)
            close = difflib.get_close_matches(str(keys[-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            message = f"unknown key; {hint}"
        case "missing" if isinstance(keys[-1], int):
            message = "is missing: the list is too short"
        case "missing":
            message = "this key is missing; see config/README.md"
        case "greater_than":
            message = f"{given} must be greater than {context['gt']:g}"
        case "greater_than_equal":
            message = f"{given} must be {context['ge']:g} or more"
        case "less_than":
            message = f"{given} must be less than {context['lt']:g}"
        case "less_than_equal":
            message = f"{given} must be {context['le']:g} or less"
        case "list_type" | "tuple_type":
            message = f"must be a list, such as [a, b] (given: {given})"
        case "union_tag_not_found" if keys[-1] == "method":
            message = "this key is missing; see config/README.md"
        case "union_tag_invalid":
            *others, last = map(repr, METHODS)
            chosen = _shown(detail["input"]["method"])
            message = f"{chosen} is not known; choose from {', '.join(others)} or {last}"
        case "dict_type" | "model_type" | "union_tag_not_found":
            message = f"must be a map of keys (given: {given})"
        case "string_type" if keys != location:
            message = "this name must be text: put it in quotes"
        case "invalid_key":
            message = "keys must be text: remove this one, or put it in quotes"
        case "string_type":
            message = f"must be text, in quotes if need be (given: {given})"
        case "bool_type" | "bool_parsing":
            message = f"must be true or false (given: {given})"
        case "too_short":
            message = "is empty: list at least one"
        case "too_long":
            message = f"must have {context['max_length']} entries (given: {given})"
        case "string_too_long":
            message = f"{given} is too long: use at most {context['max_length']} characters"
        case "literal_error":
            message = f"{given} is not known; choose from {context['expected']}"
        case "string_pattern_mismatch":
            message = f"{given} does not fit: write {PATTERNS[context['pattern']]}"
        case "value_error":
            message = str(context["error"])
        case _:
            message = f"{detail['msg']} (given: {given})"
    return f"config: {where}: {message}" if where else f"config: {message}"


def _shown(value: object) -> str:
    if value is None:
        return "nothing"
    return f"{value:g}" if isinstance(value, float) else reprlib.repr(value)


def _keys_beside(location: list[int | str]) -> list[str]:
    """The keys that are known where an unknown one stands."""
    schema = Config.model_json_schema()
    node: dict[str, Any] = schema
    for part in [*location[:-1]]:
        if str(part).startswith(METHOD):
            node = _of_method(schema, node, str(part).removeprefix(METHOD))
            continue
        node = _resolve(schema, node)
        properties = node.get("properties", {})
        if part in properties:
            node = properties[part]
        elif isinstance(node.get("additionalProperties"), dict):
            node = node["additionalProperties"]
        else:
            node = next(iter(node.get("patternProperties", {}).values()), {})
    return list(_resolve(schema, node).get("properties", {}))


def _of_method(schema: dict[str, Any], node: dict[str, Any], method: str) -> dict[str, Any]:
    """The form of an attack that has a method."""
    forms = (_resolve(schema, form) for form in node["oneOf"])
    return next(form for form in forms if form["properties"]["method"]["const"] == method)


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for option in [node, *node.get("anyOf", []), *node.get("allOf", [])]:
        if "$ref" in option:
            found: dict[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[1]]
            return found
    return node
