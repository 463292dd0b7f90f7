"""The settings of random perturbations."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import AnyAttack
from node_robustness.config.values import Count

BUILT_IN = {"noise": {"method": "noise", "draws": 20}}


class NoiseSettings(AnyAttack):
    """Random perturbations of size epsilon: the control."""

    method: Literal["noise"] = Field(description="noise")
    draws: Count = Field(20, description="random perturbations of an image at most")
