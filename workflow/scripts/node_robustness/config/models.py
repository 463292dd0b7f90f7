"""The keys of a model: its architecture, its solver, and how it is trained."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from node_robustness.config.values import (
    WEIGHTS,
    Count,
    Natural,
    NonNegative,
    Positive,
    Section,
    Tolerance,
)
from node_robustness.shapes.networks import MAX_GROUPS, groups

FIXED = ("euler", "midpoint", "rk4", "heun2", "heun3", "explicit_adams", "implicit_adams")
"""Methods that take equal steps."""

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
