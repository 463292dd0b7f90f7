"""The settings of the attacks of the library torchattacks."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, ValidationInfo, field_validator, model_validator

from node_robustness.config.attack import AnyAttack, GradientAttack
from node_robustness.config.torchattacks_classes import CLASSES, OTHERS, LibraryAttack
from node_robustness.config.values import Share

_QUARTER = {"method": "torchattacks", "relative_step": 0.25}

BUILT_IN = {
    "torchattacks_fgsm": {"method": "torchattacks", "name": "FGSM"},
    "torchattacks_bim": {**_QUARTER, "name": "BIM"},
    "torchattacks_pgd": {**_QUARTER, "name": "PGD"},
    "torchattacks_pgdl2": {**_QUARTER, "name": "PGDL2"},
    "torchattacks_apgd": {
        "method": "torchattacks",
        "name": "APGD",
        "parameters": {"steps": 100},
    },
    "torchattacks_square": {
        "method": "torchattacks",
        "name": "Square",
        "parameters": {"n_queries": 200},
    },
}

_NAMES: list[JsonValue] = [*CLASSES]

# Images one at a time, which is about so much slower; as for the paper's procedure.
_ONE_AT_A_TIME = 10


class TorchattacksSettings(GradientAttack):
    """An attack of the library torchattacks, untargeted, for comparison with those of the workflow.

    The workflow evaluates what the library returns, as it does for every other attack.
    """

    SPARES: ClassVar[bool] = False

    method: Literal["torchattacks"] = Field(description="torchattacks")
    name: str = Field(description="a class of the library", json_schema_extra={"enum": _NAMES})
    parameters: dict[str, bool | int | float | str] = Field(
        {},
        description="its arguments but model, eps, norm, seed, n_classes and verbose, which the "
        "workflow sets; the library's defaults if unset",
        validate_default=True,
    )
    relative_step: Share | None = Field(
        None, description="the argument alpha as a share of epsilon, in place of `alpha`"
    )

    @field_validator("name")
    @classmethod
    def _is_run(cls, name: str) -> str:
        if name in CLASSES:
            return name
        why = f"{OTHERS[name]}" if name in OTHERS else "is not a class of torchattacks"
        raise ValueError(f"{name} {why}: choose from {', '.join(CLASSES)}")

    @field_validator("parameters", mode="before")
    @classmethod
    def _belong_to_the_class(cls, parameters: Any, info: ValidationInfo) -> Any:
        if "name" not in info.data or not isinstance(parameters, dict):
            return parameters
        return CLASSES[info.data["name"]].complete(parameters)

    @model_validator(mode="after")
    def _one_step_size(self) -> Self:
        if self.relative_step is not None:
            if "alpha" not in self.library.parameters:
                raise ValueError(f"{self.name} takes no alpha: remove relative_step")
            if self.parameters["alpha"] != self.library.parameters["alpha"]:
                raise ValueError("give one of relative_step and the parameter alpha")
        return self

    @model_validator(mode="after")
    def _gradients_are_used(self) -> Self:
        # Other keys belong to other gradients, which are refused with them.
        if self.gradient != "direct" and not self.by_gradient:
            raise ValueError(f"{self.name} uses no gradient: remove gradient")
        return self

    @property
    def library(self) -> LibraryAttack:
        """What is known of the class."""
        return CLASSES[self.name]

    @property
    def norms(self) -> tuple[str, ...]:
        """See `AnyAttack.norms`."""
        return self.library.norms

    @property
    def minimal(self) -> bool:
        """See `AnyAttack.minimal`."""
        return self.library.minimal

    @property
    def channels(self) -> int | None:
        """See `AnyAttack.channels`."""
        return self.library.channels

    @property
    def by_gradient(self) -> bool:
        """See `AnyAttack.by_gradient`."""
        return self.library.by_gradient

    def steps(self, attacks: Mapping[str, AnyAttack]) -> int:
        """See `AnyAttack.steps`."""
        return self.library.steps(self.parameters) * _ONE_AT_A_TIME
