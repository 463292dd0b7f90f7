"""The keys of a model, built in or the user's own: architecture, solver, and how it is trained.

Every model says in the same words what the grid needs to know of it: whether it `has_ode`, whether
a tolerance bounds its steps (`adaptive`), and so on.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from node_robustness.code.model_file import ModelFile, find
from node_robustness.config.values import (
    CHECKPOINT,
    FIXED,
    FUNCTION,
    MODULE,
    WEIGHTS,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Norm,
    NumberOrName,
    Positive,
    Section,
    Tolerance,
    plain_values,
)
from node_robustness.errors import UserError
from node_robustness.shapes import networks
from node_robustness.shapes.networks import MAX_GROUPS, groups

TORCHDIFFEQ_ONLY = ("dopri8", "heun2", "heun3", "explicit_adams", "implicit_adams")
"""Methods that the batched backend lacks."""


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
        "and max_steps have no effect (implicit_adams: tolerance bounds its iterations)",
    )
    batch_size: Count = Field(
        1,
        description="only for torchdiffeq: how many images are one equation, except in training; "
        "with more than 1 a prediction depends on the other images",
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

    @property
    def is_own(self) -> bool:
        """Whether a file of the user builds the model."""
        return False

    @property
    def published(self) -> "Published | None":
        """What was published of it, for the leaderboard: the paper's values have their own key."""
        return None

    @property
    def certify(self) -> str | None:
        """The method that proves its robustness: none does."""
        return None

    @property
    def has_ode(self) -> bool:
        """Whether the model has an ODE."""
        return self.body == "ode"

    @property
    def adaptive(self) -> bool:
        """Whether the model has an ODE whose steps the tolerance bounds."""
        return self.has_ode and self.solver.steps is None

    @property
    def stepped_alone(self) -> bool:
        """Whether the model takes the steps of each image for that image alone."""
        return not self.has_ode or self.solver.backend == "batched"

    @property
    def can_be_followed(self) -> bool:
        """Whether there are states of each image between its first and its last."""
        return self.stepped_alone

    @property
    def joint_images(self) -> int:
        """How many images are one equation."""
        return 1 if self.stepped_alone else self.solver.batch_size

    @property
    def only_torchdiffeq_has(self) -> str | None:
        """The method of the ODE, if the batched backend lacks it."""
        lacking = self.has_ode and self.solver.method in TORCHDIFFEQ_ONLY
        return self.solver.method if lacking else None

    @property
    def training_tolerance(self) -> float | None:
        """The tolerance in training; None if it takes no adaptive steps."""
        return self.solver.tolerance if self.adaptive else None

    @property
    def adaptive_method(self) -> str | None:
        """The method of a surrogate that takes adaptive steps."""
        return "dopri5" if self.solver.steps is not None else self.solver.method

    @property
    def channels(self) -> int:
        """Of the body."""
        return self.filters

    def columns(self, tolerances: Sequence[float]) -> list[float | None]:
        """At what of an experiment's tolerances it is solved: None alone without adaptive steps."""
        return [*tolerances] if self.adaptive else [None]

    def architecture(self) -> dict[str, Any]:
        """The keys that fix the network, without those that it does not use."""
        unused = {"blocks"} if self.has_ode else {"solver"}
        return self.model_dump(exclude={"training", "weights"} | unused)

    def check_file(self) -> None:
        """A built-in model has no file."""

    def check_images(self, where: str, images: str, height: int, width: int) -> None:
        """Refuse images from which the model cannot learn; see `shapes.networks.check_images`."""
        networks.check_images(where, images, self.downsampling, self.filters, height, width)


class Published(Section):
    """What was published of an own model, for the leaderboard."""

    claim: str = Field(description="what is claimed, in a few words")
    source: str = Field(description="where: a URL, or a citation")
    accuracy: Fraction | None = Field(None, description="of clean images, between 0 and 1")
    robust_accuracy: Fraction | None = Field(None, description="under attack, between 0 and 1")
    certified: Fraction | None = Field(
        None, description="the share of images that is proven to be robust, between 0 and 1"
    )
    norm: Norm | None = Field(None, description="of `robust_accuracy` and `certified`")
    epsilon: Positive | None = Field(None, description="of `robust_accuracy` and `certified`")

    @model_validator(mode="after")
    def _robust_within_a_ball(self) -> Self:
        robust = self.robust_accuracy is not None or self.certified is not None
        if robust and (self.norm is None or self.epsilon is None):
            raise ValueError(
                "robust_accuracy and certified are within a ball: give its norm and its epsilon"
            )
        return self


class OwnModel(Section):
    """A classifier of your own: a PyTorch module that a Python file builds (docs/own-models.md)."""

    module: Annotated[str, Field(pattern=MODULE)] = Field(
        description="the Python file, relative to the working directory, or the dotted name of an "
        "installed module; it is code and runs with your rights"
    )
    build: Annotated[str, Field(pattern=FUNCTION)] = Field(
        "build", description="the function or class in it that builds the model"
    )
    arguments: Annotated[dict[str, Any], BeforeValidator(plain_values)] = Field(
        {},
        description="what it is called with; `channels` and `classes` of the dataset are added "
        "where its signature has them",
    )
    weights: Annotated[str, Field(pattern=CHECKPOINT)] | None = Field(
        None,
        description="take the weights from this file instead of training: a state dict as "
        "safetensors or of torch.save; {seed} in the path is replaced by the seed",
    )
    weights_key: str | None = Field(
        None, description="where in the file the state dict is; common places are found if unset"
    )
    output: NumberOrName = Field(
        0, description="which element is the logits, if the model returns several"
    )
    solve: NumberOrName | None = Field(
        None,
        description="the ODE solve that trajectories follow, if there are several: the name of its "
        "module, such as net.5, or its number in a pass, from 0; the first if unset",
    )
    ode: Literal["adaptive", "fixed", "none"] | None = Field(
        None,
        description="adaptive: it can be solved at other tolerances; fixed: its ODE takes fixed "
        "steps; none: no ODE, or one that cannot be reached; if unset adaptive where the file, or "
        "one that it imports from its folder, imports torchdiffeq (or node_robustness.ode) or "
        "defines `set_tolerance`, else none",
    )
    max_steps: Count = Field(
        1000, description="an image that needs more steps ends with status max_steps"
    )
    training: Training = Field(
        Training(), description="the keys of `training` that differ for this model"
    )
    published: Published | None = Field(None, description="what was published of it")
    certify: Annotated[str, Field(pattern=FUNCTION)] | None = Field(
        None,
        description="the method of the module that proves robustness image by image "
        "(docs/own-models.md)",
    )

    @model_validator(mode="after")
    def _there_is_a_file_for_the_key(self) -> Self:
        if self.weights_key is not None and self.weights is None:
            raise ValueError(
                "weights_key is a key in the file of weights: add weights, or remove it"
            )
        return self

    @property
    def is_own(self) -> bool:
        """Whether a file of the user builds the model."""
        return True

    @property
    def file(self) -> ModelFile:
        """The Python file.

        Raises:
            UserError: there is none.
        """
        return find(self.module)

    @property
    def kind(self) -> str:
        """The kind of its ODE: adaptive, fixed or none."""
        return self.ode or self.file.ode()

    @property
    def has_ode(self) -> bool:
        """Whether the model has an ODE."""
        return self.kind != "none"

    @property
    def adaptive(self) -> bool:
        """Whether the model has an ODE whose steps the tolerance bounds."""
        return self.kind == "adaptive"

    @property
    def stepped_alone(self) -> bool:
        """Whether the model takes the steps of each image for that image alone."""
        return True

    @property
    def can_be_followed(self) -> bool:
        """Whether there are states of each image between its first and its last."""
        return self.has_ode

    @property
    def joint_images(self) -> int:
        """How many images are one equation."""
        return 1

    @property
    def only_torchdiffeq_has(self) -> str | None:
        """The method of the ODE, if the batched backend lacks it: the author's is in the file."""
        return None

    @property
    def training_tolerance(self) -> float | None:
        """The tolerance in training: None, which stands for the author's settings."""
        return None

    @property
    def adaptive_method(self) -> str | None:
        """The method of a surrogate that takes adaptive steps; None for the author's."""
        return "dopri5" if self.kind == "fixed" else None

    @property
    def channels(self) -> int:
        """Of the ODE's state: a guess, as it is known only when the model is built."""
        return 64

    def columns(self, tolerances: Sequence[float]) -> list[float | None]:
        """At what of an experiment's tolerances it is solved, and None, the author's settings."""
        return [*tolerances, None] if self.adaptive else [None]

    def architecture(self) -> dict[str, Any]:
        """The keys that fix the network, the kind of its ODE, and the digest of its code."""
        keys = self.model_dump(exclude={"training", "weights", "published", "certify"})
        return keys | {
            "arguments": _in_order(self.arguments),
            "ode": self.kind,
            "code": self.file.code(),
        }

    def check_file(self) -> None:
        """Refuse a file that is not there, or that does not define what builds the model.

        Raises:
            UserError: the text begins with the key.
        """
        try:
            file = self.file
            file.code()
        except UserError as error:
            raise UserError(f"module: {error}") from None
        file.check(self.build, self.arguments)
        if self.solve is not None and not self.has_ode:
            raise UserError(
                "solve: no file of the model imports torchdiffeq, so there is no solve to follow: "
                "remove solve, or set ode: adaptive if it does"
                if self.ode is None
                else "solve: with ode: none there is no solve to follow: remove one of them"
            )

    def check_images(self, where: str, images: str, height: int, width: int) -> None:
        """Refuse no images: whether the model takes them is known only when it is built."""


def _in_order(value: Any) -> Any:
    """The same value for maps whose keys are in another order."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [*map(_in_order, value)] if isinstance(value, list) else value


KIND = "\0kind "
"""Begins the part of an error's location that stands for the kind of a model."""

_BUILT_IN, _OWN = f"{KIND}{Model.__name__}", f"{KIND}{OwnModel.__name__}"
_KEYS_OF_OWN = OwnModel.model_fields.keys() - Model.model_fields.keys()


def _kind(value: Any) -> str:
    """The tag of a model: that of an own one has the key `module`, or should have it."""
    if not isinstance(value, dict):
        return _OWN if isinstance(value, OwnModel) else _BUILT_IN
    built_in = "downsampling" in value or "body" in value
    own = "module" in value or (_KEYS_OF_OWN & value.keys() and not built_in)
    return _OWN if own else _BUILT_IN


AnyModel = Annotated[
    Annotated[Model, Tag(_BUILT_IN)] | Annotated[OwnModel, Tag(_OWN)], Discriminator(_kind)
]
