"""The attacks of the configuration: one class for each method, told apart by the key `method`."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from node_robustness.config.values import (
    Count,
    Name,
    NonNegative,
    NumberByNorm,
    Positive,
    Section,
    Share,
    Tolerance,
)

METHODS = (
    "fgsm",
    "bim",
    "pgd",
    "eot_pgd",
    "bisection",
    "apgd",
    "fab",
    "cw",
    "square",
    "transfer",
    "noise",
)
METHOD = "\0method "
"""Begins the part of an error's location that stands for the method; YAML cannot contain it."""


class AnyAttack(Section):
    """What all attacks have."""

    NORMS: ClassVar[tuple[str, ...]] = ("linf", "l2", "l2_rms")
    MINIMAL: ClassVar[bool] = False
    """Whether it looks for the smallest perturbation: one cell, of the largest epsilon."""
    DEAR: ClassVar[bool] = False
    """Whether it leaves out images that cheaper attacks have broken (`attack_settings.cheaper`)."""

    method: str


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


class FGSM(GradientAttack):
    """Fast gradient sign method: one step as long as epsilon."""

    method: Literal["fgsm"] = Field(description="fgsm")


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


class BIM(SteppedAttack):
    """Basic iterative method, the paper's: no random start, any iterate counts."""

    method: Literal["bim"] = Field(description="bim")


class RandomStart(SteppedAttack):
    """What attacks from random points of the ball have."""

    restarts: Count = Field(1, description="runs, each for the images that still stand")
    loss: Literal["ce", "margin"] = Field(
        "ce",
        description="what the steps raise; ce: cross-entropy; margin: the largest other logit "
        "minus the label's, whose gradient does not vanish where the model is confident",
    )


class PGD(RandomStart):
    """Projected gradient descent: BIM from random points of the ball."""

    method: Literal["pgd"] = Field(description="pgd")


class EOTPGD(RandomStart):
    """PGD by the mean gradient over drawn tolerances (expectation over transformation).

    The distribution is that of the experiment's `randomisation`. What is found is judged at the
    cell's tolerance.
    """

    method: Literal["eot_pgd"] = Field(description="eot_pgd")
    draws: Count = Field(5, description="draws over which the gradient of one step is averaged")

    @model_validator(mode="after")
    def _tolerances_are_drawn(self) -> Self:
        if self.gradient == "surrogate":
            raise ValueError(
                "method eot_pgd draws the tolerances of its gradients and takes no surrogate: "
                "give gradient direct or adjoint"
            )
        return self


class APGD(GradientAttack):
    """Auto-PGD: sets its step size itself."""

    DEAR: ClassVar[bool] = True

    method: Literal["apgd"] = Field(description="apgd")
    loss: Literal["ce", "dlr"] = Field(
        "ce", description="ce: cross-entropy; dlr: difference of logits ratio"
    )
    iterations: Count = Field(100, description="gradient steps of a run")
    restarts: Count = Field(1, description="runs, for each target where there are targets")
    targets: Count | None = Field(
        None,
        description="only for dlr: aim at this many classes in turn (at most all but the label); "
        "untargeted if unset",
    )

    @model_validator(mode="after")
    def _targets_need_dlr(self) -> Self:
        if self.targets is not None and self.loss != "dlr":
            raise ValueError("targets needs loss: dlr")
        return self


class FAB(GradientAttack):
    """Fast adaptive boundary attack, targeted: the smallest perturbation."""

    MINIMAL: ClassVar[bool] = True
    DEAR: ClassVar[bool] = True

    method: Literal["fab"] = Field(description="fab")
    iterations: Count = Field(100, description="gradient steps for each target")
    targets: Count = Field(9, description="classes to aim at; at most all but the label")


class CarliniWagner(GradientAttack):
    """Carlini and Wagner's attack: the smallest perturbation in L2."""

    NORMS: ClassVar[tuple[str, ...]] = ("l2", "l2_rms")
    MINIMAL: ClassVar[bool] = True
    DEAR: ClassVar[bool] = True

    method: Literal["cw"] = Field(description="cw")
    iterations: Count = Field(200, description="gradient steps for each weight of the loss")
    search_steps: Count = Field(6, description="weights tried by binary search")
    learning_rate: Positive = Field(0.01, description="of Adam")
    confidence: NonNegative = Field(
        0, description="by how much the wrong logit must exceed the right one"
    )


class Bisection(GradientAttack):
    """BIM at an epsilon of every image's own, found by bisection: the smallest perturbation."""

    MINIMAL: ClassVar[bool] = True

    method: Literal["bisection"] = Field(description="bisection")
    iterations: Count = Field(10, description="gradient steps at each epsilon")
    relative_step: Share = Field(0.25, description="step size as a share of the epsilon tried")
    halvings: Count = Field(8, description="epsilons tried after the largest")
    loss: Literal["ce", "margin"] = Field("ce", description="as for pgd")


class Square(AnyAttack):
    """Square attack: random squares, kept where they help; needs no gradient."""

    DEAR: ClassVar[bool] = True

    method: Literal["square"] = Field(description="square")
    queries: Count = Field(5000, description="passes of an image through the model at most")


class Noise(AnyAttack):
    """Random perturbations of size epsilon: the control."""

    method: Literal["noise"] = Field(description="noise")
    draws: Count = Field(20, description="random perturbations of an image at most")


class Transfer(AnyAttack):
    """Adversarials made on another model of the experiment."""

    method: Literal["transfer"] = Field(description="transfer")
    source: Name | None = Field(
        None,
        description="a model of the experiment; if unset RES, or the first model where there is "
        "none of that name",
    )
    by: Name = Field(
        description="the attack on the source, of method fgsm, bim or pgd, without early stop"
    )


def _method(value: Any) -> str | None:
    """The tag of an attack; None if it is not a map or has no method."""
    given = value.get("method") if isinstance(value, dict) else getattr(value, "method", None)
    return None if given is None else f"{METHOD}{given}"


Attack = Annotated[
    Annotated[FGSM, Tag(f"{METHOD}fgsm")]
    | Annotated[BIM, Tag(f"{METHOD}bim")]
    | Annotated[PGD, Tag(f"{METHOD}pgd")]
    | Annotated[EOTPGD, Tag(f"{METHOD}eot_pgd")]
    | Annotated[Bisection, Tag(f"{METHOD}bisection")]
    | Annotated[APGD, Tag(f"{METHOD}apgd")]
    | Annotated[FAB, Tag(f"{METHOD}fab")]
    | Annotated[CarliniWagner, Tag(f"{METHOD}cw")]
    | Annotated[Square, Tag(f"{METHOD}square")]
    | Annotated[Transfer, Tag(f"{METHOD}transfer")]
    | Annotated[Noise, Tag(f"{METHOD}noise")],
    Discriminator(_method),
]
