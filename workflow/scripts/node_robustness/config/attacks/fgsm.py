"""The settings of the fast gradient sign method."""

from typing import ClassVar, Literal

from pydantic import Field

from node_robustness.config.attack import GradientAttack

BUILT_IN = {"fgsm": {"method": "fgsm"}}


class FGSMSettings(GradientAttack):
    """Fast gradient sign method: one step as long as epsilon."""

    IN_STEPS: ClassVar[bool] = True

    method: Literal["fgsm"] = Field(description="fgsm")
