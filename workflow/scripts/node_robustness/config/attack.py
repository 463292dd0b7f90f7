"""What the settings of attacks have in common."""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from node_robustness.config.values import Count, NumberByNorm, Section, Share, Tolerance

_COUNTS = ("iterations", "restarts", "targets", "search_steps", "halvings", "queries", "draws")


class AnyAttack(Section):
    """What all attacks have."""

    SPARES: ClassVar[bool] = False
    """Whether other attacks may leave out the images that it has broken."""
    IN_STEPS: ClassVar[bool] = False
    """Whether it is a plain descent by steps of one length: only these can be transferred."""

    method: str

    @property
    def norms(self) -> tuple[str, ...]:
        """The norms that it knows."""
        return ("linf", "l2", "l2_rms")

    @property
    def minimal(self) -> bool:
        """Whether it looks for the smallest perturbation: one cell, of the largest epsilon."""
        return False

    @property
    def expensive(self) -> bool:
        """Whether it leaves out images that other attacks broke (`attack_settings.cheaper`)."""
        return False

    @property
    def channels(self) -> int | None:
        """The only number of channels that its images may have; None for any."""
        return None

    @property
    def by_gradient(self) -> bool:
        """Whether it follows gradients of the model that it attacks."""
        return False

    @property
    def draws_tolerances(self) -> bool:
        """Whether it averages gradients over drawn tolerances, in number its key `draws`."""
        return False

    @property
    def made_by(self) -> str | None:
        """The attack that makes its adversarial examples on another model; None if itself."""
        return None

    @property
    def made_on(self) -> str | None:
        """The model that this attack is made on; None if the grid chooses it."""
        return None

    def steps(self, attacks: Mapping[str, "AnyAttack"]) -> int:
        """The gradient steps or queries on each image, at most: the product of its counts.

        Args:
            attacks: every attack of the configuration, by name.
        """
        return math.prod(self.model_dump(include=set(_COUNTS), exclude_none=True).values())


class Surrogate(Section):
    """How the network is solved whose gradient takes the place of the attacked one's."""

    method: (
        Literal["dopri5", "bosh3", "adaptive_heun", "fehlberg2", "euler", "midpoint", "rk4"] | None
    ) = Field(
        None,
        description="solver; if unset the model's, or dopri5 where that takes equal steps; euler, "
        "midpoint and rk4 take `steps`",
    )
    tolerance: Tolerance | None = Field(None, description="tau of a solver that adapts its steps")
    steps: Count | None = Field(None, description="number of equal steps: euler, midpoint and rk4")

    @model_validator(mode="after")
    def _steps_or_a_tolerance(self) -> Self:
        if self.method in ("euler", "midpoint", "rk4"):
            if self.steps is None or self.tolerance is not None:
                raise ValueError(f"method {self.method} needs steps, and takes no tolerance")
        elif self.tolerance is None or self.steps is not None:
            raise ValueError("give a tolerance, or one of euler, midpoint and rk4 with steps")
        return self


class GradientAttack(AnyAttack):
    """What attacks that follow a gradient have."""

    SPARES: ClassVar[bool] = True

    gradient: Literal["direct", "adjoint", "surrogate"] = Field(
        "direct",
        description="direct: through the solver's steps; adjoint: the paper's, by a second solve "
        "backwards; surrogate: that of the same network solved otherwise, see `surrogate`",
    )
    adjoint_tolerance: Tolerance | None = Field(
        None, description="only for adjoint: tau of the backward solve; the forward one's if unset"
    )
    adjoint_norm: Literal["full", "seminorm"] = Field(
        "full",
        description="only for adjoint: which errors bound its steps; full: the paper's, also those "
        "of the gradients for all parameters; seminorm: without these",
    )
    surrogate: Surrogate | None = Field(
        None, description="only for surrogate: how the network is solved for its gradient"
    )

    @property
    def by_gradient(self) -> bool:
        """See `AnyAttack.by_gradient`."""
        return True

    @model_validator(mode="after")
    def _keys_fit_the_gradient(self) -> Self:
        belongs = {"adjoint_tolerance": "adjoint", "adjoint_norm": "adjoint"}
        belongs["surrogate"] = "surrogate"
        for key, gradient in belongs.items():
            unset = type(self).model_fields[key].default
            if self.gradient != gradient and getattr(self, key) != unset:
                raise ValueError(f"gradient {self.gradient} takes no {key}: remove it")
        if self.gradient == "surrogate" and self.surrogate is None:
            raise ValueError(
                "gradient surrogate needs the key surrogate, for example {tolerance: 1e-4}"
            )
        return self


class SteppedAttack(GradientAttack):
    """What attacks with steps of one length have."""

    iterations: Count = Field(10, description="gradient steps of a run at most")
    step: NumberByNorm | None = Field(
        None, description="step size in the units of the norm, one for all norms or one for each"
    )
    relative_step: Share | None = Field(
        None, description="step size as a share of epsilon (give step or relative_step)"
    )
    early_stop: bool = Field(
        True,
        description="an image ends at its first adversarial iterate, as in the paper; otherwise "
        "the adversarial iterate with the largest loss is kept",
    )

    @model_validator(mode="after")
    def _one_step_size(self) -> Self:
        if (self.step is None) == (self.relative_step is None):
            raise ValueError("give one of step and relative_step")
        return self

    def step_in(self, norm: str) -> float | None:
        """The step in a norm that it knows; None if it is a share of epsilon."""
        if isinstance(self.step, dict):
            return {str(key): value for key, value in self.step.items()}[norm]
        return self.step


class RandomStart(SteppedAttack):
    """What attacks from random points of the ball have."""

    restarts: Count = Field(1, description="runs, each for the images that still stand")
    loss: Literal["ce", "margin"] = Field(
        "ce",
        description="what the steps raise; ce: cross-entropy; margin: the largest other logit "
        "minus the label's, whose gradient does not vanish where the model is confident",
    )
