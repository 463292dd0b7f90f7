"""The settings of the smallest perturbation by bisection of epsilon."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import GradientAttack
from node_robustness.config.values import Count, Share

BUILT_IN = {
    "bisection": {"method": "bisection", "iterations": 10, "relative_step": 0.25, "halvings": 6},
}


class BisectionSettings(GradientAttack):
    """BIM at an epsilon of every image's own, found by bisection: the smallest perturbation."""

    method: Literal["bisection"] = Field(description="bisection")
    iterations: Count = Field(10, description="gradient steps at each epsilon")
    relative_step: Share = Field(0.25, description="step size as a share of the epsilon tried")
    halvings: Count = Field(8, description="epsilons tried after the largest")
    loss: Literal["ce", "margin"] = Field("ce", description="as for pgd")

    @property
    def minimal(self) -> bool:
        """See `AnyAttack.minimal`."""
        return True
