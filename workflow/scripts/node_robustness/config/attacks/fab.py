"""The settings of the fast adaptive boundary attack."""

from typing import Literal

from pydantic import Field

from node_robustness.config.attack import GradientAttack
from node_robustness.config.values import Count

BUILT_IN = {"fab_t": {"method": "fab", "iterations": 100, "targets": 9}}


class FABSettings(GradientAttack):
    """Fast adaptive boundary attack, targeted: the smallest perturbation."""

    method: Literal["fab"] = Field(description="fab")
    iterations: Count = Field(100, description="gradient steps for each target")
    targets: Count = Field(9, description="classes to aim at; at most all but the label")

    @property
    def minimal(self) -> bool:
        """See `AnyAttack.minimal`."""
        return True

    @property
    def expensive(self) -> bool:
        """See `AnyAttack.expensive`."""
        return True
